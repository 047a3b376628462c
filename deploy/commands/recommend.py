"""`palate recommend`."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.console import JsonOption, not_found, print_json, terminal
from models.settings import load_settings


def recommend(
    user: Annotated[str, typer.Argument(help="User id.")],
    as_json: JsonOption = False,
) -> None:
    """Show the list that a user has now, and why each item is on it.

    Example: palate recommend 13085
    """
    from deploy.log_reader import LogReader, plain
    from deploy.rendering import recommendation_view

    reader = LogReader(load_settings())
    found = reader.recommendation(user)
    if found is None:
        raise not_found(f"no recommendation for {user} in the log")
    texts = reader.texts(item.item_id for item in found.items)
    if as_json:
        print_json({"recommendation": plain(found), "texts": texts})
    else:
        terminal().print(recommendation_view(found, texts))
