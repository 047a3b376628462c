"""`palate rebuild-index`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from deploy.console import JsonOption, print_json, run, terminal
from models.settings import load_settings


def rebuild_index(
    cooccurrence_only: Annotated[
        bool, typer.Option("--cooccurrence-only", help="Only count the event log again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make vectors and co-occurrence again, from the topics and the event log.

    The indexer must not run. Trackers may; they take up the new rows within seconds.

    Example: palate rebuild-index
    """
    result = _count() if cooccurrence_only else _everything()
    if as_json:
        print_json(result)
        return
    console = terminal()
    for name, value in result.items():
        console.print(f"{name}: [bold]{value}[/]")


def _count() -> dict[str, object]:
    from streams.indexer.snapshots import build_snapshot

    snapshot = build_snapshot(load_settings())
    return {"cooccurrence": snapshot.id, "cooccurrence_items": len(snapshot.ids)}


def _everything() -> dict[str, object]:
    from models.release.store import FolderReleaseStore
    from streams.indexer.__main__ import folder_loader, load_embedder, writer
    from streams.indexer.rebuild import rebuild_index as rebuild

    settings = load_settings()
    with closing(writer(settings)) as index:
        embedder = load_embedder(settings)
        releases = FolderReleaseStore(settings.releases_dir)
        load = folder_loader(settings)
        return asdict(run(rebuild(settings, index, embedder, releases, load)))
