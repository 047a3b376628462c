"""`palate history`."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.console import JsonOption, not_found, print_json, terminal
from models.schemas import to_rfc3339
from models.settings import load_settings


def history(
    user: Annotated[str, typer.Argument(help="User id.")],
    last: Annotated[int, typer.Option(min=1, help="Show so many of the newest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show a user's interactions as the windows see them, the newest first.

    Example: palate history 13085 --last 50
    """
    from deploy.log_reader import LogReader
    from deploy.rendering import day, history_view

    reader = LogReader(load_settings())
    entries = reader.history(user)
    if not entries:
        raise not_found(f"no interactions of {user} in the log")
    as_of, windows = reader.windows(user, entries)
    texts = reader.texts(entry.item_id for entry in entries)
    if as_json:
        members = [{e.event_id for e in window} for window in windows]
        rows = [
            {
                **{"event_id": e.event_id, "timestamp": to_rfc3339(e.timestamp)},
                **{"type": e.type.value, "item_id": e.item_id, "text": texts.get(e.item_id)},
                "windows": [
                    name
                    for name, ids in zip(windows._fields, members, strict=True)
                    if e.event_id in ids
                ],
            }
            for e in reversed(entries[-last:])
        ]
        print_json({"user_id": user, "as_of": to_rfc3339(as_of), "events": rows})
        return
    console = terminal()
    console.print(f"[bold]{len(entries)}[/] interactions; windows as of {day(as_of)}")
    console.print(history_view(entries, windows, texts, last))
