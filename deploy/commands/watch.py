"""`palate watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.console import JsonOption, run, terminal
from models.settings import Settings, load_settings

if TYPE_CHECKING:
    from streams.item_texts import ItemTexts

TOPICS = ("interactions", "profiles", "recommendations")
COLOURS = {"event": "cyan", "profile": "magenta", "list": "green", "invalid": "red"}
FIRST_ITEMS = 3  # of a list, in one line


def watch(
    user: Annotated[str | None, typer.Option(help="Only this user.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many lines.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show events, profiles and recommendations as they pass through Kafka; Ctrl-C ends it.

    Example: palate watch --user 13085
    """
    run(_watch(load_settings(), user, count, as_json))


async def _watch(settings: Settings, user: str | None, count: int | None, as_json: bool) -> None:
    from deploy.topic_tail import from_now
    from streams.item_texts import followed_texts

    console, shown = terminal(), 0
    async with from_now(settings, TOPICS) as reader, followed_texts(settings) as texts:
        if not as_json:
            console.print(f"[dim]watching {settings.kafka.bootstrap}; Ctrl-C ends[/]")
        async for record in reader:
            line = _line(record, settings, texts)
            if line is None or user not in (None, line["user_id"]):
                continue
            _print(line, as_json)
            shown += 1
            if shown == count:
                return


def _line(record: Any, settings: Settings, texts: ItemTexts) -> dict[str, Any] | None:
    """What to show of a record; None for a tombstone."""
    from models.schemas import TOPIC_SCHEMAS, Interaction, Profile, to_rfc3339
    from streams.codec import Rejected, decode

    if record.value is None:
        return None

    def text_of(item_id: str) -> str:
        return texts.text_of(item_id) or item_id

    topic = record.topic.removeprefix(settings.kafka.prefix)
    message: Any = decode(record.value, TOPIC_SCHEMAS[topic])
    line = {"at": to_rfc3339(record.timestamp), "topic": topic}
    if isinstance(message, Rejected):
        key = (record.key or b"").decode(errors="replace")
        return {**line, "kind": "invalid", "user_id": key, "text": message.detail}
    if isinstance(message, Interaction):
        text = f"{message.type.value} {text_of(message.item_id)}"
        return {**line, "kind": "event", "user_id": message.user_id, "text": text}
    if isinstance(message, Profile):
        text = f"version {message.version} ({message.model}): {message.text}"
        return {**line, "kind": "profile", "user_id": message.user_id, "text": text}
    first = "  ".join(
        f"{i.rank}. {text_of(i.item_id)} ({i.reason.text})" for i in message.items[:FIRST_ITEMS]
    )
    text = f"after {message.trigger}: {first} …"
    return {**line, "kind": "list", "user_id": message.user_id, "text": text}


def _print(line: dict[str, Any], as_json: bool) -> None:
    import sys

    import orjson
    from rich.markup import escape

    if as_json:
        sys.stdout.write(orjson.dumps(line).decode() + "\n")
        sys.stdout.flush()
        return
    colour = COLOURS[line["kind"]]
    terminal().print(
        f"[dim]{line['at'][11:19]}[/] [{colour}]{line['kind']:<8}[/]"
        f"[bold]{escape(line['user_id'])}[/] {escape(' '.join(line['text'].split()))}"
    )
