"""The acts of the demo, in order. Everything shown is read from the event log or from metrics."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson
import psutil
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule

from deploy.commands.up import live_parts
from deploy.console import run
from deploy.demo.plan import CALLS_PER_MINUTE, Plan
from deploy.demo.sample import Sample
from deploy.demo.traffic import bad_messages, choose_theme, send, send_bad, shopping_trip
from deploy.demo.waiting import first, samples_of, settled, wait_for
from deploy.log_reader import LogReader
from deploy.observe import KafkaState, kafka_state, role_states, total
from deploy.rendering import day, history_view, profile_view, recommendation_view
from deploy.stack import Stack
from models.errors import PalateError
from models.schemas import Profile, Recommendation
from streams.importers.survey import Ready
from trainer.held_out import held_out

SHOWN: Final = 3  # customers
THEMES: Final = ("GARDEN", "LUNCH", "SEWING", "BABY", "CAKE", "CANDLE", "CHRISTMAS", "TEA")
TRIP_ITEMS: Final = 10
CATCH_UP_S: Final = 240.0
PROFILES_S: Final = 75.0  # after the stream has ended, at most
ANSWER_S: Final = 120.0


class Demo:
    """One run. `seen` gathers what only the running demo knows, for the report."""

    def __init__(self, plan: Plan, sample: Sample, console: Console) -> None:
        self.plan, self.sample, self.console = plan, sample, console
        self.settings = plan.settings
        self.stack = Stack(plan.settings)
        self.seen: dict[str, Any] = {"machine": _machine(), "customers": sample.customers()}
        self._began = time.monotonic()

    def play(self) -> None:
        """All acts; leaves the stack running."""
        self.load_past()
        self.start_roles()
        self.catch_up()
        self.stream_live()
        self.await_profiles()
        chosen = self.choose_customers()
        for user in chosen:
            self.show(user)
        self.live_trip(chosen[0])
        self.send_bad(chosen[0])
        self.finish()

    def load_past(self) -> None:
        """Kafka starts; the catalogue and the past purchases go into it."""
        self._title("1  Kafka starts, and takes the catalogue and two years of purchases")
        with live_parts(self.console) as say:
            self.stack.start_broker(say)
        with self._progress() as progress:
            self._send(progress, "items", "catalogue", self.sample.items)
            self._send(progress, "interactions", "past purchases", self.sample.past)

    def start_roles(self) -> None:
        """Tracker, profiler, recorder and indexer start and get ready."""
        self._title("2  Tracker, profiler, recorder and indexer start")
        with live_parts(self.console) as say:
            self.stack.start(say)

    def catch_up(self) -> None:
        """The tracker applies the past; every customer gets a first list."""
        self._title("3  The tracker builds every customer's history")
        past = len(self.sample.past)
        with self._progress() as progress:
            applied = progress.add_task("events applied", total=past)
            lists = progress.add_task("first lists", total=len({m.key for m in self.sample.past}))
            wait_for(
                lambda: self._moved(progress, applied, lists, past) or None,
                CATCH_UP_S,
                "the tracker to apply the past purchases",
            )

    def _moved(self, progress: Progress, applied: Any, lists: Any, past: int) -> bool:
        samples = samples_of(self.stack, "tracker-0")
        done = self._applied(samples)
        made = total(samples, "palate_recommendations_total")
        progress.update(applied, completed=done)
        progress.update(lists, completed=made)
        return done >= past and total(samples, "palate_waiting_users") == 0 and made > 0

    def stream_live(self) -> None:
        """The last months, as they happened, some ten thousand times faster."""
        since, until = day(self.sample.live_since)[:10], day(self.sample.ends)[:10]
        self._title(f"4  {since} to {until}, live: {self.plan.rate:.0f} events per second")
        self.seen["live_from_ms"] = time.time_ns() // 1_000_000
        with self._progress() as progress:
            lists = progress.add_task("lists", total=None)
            profiles = progress.add_task("profiles written", total=None)

            def look() -> None:
                progress.update(lists, completed=self._count("tracker-0", "recommendations"))
                progress.update(profiles, completed=self._count("profiler", "profiles"))

            self._send(
                progress, "interactions", "purchases", self.sample.live, self.plan.rate, look
            )

    def await_profiles(self) -> None:
        """The language model works off what is due, within its budget."""
        self._title(f"5  The language model writes profiles (at most {CALLS_PER_MINUTE:.0f}/min)")
        with self._progress() as progress:
            task = progress.add_task("profiles written", total=None)

            def look() -> bool:
                asked = self._count("tracker-0", "profile_requests")
                written = self._count("profiler", "profiles")
                dropped = self._count("profiler", "requests_dropped")
                progress.update(task, completed=written, total=asked - dropped)
                due = total(samples_of(self.stack, "tracker-0"), "palate_profiles_due")
                return written > 0 and due == 0 and written + dropped >= asked

            self.seen["all_due_profiles_written"] = settled(look, PROFILES_S)

    def choose_customers(self) -> list[str]:
        """Those with a profile who bought most in the live part. Raises if there is none.

        First those of whom the starter release has learned nothing: on them its profiles are
        what they will be on your users.
        """
        self._settle_log()
        reader = LogReader(self.settings)
        rows = reader.connection.execute(
            "SELECT user_id, count(*) FILTER (timestamp >= ?) AS recent FROM interactions "
            "WHERE user_id IN (SELECT user_id FROM profiles WHERE status = 'ok') "
            "GROUP BY 1 ORDER BY recent DESC, user_id",
            [self.sample.live_since],
        ).fetchall()
        if not rows:
            raise PalateError(f"no profile was written; see {self.stack.logs / 'profiler.log'}")
        return sorted((user for user, _ in rows), key=lambda user: not held_out(user))[:SHOWN]

    def show(self, user: str) -> None:
        """History in short, the profile with its evidence, the list with reasons."""
        reader = LogReader(self.settings)
        history = reader.history(user)
        _, windows = reader.windows(user, history)
        self._title(f"6  Customer {user}: {len(history)} interactions, the last of them")
        texts = reader.texts(entry.item_id for entry in history)
        self.console.print(history_view(history, windows, texts, 5))
        profile = reader.profiles(user)[-1]
        self.console.print(profile_view(profile, reader.evidence(profile)), "")
        self._show_list(reader, reader.recommendation(user))

    def live_trip(self, user: str) -> None:
        """The customer goes shopping; 'right now' and the list move."""
        reader = LogReader(self.settings)
        before, old = reader.recommendation(user), reader.profiles(user)[-1]
        known = max(entry.offset for entry in reader.history(user))
        theme, items = self._theme(reader, user)
        trip = shopping_trip(user, items, self.sample.ends + 3_600_000)
        self._title(f"7  Customer {user} goes shopping: {theme.lower()}")
        texts = reader.texts(items)
        for message in trip:
            self.console.print(f"   {_action(message, texts)}", highlight=False)
        run(send(self.settings, "interactions", trip, lambda _: None))
        list_after, profile_after = self._answers(
            user, known, orjson.loads(trip[-1].value)["event_id"]
        )
        self._show_changes(before, list_after, old, profile_after)

    def _theme(self, reader: LogReader, user: str) -> tuple[str, list[str]]:
        sold = dict(
            reader.connection.execute(
                "SELECT item_id, count(*) FROM interactions WHERE type = 'purchase' GROUP BY 1"
            ).fetchall()
        )
        titles = dict(
            reader.connection.execute(
                "SELECT item_id, title FROM items WHERE status = 'ok'"
            ).fetchall()
        )
        known = {entry.item_id for entry in reader.history(user)}
        return choose_theme(titles, sold, known, THEMES, TRIP_ITEMS)

    def _answers(
        self, user: str, known: int, last_event: str
    ) -> tuple[Recommendation, Profile | None]:
        """The list that knows the trip, and the profile that describes it, if it came in time.

        `known`: offset of the customer's last interaction before the trip.
        """

        def trip_offset() -> int | None:
            newest = LogReader(self.settings).history(user)[-1]
            return newest.offset if newest.event_id == last_event else None

        def list_after() -> Recommendation | None:
            found = LogReader(self.settings).recommendation(user)
            return found if found and found.applied_offset >= offset else None

        def profile_after() -> Profile | None:
            found = LogReader(self.settings).profiles(user)[-1]
            return found if found.applied_offset > known else None

        with self.console.status("waiting for the list and the profile …"):
            offset = wait_for(trip_offset, ANSWER_S, "the trip to be recorded")
            wait_for(list_after, ANSWER_S, "a new list")
            profile = first(profile_after, ANSWER_S)
            self._settle_log()
        found = LogReader(self.settings).recommendation(user)
        assert found is not None
        return found, profile

    def _show_changes(
        self,
        before: Recommendation | None,
        after: Recommendation,
        old: Profile,
        new: Profile | None,
    ) -> None:
        reader = LogReader(self.settings)
        for name, profile in (("before", old), ("after", new)):
            self.console.print(f"[bold]Right now, {name}:[/] {_now(profile)}", highlight=False)
        kept = {item.item_id for item in before.items} if before else set()
        fresh = [item.item_id for item in after.items if item.item_id not in kept]
        self.console.print(f"{len(fresh)} of {len(after.items)} recommendations are new:")
        self._show_list(reader, after)
        self.seen["trip"] = {
            **{"user": after.user_id, "new_items": len(fresh), "of": len(after.items)},
            "profile_renewed": new is not None,
        }

    def send_bad(self, user: str) -> None:
        """Broken messages, on purpose: each becomes a dead letter, nothing stops."""
        bad = bad_messages(user, self.sample.live[0].key.decode(), self.sample.ends)
        self._title(f"8  {len(bad)} broken messages, on purpose")
        self.console.print("   " + ", ".join(b.what for b in bad))
        run(send_bad(self.settings, bad))
        self.seen["bad_sent"] = len(bad)
        settled(lambda: self._kafka().dead_letters >= len(bad), 30.0)
        self.seen["dead_letters"] = self._kafka().dead_letters
        self.console.print(f"   {self.seen['dead_letters']} dead letters (palate dead-letters)")

    def finish(self) -> None:
        """Wait until everything is in the log; note what the roles used."""
        self._settle_log()
        self.seen["applied"] = self._applied(samples_of(self.stack, "tracker-0"))
        self.seen["memory_mib"] = {
            state.name: round(state.memory_mib) for state in role_states(self.stack)
        }
        self.seen["seconds"] = round(time.monotonic() - self._began, 1)

    def _settle_log(self) -> None:
        """Wait until the recorder has all that Kafka has."""
        recorder = f"{self.settings.kafka.prefix}palate-recorder"
        settled(
            lambda: all(g.records == 0 for g in self._kafka().lags if g.group == recorder), 30.0
        )

    def _kafka(self) -> KafkaState:
        return run(kafka_state(self.settings))

    def _applied(self, samples: list[Any]) -> int:
        return int(total(samples, "palate_events_total", outcome="applied"))

    def _count(self, role: str, name: str) -> int:
        return int(total(samples_of(self.stack, role), f"palate_{name}_total"))

    def _show_list(self, reader: LogReader, found: Recommendation | None) -> None:
        if found is not None:
            texts = reader.texts(item.item_id for item in found.items)
            self.console.print(recommendation_view(found, texts))

    def _send(
        self,
        progress: Progress,
        topic: str,
        name: str,
        messages: list[Ready],
        rate: float = 0.0,
        look: Any = lambda: None,
    ) -> None:
        task = progress.add_task(name, total=len(messages))
        looked = time.monotonic()

        def moved(number: int) -> None:
            nonlocal looked
            progress.advance(task, number)
            if time.monotonic() - looked > 1.0:
                look()
                looked = time.monotonic()

        run(send(self.settings, topic, messages, moved, rate))

    @contextmanager
    def _progress(self) -> Iterator[Progress]:
        columns = (TextColumn("   {task.description:<18}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            yield progress

    def _title(self, text: str) -> None:
        self.console.print(Rule(f"[bold]{text}[/]", align="left", style="cyan"))


def _machine() -> dict[str, Any]:
    memory = psutil.virtual_memory().total / 2**30
    return {
        **{"cores": os.cpu_count(), "memory_gib": round(memory, 1)},
        **{"python": platform.python_version(), "system": platform.platform()},
    }


def _now(profile: Profile | None) -> str:
    if profile is None:
        return f"(no new profile within {ANSWER_S:.0f} s; this machine is slow or busy)"
    return escape(" ".join(sentence.text for sentence in profile.sections.now)) or "nothing"


def _action(message: Ready, texts: dict[str, str]) -> str:
    event = orjson.loads(message.value)
    return f"{event['type']:<9} {texts.get(event['item_id'], event['item_id'])}"
