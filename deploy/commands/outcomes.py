"""`palate outcomes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.console import JsonOption, print_json, terminal
from models.settings import load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from deploy.outcomes import Outcomes


def outcomes(
    days: Annotated[
        float, typer.Option(min=0, help="A list answers for so many days of event time.")
    ] = 30.0,
    types: Annotated[
        str, typer.Option(help="Interactions that count, with commas between.")
    ] = "click,cart,purchase",
    as_json: JsonOption = False,
) -> None:
    """Show what users did after their recommendations, against popularity.

    An interaction is judged by the newest list made before it without knowing it, if that is not
    too old; it is a hit if its item is on that list. Popularity: as many items, the most taken in
    the 30 days before.

    Example: palate outcomes --days 90 --types purchase
    """
    from deploy.log_reader import LogReader
    from deploy.outcomes import outcomes as judge
    from models.schemas import InteractionType
    from streams.event_log import answered

    chosen = [name.strip() for name in types.split(",") if name.strip()]
    wrong = set(chosen) - {kind.value for kind in InteractionType}
    if wrong or not chosen:
        raise typer.BadParameter(f"no such interaction type: {', '.join(sorted(wrong)) or 'none'}")
    settings = load_settings()
    reader = LogReader(settings)
    with answered(settings.log_dir):
        found = judge(reader.connection, days=days, types=chosen)
    if as_json:
        print_json(found.as_json())
        return
    console = terminal()
    console.print(
        f"{found.lists} lists; {found.lists_judged} of them were followed by a judged interaction"
    )
    for table in _tables(found):
        console.print(table)


def _tables(found: Outcomes) -> list[Table]:
    overall = {
        "interactions on their list": found.interactions,
        "… among the most popular": found.popularity,
        "lists with a hit": found.visits,
        "… of popularity": found.popularity_visits,
    }
    return [
        _table("what", overall),
        _table("rank", found.by_rank),
        _table("reason", found.by_reason),
        _table("release", found.by_release),
        _table("made because of", found.by_trigger),
    ]


def _table(title: str, shares: dict[Any, Any]) -> Table:
    from rich.table import Table

    table = Table(title, "hits", "of", "share", show_edge=False)
    for name, share in shares.items():
        table.add_row(str(name), str(share.hits), str(share.of), f"{share.rate:.1%}")
    return table
