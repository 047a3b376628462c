"""`palate demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.console import JsonOption, print_json, terminal
from deploy.interruption import stopped_by_signals

if TYPE_CHECKING:
    from rich.table import Table


def demo(
    rate: Annotated[float, typer.Option(min=1, help="Events per second of the live part.")] = 200.0,
    events: Annotated[
        int | None, typer.Option(min=1_000, help="Only the last so many events of the sample.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Real purchases through the whole of Palate: histories, profiles, recommendations, figures.

    Runs beside a stack that is already up (ports and folder of its own: var/demo, made anew each
    time), and stops what it started. Ends with 1 if parity does not hold or a message is missing.

    Example: palate demo
    """
    from deploy.demo.plan import FOLDER, make_plan, prepare
    from deploy.demo.report import make_report, save
    from deploy.demo.sample import load_sample
    from deploy.demo.scenes import Demo

    console = terminal(quiet=as_json)
    stopped_by_signals()
    sample = load_sample(events)
    plan = make_plan(sample, rate)
    prepare(plan.settings, console)
    play = Demo(plan, sample, console)
    try:
        play.play()
    finally:
        console.print("stopping everything …")
        play.stack.stop(lambda _part, _what: None)
    report = make_report(plan.settings, sample, play.seen)
    path = save(report, FOLDER)
    if as_json:
        print_json(report)
    else:
        console.print(_summary(report), f"written to {path}")
    if not holds(report):
        raise typer.Exit(1)


def holds(report: dict[str, Any]) -> bool:
    """What must be true of every run, whatever the machine's speed."""
    return (
        report["parity"]["mismatches"] == 0
        and report["parity"]["requests"] > 0
        and report["dead_letters"] == report["bad_sent"]
    )


def _summary(report: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="What happened", title_justify="left", show_header=False)
    for name, text in _lines(report):
        table.add_row(name, text)
    return table


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    events, profiles = report["events"], report["profiles"]
    lists, later = report["recommendations"], report["next_purchases"]
    shares = profiles["share_of_shown_sentences"]
    parity, visits = report["parity"], later["visits"]
    return [
        ("events", f"{sum(events['recorded'].values()):,} in, {events['applied']:,} applied"),
        ("dead letters", f"{report['dead_letters']} of {report['bad_sent']} sent on purpose"),
        (
            "profiles",
            f"{profiles['written']} for {profiles['users']} customers, {profiles['by_the_model']} "
            "written by the language model; sentences: "
            + ", ".join(f"{share:.0%} {name}" for name, share in shares.items()),
        ),
        ("recommendations", f"{lists['made']:,} for {lists['users']} customers"),
        (
            "next purchases",
            f"{visits['hits']} of {visits['of']} lists held something bought next "
            f"({visits['rate']:.0%}; most popular: {later['popularity_visits']['rate']:.0%}); "
            f"{later['interactions']['rate']:.1%} of the purchases "
            f"(most popular: {later['popularity']['rate']:.1%})",
        ),
        ("event → list", _milliseconds(lists["event_to_recommendation_ms"])),
        ("request → profile", _milliseconds(profiles["request_to_profile_ms"])),
        ("profile age", f"p50 {lists['profile_age_days']['p50']} days of event time when used"),
        (
            "parity",
            f"{parity['mismatches']} mismatches over {parity['requests']} requests and "
            f"{parity['profiles']} profiles",
        ),
        ("time", f"{report['seconds']:.0f} s"),
    ]


def _milliseconds(quantiles: dict[str, float | None]) -> str:
    return ", ".join(
        f"{name} {value:,.0f} ms" for name, value in quantiles.items() if value is not None
    )
