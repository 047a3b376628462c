"""`palate status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from deploy.console import JsonOption, print_json, run, terminal
from models.errors import StackError
from models.settings import load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from deploy.observe import KafkaState, MetricLine, RoleState


def status(as_json: JsonOption = False) -> None:
    """Show the roles, how far behind they are, staleness, budget, dead letters and releases.

    Ends with 0 if every role serves, else with 1.

    Example: palate status --json
    """
    from deploy.observe import kafka_state, role_states
    from deploy.stack import Stack

    settings = load_settings()
    states = role_states(Stack(settings))
    kafka, problem = None, ""
    try:
        kafka = run(kafka_state(settings))
    except (StackError, OSError, _kafka_error()) as error:
        problem = str(error)
    if as_json:
        print_json(_document(states, kafka, problem))
    else:
        _show(states, kafka, problem)
    if problem or any(state.not_ready for state in states):
        raise typer.Exit(1)


def _kafka_error() -> type[Exception]:
    from aiokafka.errors import KafkaError

    error: type[Exception] = KafkaError
    return error


def _document(states: list[RoleState], kafka: KafkaState | None, problem: str) -> dict[str, Any]:
    return {
        "roles": [
            {
                **{"name": s.name, "pid": s.pid, "ready": s.not_ready is None},
                **{
                    "why_not": s.not_ready,
                    "up_s": round(s.up_s),
                    "memory_mib": round(s.memory_mib),
                },
            }
            for s in states
        ],
        "freshness": _freshness(states),
        "kafka": {"problem": problem}
        if kafka is None
        else {
            "lags": [{**lag._asdict(), "lag": lag.records} for lag in kafka.lags],
            "dead_letters": kafka.dead_letters,
            "serving": kafka.serving,
            "cannot_serve": cannot_serve(states),
            "releases": [r.model_dump(mode="json", exclude_none=True) for r in kafka.releases],
        },
    }


def _freshness(states: list[RoleState]) -> dict[str, Any]:
    """Staleness, ages, the budget and what is owed, from the roles' metrics."""
    from deploy.observe import by_label, mean, total

    samples: list[MetricLine] = [sample for state in states for sample in state.samples]
    return {
        "staleness_served_mean": mean(samples, "palate_staleness_served"),
        "profile_age_s_mean": mean(samples, "palate_profile_age_seconds"),
        "event_to_recommendation_s_mean": mean(samples, "palate_event_to_recommendation_seconds"),
        "budget_calls_available": total(samples, "palate_budget_calls"),
        "profiles_due": total(samples, "palate_profiles_due"),
        "recommendations_owed": total(samples, "palate_waiting_users"),
        "events": by_label(samples, "palate_events_total", "outcome"),
        "requests": by_label(samples, "palate_profile_requests_total", "rule"),
        "profiles": by_label(samples, "palate_profiles_total", "outcome"),
        "sentences": by_label(samples, "palate_sentences_total", "outcome"),
        "parity_mismatches": total(samples, "palate_parity_mismatches_total"),
    }


def _show(states: list[RoleState], kafka: KafkaState | None, problem: str) -> None:
    console = terminal()
    console.print(_roles(states))
    console.print(_lines(_freshness(states)))
    if kafka is None:
        console.print(f"[red]{problem}[/]", soft_wrap=True)
        return
    console.print(_lags(kafka))
    console.print(f"dead letters      {kafka.dead_letters}   (palate dead-letters)")
    steps = ", ".join(f"{r.release} {r.status}" for r in kafka.releases[-5:])
    console.print(f"serving release   {kafka.serving or 'none yet'}   ({steps or 'no steps'})")
    without = cannot_serve(states)
    if without:
        console.print(
            f"[red]{kafka.serving} cannot be served by {', '.join(without)}: the one before serves "
            "on, if it can be (palate releases list)[/]",
            soft_wrap=True,
        )


def cannot_serve(states: list[RoleState]) -> list[str]:
    """Names of the roles that cannot serve the release in force."""
    from deploy.observe import total

    return [s.name for s in states if total(s.samples, "palate_release_unavailable")]


def _roles(states: list[RoleState]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("role", "pid", "state", "up", "memory", show_edge=False)
    for state in states:
        colour = "green" if state.not_ready is None else "red"
        table.add_row(
            *(
                state.name,
                str(state.pid or ""),
                f"[{colour}]{escape(state.not_ready or 'ready')}[/]",
            ),
            *(f"{state.up_s / 60:.0f} min", f"{state.memory_mib:.0f} MiB"),
        )
    return table


def _lines(freshness: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in freshness.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {number:,.0f}" for key, number in value.items())
        else:
            shown = "" if value is None else f"{value:,.3g}"
        table.add_row(name.replace("_", " "), shown or "nothing yet")
    return table


def _lags(kafka: KafkaState) -> Table:
    from rich.table import Table

    table = Table("group", "topic", "done up to", "end", "lag", show_edge=False)
    for lag in kafka.lags:
        table.add_row(
            lag.group, lag.topic, f"{lag.committed:,}", f"{lag.end:,}", f"{lag.records:,}"
        )
    return table
