"""`palate profile`."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.console import JsonOption, not_found, print_json, terminal
from models.settings import load_settings


def profile(
    user: Annotated[str, typer.Argument(help="User id.")],
    version: Annotated[int | None, typer.Option(help="An older version.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a user's profile, the events that each sentence rests on, and all versions.

    Example: palate profile 13085
    """
    from deploy.log_reader import LogReader, plain
    from deploy.rendering import profile_view, versions_view

    reader = LogReader(load_settings())
    versions = reader.profiles(user)
    chosen = next((p for p in reversed(versions) if version in (None, p.version)), None)
    if chosen is None:
        which = "" if version is None else f" in version {version}"
        raise not_found(f"no profile of {user}{which} in the log")
    events = reader.evidence(chosen)
    if as_json:
        print_json(
            {
                "profile": plain(chosen),
                "evidence": {name: event._asdict() for name, event in events.items()},
                "versions": [p.version for p in versions],
            }
        )
    else:
        terminal().print(profile_view(chosen, events), "", versions_view(versions))
