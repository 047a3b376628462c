"""What a release's manifest says of the data behind it."""

from __future__ import annotations

from dataclasses import replace

from models.ports import InForce, Release
from models.release.starter import read_starter
from models.settings import Settings
from tests.trainer.corpora import DAY, START, bought, corpus_of, items
from trainer.data.corpus import Corpus
from trainer.data.replay_sampling import Seen, seen_by
from trainer.pipeline.record import RunRecord
from trainer.pipeline.release_writer import release_of

UNTIL = {"interactions": {0: 40}, "items": {0: 2}}


def corpus(settings: Settings) -> Corpus:
    """Ten days of purchases, the last two held out."""
    events = [bought(f"u{n % 3}", ("tea", "cup")[n % 2], n) for n in range(10)]
    return corpus_of(events, items("cup", "tea"), settings)


def released(settings: Settings, begun_with: Seen) -> Release:
    run = RunRecord("r-2", InForce("r-1"), UNTIL, "", START, "r-2")
    return release_of(
        run,
        corpus(settings),
        settings,
        adapter=None,
        embedder="e",
        canary=(),
        metrics={},
        begun_with=begun_with,
    )


def test_a_release_has_learned_from_what_its_own_run_read(make_settings) -> None:
    made = released(make_settings(), Seen(START, {0: 7}))

    assert seen_by(made) == Seen(START + 8 * DAY, {0: 40})


def test_borders_that_an_import_moved_back_do_not_make_forget_what_the_parent_learned(
    make_settings,
) -> None:
    parents = START + 1_000 * DAY
    made = released(make_settings(), Seen(parents, {0: 7}))

    assert seen_by(made) == Seen(parents, {0: 40})


def test_the_starter_learned_from_other_data_whose_times_are_not_compared() -> None:
    release = read_starter().release

    assert release.data_range["source"] == "data/sample"
    assert seen_by(release) == Seen()
    assert seen_by(replace(release, data_range={"source": "x", "train_end": 5})) == Seen()
