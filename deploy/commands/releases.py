"""`palate releases`: what there is, what serves, and changing that."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.console import JsonOption, print_json, run, terminal
from models.errors import PalateError, ReleaseError
from models.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.promotion import CandidateProgress
    from models.ports import InForce, Release
    from models.release.store import FolderReleaseStore

ReleaseId = Annotated[str, typer.Argument(help="Release id, as palate releases lists it.")]

WITHIN_S = 900.0  # a catalogue of 10⁵ items takes a quarter of an hour to embed on two cores

app = typer.Typer(
    help="Releases: what there is, what serves, and changing that.\n\nExample: palate releases list"
)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List releases, oldest first, and what each of them is doing.

    Example: palate releases list
    """
    settings = load_settings()
    store = _store(settings)
    states = _states(settings)
    known = store.ids()
    missing = [release_id for release_id in states if release_id not in known]
    rows = [_row(store, release_id, states) for release_id in [*known, *missing]]
    if as_json:
        print_json(rows)
        return
    console = terminal()
    for row in rows:
        state = f"[bold]{row['state']}[/]" if row["state"] else ""
        console.print(f"{row['id']:24} {row['created_at']:22} {row['kind']:10} {state}")
    if not rows:
        console.print(f"no releases in {settings.releases_dir}; palate up makes the first")


@app.command()
def show(release_id: ReleaseId, as_json: JsonOption = False) -> None:
    """Show a release's manifest, whether its files are as published and whether it fits here.

    Example: palate releases show base-0
    """
    from models.engines.model_files import base_model_hash
    from models.release.compatibility import held_back, unfit

    settings = load_settings()
    store = _store(settings)
    release = store.get(release_id)
    findings = {
        "damaged": _damage(store, release_id),
        "unfit": unfit(release, settings, base_model_hash(settings)),
        "held_back": held_back(release),
    }
    if as_json:
        print_json({**asdict(release), "findings": findings})
        return
    _print_release(release)
    for finding in filter(None, findings.values()):
        terminal().print(f"[yellow]{finding}[/]", soft_wrap=True)


@app.command()
def promote(
    release_id: ReleaseId,
    force: Annotated[
        bool, typer.Option("--force", help="Also if the trainer's gate held it back.")
    ] = False,
    within: Annotated[
        float, typer.Option(min=1.0, help="Give up after so many seconds; the old one serves on.")
    ] = WITHIN_S,
) -> None:
    """Make a release the one in force, once indexer and profilers are ready for it.

    Until then, and if anything goes wrong, the old one serves.

    Example: palate releases promote taste-1
    """
    settings = load_settings()
    release = _store(settings).get(release_id)
    _require_gate(release, force)
    put_into_service(settings, release_id, within, terminal())


def put_into_service(
    settings: Settings,
    release_id: str,
    within: float,
    console: Console,
    instead_of: InForce | None = None,
) -> None:
    """Promote and say so; at most `within` seconds. Raises ReleaseError; the old one serves on.

    `instead_of` as in deploy.promotion.promote.
    """
    with console.status(f"{release_id}: published") as status:
        run(
            _promote(
                settings,
                release_id,
                within,
                instead_of,
                lambda progress: status.update(f"{release_id}: {progress.missing or 'ready'}"),
            )
        )
    console.print(f"release [bold]{release_id}[/] serves; back: palate releases rollback")


@app.command()
def rollback(
    to: Annotated[
        str | None, typer.Option(help="Only if this is the release that is gone back to.")
    ] = None,
) -> None:
    """Make the previous release serve again, at once.

    Example: palate releases rollback
    """
    settings = load_settings()
    release = run(_rollback(settings, to))
    terminal().print(f"release [bold]{release.id}[/] serves again")


async def _promote(
    settings: Settings, release_id: str, within_s: float, instead_of: InForce | None, say: Any
) -> None:
    from deploy.promotion import promote as make_serve
    from deploy.promotion import releases_topic
    from models.engines.model_files import base_model_hash

    async with releases_topic(settings) as topic:
        await make_serve(
            topic,
            _store(settings),
            release_id,
            model_hash=base_model_hash(settings),
            instead_of=instead_of,
            within_s=within_s,
            say=say,
        )


async def _rollback(settings: Settings, to: str | None) -> Release:
    from deploy.promotion import releases_topic
    from deploy.promotion import rollback as go_back

    async with releases_topic(settings) as topic:
        return await go_back(topic, _store(settings), to)


def _require_gate(release: Release, force: bool) -> None:
    from models.release.compatibility import held_back

    reason = held_back(release)
    if reason and not force:
        raise ReleaseError(
            f"the trainer's gate held {release.id!r} back: {reason}. --force promotes it anyway"
        )


def _store(settings: Settings) -> FolderReleaseStore:
    from models.release.store import FolderReleaseStore

    return FolderReleaseStore(settings.releases_dir)


def _states(settings: Settings) -> dict[str, str]:
    """Release id → serving, previous, candidate (with what it waits for); empty without Kafka."""
    try:
        return run(_announced(settings))
    except PalateError as error:
        typer.secho(f"what serves is not known: {error}", fg="yellow", err=True)
        return {}


async def _announced(settings: Settings) -> dict[str, str]:
    from deploy.promotion import progress_of, releases_topic

    async with releases_topic(settings) as topic:
        found = topic.releases
        states = {}
        if found.candidate:
            progress: CandidateProgress = await progress_of(topic, found.candidate)
            states[found.candidate] = f"candidate ({progress.missing or 'ready'})"
        if found.previous:
            states[found.previous] = "previous"
        if found.id:
            states[found.id] = "serving"
        return states


def _row(store: FolderReleaseStore, release_id: str, states: dict[str, str]) -> dict[str, str]:
    state = states.get(release_id, "")
    try:
        release = store.get(release_id)
    except ReleaseError as error:
        kind = "damaged" if release_id in store.ids() else "missing"
        told = "; ".join(filter(None, (state, str(error))))
        return {"id": release_id, "created_at": "", "kind": kind, "state": told}
    kept = {"id": release.id, "created_at": release.created_at, "kind": release.kind}
    return {**kept, "state": state}


def _damage(store: FolderReleaseStore, release_id: str) -> str | None:
    try:
        store.verify(release_id)
    except ReleaseError as error:
        return str(error)
    return None


def _print_release(release: Release) -> None:
    console = terminal()
    told = asdict(release)
    told["files"] = f"{len(release.files)} files"
    told["canary"] = f"{len(release.canary)} texts"
    for name, value in told.items():
        if value:
            console.print(f"{name:16} {value}", soft_wrap=True)
