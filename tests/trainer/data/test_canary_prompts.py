"""What stands in a manifest for good is of no user."""

from __future__ import annotations

from models.profile.evidence import LABELS
from models.schemas import Section
from models.settings import Settings
from tests.trainer.corpora import bought, corpus_of, items
from trainer.data.canary_prompts import ITEMS, PROMPTS, canary_prompts
from trainer.data.corpus import Corpus

NAMES = tuple(f"lamp-{n:02}" for n in range(40))


def corpus(settings: Settings, user: str = "ann", secret: str = "for my clinic visit") -> Corpus:
    events = [bought(user, NAMES[n], n, review=secret) for n in range(3)]
    return corpus_of(events, items(*NAMES), settings)


def named_in(prompt: str) -> set[str]:
    return {name for name in NAMES if name in prompt}


def test_they_are_made_of_a_few_items_of_the_catalogue_in_every_window(make_settings) -> None:
    prompts = canary_prompts(corpus(make_settings()), seed=0)

    assert len(set(prompts)) == PROMPTS
    for prompt in prompts:
        assert len(named_in(prompt)) == ITEMS
        for section in (Section.STABLE, Section.CURRENT, Section.NOW):
            assert f"{LABELS[section]}: lamp-" in prompt


def test_no_user_s_words_or_choices_are_in_them(make_settings) -> None:
    """With other users in the log they are the same, byte for byte."""
    settings = make_settings()
    prompts = canary_prompts(corpus(settings), seed=0)

    assert not any("clinic" in prompt for prompt in prompts)
    assert prompts == canary_prompts(corpus(settings, "bob", "another secret"), seed=0)


def test_another_seed_makes_others(make_settings) -> None:
    first, second = (set(canary_prompts(corpus(make_settings()), seed)) for seed in (0, 1))

    assert not first & second


def test_a_catalogue_of_few_items_is_enough(make_settings) -> None:
    events = [bought("ann", "tea", 1), bought("ann", "cup", 2)]
    few = corpus_of(events, items("cup", "tea"), make_settings())

    assert all("tea thing" in prompt and "cup thing" in prompt for prompt in canary_prompts(few, 0))
