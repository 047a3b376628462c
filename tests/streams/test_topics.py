from __future__ import annotations

import asyncio

import pytest

from streams.topics import TOPICS, ensure_topics

pytestmark = pytest.mark.service


def test_missing_topics_are_created_once(kafka, make_settings):
    settings = make_settings()
    created = asyncio.run(ensure_topics(settings))
    assert sorted(created) == sorted(settings.topic(name) for name in TOPICS)
    assert asyncio.run(ensure_topics(settings)) == []
