"""`palate rebuild`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import orjson
import typer

from deploy.console import JsonOption, not_found, print_json, run, terminal
from models.settings import Settings, load_settings

if TYPE_CHECKING:
    from streams.event_log import SegmentLog
    from streams.rebuild import RebuiltPartition

SHOWN_DIFFERENCES = 20


def rebuild(
    check: Annotated[
        bool, typer.Option("--check", help="Only compare the state with the log.")
    ] = False,
    dump: Annotated[
        Path | None, typer.Option(help="Only write the rebuilt states to this JSONL file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the tracker's state again from the event log, while no tracker runs.

    Writes the changelog of table `histories` and deletes the local copy, which trackers recover
    from it. If it is interrupted, run it again before `palate up`. Vectors are made again by
    `palate rebuild-index`. With --check, exit code 1 if a state differs.

    Example: palate rebuild --check
    """
    from streams.event_log import SegmentLog

    settings = load_settings()
    log = SegmentLog.of(settings)
    if not log.partitions("interactions"):
        raise not_found(f"no interactions in the event log {settings.log_dir}")
    if dump is not None:
        result: dict[str, Any] = {"users": _dump(log, settings, dump), "file": str(dump)}
    elif check:
        result = run(_compare(log, settings))
    else:
        result = run(_write(log, settings))
    if as_json:
        print_json(result)
    else:
        _print(result)
    if result.get("differences"):
        raise typer.Exit(1)


def _rebuilt(log: SegmentLog, settings: Settings) -> Iterator[RebuiltPartition]:
    from streams.rebuild import rebuild_partition

    for partition in range(settings.kafka.partitions):
        yield rebuild_partition(log, settings, partition)


def _dump(log: SegmentLog, settings: Settings, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for rebuilt in _rebuilt(log, settings):
            count += _dump_partition(rebuilt, file)
    return count


def _dump_partition(rebuilt: RebuiltPartition, file: TextIO) -> int:
    for user in rebuilt.users.values():
        line = {
            "partition": rebuilt.partition,
            "user_id": user.user_id,
            "applied_offset": user.head.applied,
            "edits_offset": user.head.edits,
            "requests": user.head.requests,
            "profile_id": user.profile and user.profile.profile_id,
            "history": [_entry(entry) for entry in user.history],
        }
        file.write(orjson.dumps(line).decode() + "\n")
    return len(rebuilt.users)


def _entry(entry: Any) -> dict[str, Any]:
    names = ("event_id", "item_id", "type", "timestamp", "offset", "rating", "quantity")
    return {name: getattr(entry, name) for name in names}


async def _compare(log: SegmentLog, settings: Settings) -> dict[str, Any]:
    from streams.changelog import read_changelog
    from streams.rebuild import compare
    from streams.tracker.state import load

    users, differences = 0, []
    for rebuilt in _rebuilt(log, settings):
        records = await read_changelog(settings, rebuilt.partition, settings.kafka.answer_within_s)
        for user in rebuilt.users.values():
            state = load(user.user_id, records.get, settings.windows.history_cap)
            users += 1
            if detail := compare(user, state):
                place = {"partition": rebuilt.partition, "user_id": user.user_id}
                differences.append(place | {"detail": detail})
    return {"users": users, "differences": differences}


async def _write(log: SegmentLog, settings: Settings) -> dict[str, Any]:
    from streams import changelog
    from streams.kafka.topics import ensure_changelog

    admin = await changelog.admin_client(settings, settings.kafka.answer_within_s)
    try:
        await changelog.refuse_if_running(admin, settings)
        await changelog.refuse_if_behind(admin, settings, log)
    finally:
        await admin.close()
    await ensure_changelog(settings)
    counts = {"users": 0, "written": 0, "deleted": 0}
    # 1. forget the local copies  2. the changelog says what the log says, committed
    changelog.reset_local_state(settings)
    for rebuilt in _rebuilt(log, settings):
        written, deleted = await changelog.write_state(settings, rebuilt)
        counts["users"] += len(rebuilt.users)
        counts["written"] += written
        counts["deleted"] += deleted
    return counts


def _print(result: dict[str, Any]) -> None:
    from rich.markup import escape

    console = terminal()
    for found in result.get("differences", [])[:SHOWN_DIFFERENCES]:
        where = f"partition {found['partition']} user {escape(found['user_id'])}"
        console.print(f"[red]differs[/] {where}: {escape(found['detail'])}")
    if "differences" in result:
        count = len(result["differences"])
        console.print(f"{result['users']} users compared, [bold]{count}[/] differ")
    elif "file" in result:
        console.print(f"{result['users']} users written to {escape(result['file'])}")
    else:
        console.print(
            f"{result['users']} users rebuilt: {result['written']} records written, "
            f"{result['deleted']} deleted; `palate up` recovers from them"
        )
