"""The acts of the demo, in order. Everything shown is read from the event log or from metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule

from deploy.commands.up import live_parts
from deploy.console import run
from deploy.demo.plan import CALLS_PER_MINUTE, DemoPlan
from deploy.demo.report import machine
from deploy.demo.sample import DemoSample
from deploy.demo.traffic import (
    action,
    bad_messages,
    choose_theme,
    event_id,
    send,
    send_bad,
    shopping_trip,
)
from deploy.demo.waiting import (
    Pace,
    Patience,
    StackProgress,
    backlog,
    counters_of,
    samples_of,
    settled,
    wait_for,
)
from deploy.log_reader import LogReader
from deploy.observe import KafkaState, kafka_state, role_states, total
from deploy.rendering import day, history_view, profile_view, recommendation_view
from deploy.stack import Stack
from models.errors import PalateError, StackError
from models.schemas import Profile, Recommendation
from streams.importers.survey import Ready
from streams.windows import History
from trainer.data.held_out import held_out

CANDIDATES: Final = """
WITH newest AS (
    SELECT user_id, max(applied_offset) AS described FROM profiles WHERE status = 'ok' GROUP BY 1
), asked AS (
    SELECT user_id, max(applied_offset) AS asked FROM requests WHERE status = 'ok' GROUP BY 1
)
SELECT user_id, coalesce(any_value(asked) > any_value(described), FALSE) AS waits
FROM interactions JOIN newest USING (user_id) LEFT JOIN asked USING (user_id)
GROUP BY 1 ORDER BY count(*) FILTER (timestamp >= $live_since) DESC, user_id
"""
SHOWN: Final = 3  # customers
THEMES: Final = ("GARDEN", "LUNCH", "SEWING", "BABY", "CAKE", "CANDLE", "CHRISTMAS", "TEA")
TRIP_ITEMS: Final = 10
DAY_MS: Final = 86_400_000
TOLD_EVERY_S: Final = 20.0
BUDGET_S: Final = 75.0  # after the stream has ended, for profiles that the budget puts off


class Demo:
    """One run. `seen` gathers what only the running demo knows, for the report."""

    def __init__(self, plan: DemoPlan, sample: DemoSample, console: Console) -> None:
        self.plan, self.sample, self.console = plan, sample, console
        self.settings = plan.settings
        self.stack = Stack(plan.settings)
        self.seen: dict[str, Any] = {"machine": machine(), "customers": sample.customers()}
        self._began = time.monotonic()
        self._sent = 0  # interactions
        self._told = self._began  # when a log was last told how far the roles are

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
        first, last = day(self.sample.begins)[:10], day(self.sample.live_since)[:10]
        self._title(f"1  Kafka takes the catalogue, and the purchases from {first} to {last}")
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
                lambda: self._moved(progress, applied, lists) or None,
                self._patience(),
                "the tracker to apply the past purchases",
            )

    def _moved(self, progress: Progress, applied: Any, lists: Any) -> bool:
        now, made = self._backlog(), self._lists_made()
        progress.update(applied, completed=now.applied)
        progress.update(lists, completed=made)
        return now.applied >= self._sent and now.waiting == 0 and made > 0

    def stream_live(self) -> None:
        """The last months, as they happened, some ten thousand times faster.

        No faster than the roles follow: on a busy machine event time waits for the profiles.
        """
        since, until = day(self.sample.live_since)[:10], day(self.sample.ends)[:10]
        self._title(f"4  {since} to {until}, live: up to {self.plan.rate:.0f} events per second")
        self.seen["live_from_ms"] = time.time_ns() // 1_000_000
        began, pace = time.monotonic(), Pace(self._patience())
        with self._progress() as progress:
            lists = progress.add_task("lists", total=None)
            profiles = progress.add_task("profiles written", total=None)

            def behind() -> bool:
                now = self._backlog()
                progress.update(profiles, completed=now.written)
                progress.update(lists, completed=self._lists_made())
                return pace.holds_back(now, self._sent)

            live = self.sample.live
            self._send(progress, "interactions", "purchases", live, self.plan.rate, behind)
        self._say_pace(len(live) / (time.monotonic() - began), pace)

    def _say_pace(self, rate: float, pace: Pace) -> None:
        self.seen["events_per_second"] = round(rate, 1)
        self.seen["held_back_s"] = round(pace.held_s, 1)
        if pace.held_s >= 1:
            waited = f"the stream waited {pace.held_s:.0f} s for the roles"
            self.console.print(f"   {rate:.0f} events per second: {waited}")
        if pace.gave_up:
            self.console.print(f"   [yellow]then it went on without them: {pace.gave_up}[/]")

    def await_profiles(self) -> None:
        """The language model works off what was asked of it, and for a while what is due."""
        self._title(f"5  Profiles are written (budget: {CALLS_PER_MINUTE:.0f} a minute)")
        budget_ends, patience = time.monotonic() + BUDGET_S, self._patience()
        with self._progress() as progress:
            task = progress.add_task("profiles written", total=None)

            def look() -> bool:
                now = self._backlog()
                progress.update(task, completed=now.written, total=now.requests - now.dropped)
                if time.monotonic() > budget_ends and not now.holds_back(self._sent):
                    return True
                return now.is_done(self._sent)

            settled(look, patience)
        self._say_left(backlog(self.stack), patience)

    def _say_left(self, left: StackProgress, patience: Patience) -> None:
        self.seen["profiles_left"] = {"due": left.due, "unanswered": left.unanswered}
        if left.holds_back(self._sent):
            self.console.print(f"   [yellow]not waited for any longer: {patience.over()}[/]")
        if left.due or left.unanswered:
            self.console.print(
                f"   {left.due} customers are still to have a newer profile asked for, "
                f"{left.unanswered} requests are unanswered"
            )

    def choose_customers(self) -> list[str]:
        """Those with a profile who bought most in the live part. Raises if there is none.

        First those who wait for no newer one; of these first those of whom the starter release
        has learned nothing: on them its profiles are what they will be on your users.
        """
        self._settle_log()
        reader = LogReader(self.settings)
        rows = reader.connection.execute(
            CANDIDATES, {"live_since": self.sample.live_since}
        ).fetchall()
        if not rows:
            raise PalateError(f"no profile was written; see {self.stack.logs / 'profiler.log'}")
        rows.sort(key=lambda row: (row[1], not held_out(row[0])))
        return [user for user, _ in rows[:SHOWN]]

    def show(self, user: str) -> None:
        """History in short, the profile with its evidence, the list with reasons."""
        reader = LogReader(self.settings)
        history = reader.history(user)
        _, windows = reader.windows(user, history)
        self._title(f"6  Customer {user}: {len(history)} interactions, the last of them")
        texts = reader.texts(entry.item_id for entry in history)
        self.console.print(history_view(history, windows, texts, 5))
        profile = reader.profiles(user)[-1]
        self.console.print(profile_view(profile, reader.evidence(profile)))
        self.console.print(_since(profile, history), "", highlight=False)
        self._show_list(reader, reader.recommendation(user))

    def live_trip(self, user: str) -> None:
        """The customer goes shopping; 'right now' and the list move."""
        reader = LogReader(self.settings)
        before, old = reader.recommendation(user), reader.profiles(user)[-1]
        theme, items = self._theme(reader, user)
        trip = shopping_trip(user, items, self.sample.ends + 3_600_000)
        self._title(f"7  Customer {user} goes shopping: {theme.lower()}")
        texts = reader.texts(items)
        for message in trip:
            self.console.print(f"   {action(message, texts)}", highlight=False)
        run(send(self.settings, "interactions", trip, self._count_sent))
        patience = self._patience()
        renewed = self._await_answers(user, [event_id(message) for message in trip], patience)
        self._show_changes(before, old, trip, None if renewed else patience.over())

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

    def _await_answers(self, user: str, trip: list[str], patience: Patience) -> bool:
        """Wait for a list that knows the trip, then for a profile; whether there is a profile."""

        def offsets() -> list[int] | None:
            history = LogReader(self.settings).history(user)
            found = [entry.offset for entry in history if entry.event_id in trip]
            return found if len(found) == len(trip) else None

        def list_after() -> bool:
            found = LogReader(self.settings).recommendation(user)
            return found is not None and found.applied_offset >= max(places)

        def profile_after() -> bool:
            return LogReader(self.settings).profiles(user)[-1].applied_offset >= min(places)

        with self.console.status("waiting for the list and the profile …"):
            places = wait_for(offsets, patience, "the trip to be recorded")
            wait_for(lambda: list_after() or None, patience, "a new list")
            renewed = settled(profile_after, patience)
            self._settle_log()
        return renewed

    def _show_changes(
        self, before: Recommendation | None, old: Profile, trip: list[Ready], gave_up: str | None
    ) -> None:
        """`gave_up`: why the profile was not waited for any longer; None if it is renewed."""
        reader = LogReader(self.settings)
        after, new = reader.recommendation(old.user_id), reader.profiles(old.user_id)[-1]
        assert after is not None
        self.console.print(f"[bold]Right now, before:[/] {_now(old)}", highlight=False)
        if gave_up is None:
            ids = {event_id(message) for message in trip}
            history = reader.history(old.user_id)
            known = sum(e.event_id in ids and e.offset <= new.applied_offset for e in history)
            name = f"Right now, after {known} of these {len(trip)} events:"
            self.console.print(f"[bold]{name}[/] {_now(new)}", highlight=False)
        else:
            self.console.print(f"[yellow]The profile was not renewed: {gave_up}.[/]")
        kept = {item.item_id for item in before.items} if before else set()
        fresh = [item.item_id for item in after.items if item.item_id not in kept]
        self.console.print(f"{len(fresh)} of {len(after.items)} recommendations are new:")
        self._show_list(reader, after)
        self.seen["trip"] = {
            **{"user": after.user_id, "new_items": len(fresh), "of": len(after.items)},
            "profile_renewed": gave_up is None,
        }

    def send_bad(self, user: str) -> None:
        """Broken messages, on purpose: each becomes a dead letter, nothing stops."""
        bad = bad_messages(user, self.sample.live[0].key.decode(), self.sample.ends)
        self._title(f"8  {len(bad)} broken messages, on purpose")
        self.console.print("   " + ", ".join(b.what for b in bad))
        run(send_bad(self.settings, bad))
        self.seen["bad_sent"] = len(bad)
        settled(lambda: self._refused() >= len(bad), self._patience())
        self.seen["dead_letters"] = self._refused()
        self.console.print(f"   {self.seen['dead_letters']} dead letters (palate dead-letters)")

    def _refused(self) -> int:
        state = self._kafka()
        return state.dead_letters if state else 0

    def finish(self) -> None:
        """Wait until everything is in the log; note what the roles used."""
        self._settle_log()
        self.seen["applied"] = backlog(self.stack).applied
        self.seen["memory_mib"] = {
            state.name: round(state.memory_mib) for state in role_states(self.stack)
        }
        self.seen["seconds"] = round(time.monotonic() - self._began, 1)

    def _settle_log(self) -> None:
        """Wait until the recorder has all that Kafka has; say it if that is in vain."""
        recorder, patience = f"{self.settings.kafka.prefix}palate-recorder", self._patience()

        def whole() -> bool:
            state = self._kafka()
            return state is not None and all(
                lag.records == 0 for lag in state.lags if lag.group == recorder
            )

        self.seen["log_is_whole"] = settled(whole, patience)
        if not self.seen["log_is_whole"]:
            self.console.print(
                f"[yellow]The event log lacks records that Kafka has ({patience.over()}); what "
                "follows is told from what it holds.[/]"
            )

    def _kafka(self) -> KafkaState | None:
        """None if a busy broker did not answer in time."""
        try:
            return run(kafka_state(self.settings))
        except StackError:
            return None

    def _backlog(self) -> StackProgress:
        """How far the roles are; a log is told now and then, where no progress bar moves."""
        now = backlog(self.stack)
        if not self.console.is_terminal and time.monotonic() - self._told > TOLD_EVERY_S:
            self._told = time.monotonic()
            self.console.print(f"   {now.in_words(self._sent)}")
        return now

    def _patience(self) -> Patience:
        return Patience(lambda: counters_of(self.stack))

    def _lists_made(self) -> int:
        return int(total(samples_of(self.stack, "tracker-0"), "palate_recommendations_total"))

    def _count_sent(self, number: int) -> None:
        self._sent += number

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
        behind: Callable[[], bool] = lambda: False,
    ) -> None:
        task = progress.add_task(name, total=len(messages))

        def moved(number: int) -> None:
            progress.advance(task, number)
            if topic == "interactions":
                self._count_sent(number)

        run(send(self.settings, topic, messages, moved, rate, behind))

    @contextmanager
    def _progress(self) -> Iterator[Progress]:
        columns = (TextColumn("   {task.description:<18}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self.console) as progress:
            yield progress

    def _title(self, text: str) -> None:
        self.console.print(Rule(f"[bold]{text}[/]", align="left", style="cyan"))


def _since(profile: Profile, history: History) -> str:
    """How old a profile is, in the customer's own events and in event time."""
    later = [entry for entry in history if entry.offset > profile.applied_offset]
    if not later:
        return "It knows all interactions so far."
    days = (max(entry.timestamp for entry in later) - profile.as_of) / DAY_MS
    return f"{len(later)} interactions have come since, over {max(0.0, days):.0f} days."


def _now(profile: Profile) -> str:
    return escape("; ".join(sentence.text for sentence in profile.sections.now)) or "nothing"
