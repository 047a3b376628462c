from __future__ import annotations

import asyncio
import logging

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from models.errors import SettingsError, TopicError
from models.schemas import TOPIC_SCHEMAS
from models.settings import load_settings
from streams.kafka.clients import client_options, producer, start_client
from streams.kafka.topics import (
    TOPICS,
    TopicSpec,
    check_topic,
    describe_topics,
    ensure_topics,
)

DELETE = {"cleanup.policy": "delete", "retention.ms": str(30 * 86_400_000), "retention.bytes": "-1"}
FOREVER = DELETE | {"retention.ms": "-1"}
COMPACT = DELETE | {"cleanup.policy": "compact"}
BOTH = DELETE | {"cleanup.policy": "compact,delete"}


# -- what is accepted and refused (pure) -------------------------------------------------------


def test_every_schema_has_a_topic_and_only_dead_letters_have_none():
    assert set(TOPICS) - set(TOPIC_SCHEMAS) == {"dead-letters"}
    assert not set(TOPIC_SCHEMAS) - set(TOPICS)


def test_topics_keyed_by_user_are_co_partitioned_and_releases_have_one_order(make_settings):
    settings = make_settings(kafka={"partitions": 7})
    counts = {name: spec.partition_count(settings) for name, spec in TOPICS.items()}
    assert counts.pop("releases") == 1
    assert set(counts.values()) == {7}


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_as_created_passes_its_own_check(name, make_settings):
    settings = make_settings()
    spec = TOPICS[name]
    check_topic(name, spec, spec.partition_count(settings), spec.config(settings), settings)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("interactions", COMPACT),
        ("interactions", BOTH),
        ("profile-requests", COMPACT),
        ("dead-letters", COMPACT),
        ("items", DELETE),
        ("items", BOTH),
        ("profiles", DELETE),
        ("profiles", COMPACT | {"cleanup.policy": "delete", "retention.bytes": "1000"}),
        ("releases", BOTH),
        ("profile-edits", DELETE),
        ("profile-edits", FOREVER | {"retention.bytes": "1000000"}),
        ("profile-edits", COMPACT),
    ],
)
def test_a_clean_up_that_loses_records_is_refused_with_the_remedy(name, config, make_settings):
    settings = make_settings()
    spec = TOPICS[name]
    with pytest.raises(TopicError, match=rf"topic {name}: .*; alter it to cleanup\.policy="):
        check_topic(name, spec, spec.partition_count(settings), config, settings)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("interactions", FOREVER),
        ("items", FOREVER),
        ("items", FOREVER | {"cleanup.policy": "compact, delete"}),
        ("recommendations", DELETE),
        ("recommendations", COMPACT),
        ("profile-edits", FOREVER),
    ],
)
def test_a_clean_up_that_keeps_more_is_accepted(name, config, make_settings):
    settings = make_settings()
    spec = TOPICS[name]
    check_topic(name, spec, spec.partition_count(settings), config, settings)


def test_another_partition_count_is_refused_with_both_counts(make_settings):
    settings = make_settings(kafka={"partitions": 4})
    with pytest.raises(
        TopicError, match=r"x has 6 partitions.* is 4; .*PALATE_KAFKA__PARTITIONS=6"
    ):
        check_topic("x", TopicSpec("delete"), 6, DELETE, settings)
    with pytest.raises(TopicError, match=r"releases has 4 partitions and needs 1"):
        check_topic("releases", TOPICS["releases"], 4, COMPACT, settings)


def test_a_retention_shorter_than_the_setting_is_warned_about(make_settings, caplog):
    week = DELETE | {"retention.ms": str(7 * 86_400_000)}
    with caplog.at_level(logging.WARNING):
        check_topic("interactions", TOPICS["interactions"], 4, week, make_settings())
    assert "topic interactions keeps records for 7.0 days" in caplog.text


# -- on a real broker --------------------------------------------------------------------------


def test_missing_topics_are_created_once_with_their_settings(kafka, make_settings):
    settings = make_settings(kafka={"partitions": 3, "retention_days": 2})

    async def run():
        created = await ensure_topics(settings)
        again = await ensure_topics(settings)
        return created, again, await describe_topics(settings, created)

    created, again, found = asyncio.run(run())
    assert sorted(created) == sorted(settings.topic(name) for name in TOPICS)
    assert again == []
    for name, spec in TOPICS.items():
        shape = found[settings.topic(name)]
        assert shape.partitions == spec.partition_count(settings)
        wanted = spec.config(settings)
        assert {k: shape.config[k] for k in wanted} == wanted


def test_processes_that_start_together_all_find_the_topics(kafka, make_settings):
    settings = make_settings()

    async def run():
        return await asyncio.gather(*(ensure_topics(settings) for _ in range(4)))

    created = [name for names in asyncio.run(run()) for name in names]
    assert sorted(created) == sorted(settings.topic(name) for name in TOPICS)


def test_an_existing_topic_of_the_wrong_shape_is_refused(kafka, make_settings):
    settings = make_settings()

    async def run(topic: NewTopic):
        admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
        await admin.create_topics([topic])
        await admin.close()
        await ensure_topics(settings)

    too_many = NewTopic(
        settings.topic("profiles"), 5, 1, topic_configs={"cleanup.policy": "compact"}
    )
    with pytest.raises(TopicError, match=r"profiles has 5 partitions, kafka\.partitions is 4"):
        asyncio.run(run(too_many))


def test_what_kafka_refuses_to_create_is_reported_in_its_words(kafka, make_settings):
    with pytest.raises(TopicError, match=r"refuses to create topic .*replication"):
        asyncio.run(ensure_topics(make_settings(kafka={"replication": 3})))


def test_a_topic_with_the_producers_time_is_warned_of(make_settings, caplog):
    settings = make_settings()
    spec = TOPICS["interactions"]
    config = spec.config(settings) | {"message.timestamp.type": "CreateTime"}
    check_topic("interactions", spec, settings.kafka.partitions, config, settings)
    assert "message.timestamp.type=CreateTime" in caplog.text
    assert "LogAppendTime" in caplog.text


def test_the_largest_message_is_a_setting_of_topics_and_producers(make_settings, caplog):
    settings = make_settings(kafka={"max_message_bytes": 8 * 2**20})
    for name, spec in TOPICS.items():
        config = spec.config(settings)
        assert config["max.message.bytes"] == str(8 * 2**20)
        check_topic(name, spec, spec.partition_count(settings), config, settings)
    assert caplog.text == ""
    small = TOPICS["items"].config(settings) | {"max.message.bytes": "1048588"}
    check_topic("items", TOPICS["items"], settings.kafka.partitions, small, settings)
    assert "max.message.bytes=1048588" in caplog.text

    async def largest_request():
        return producer(settings)._max_request_size

    assert asyncio.run(largest_request()) == 8 * 2**20


def test_a_limit_below_what_palate_sends_is_refused():
    with pytest.raises(SettingsError, match="max_message_bytes"):
        load_settings(kafka={"max_message_bytes": 2**20 - 1})
