"""Which topic a name stands for: the id that Kafka gives to each topic it makes (KIP-516).

A topic that was deleted and made again has its old name and another id. aiokafka speaks older
versions of the metadata request, which do not carry ids, so the one that does stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_NO_ID: Final = UUID(int=0)
_UNKNOWN_TOPIC: Final = 3
_KEY, _VERSION = 3, 10  # Metadata, as of Kafka 2.8


class _Uuid(AbstractType[UUID]):
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class _MetadataResponse(Response):
    API_KEY = _KEY
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestStruct(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = _KEY
    API_VERSION = _VERSION
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestStruct]):
    API_KEY = _KEY

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics: list[tuple[UUID, str, dict[int, bytes]]] = [
            (_NO_ID, topic, {}) for topic in topics
        ]

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        return request_struct_class(self._topics, False, False, False, {})


async def topic_ids(admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, str]:
    """Topic (full name) → its id, of those that exist; "" from a Kafka older than 2.8.

    Raises KafkaError or OSError if no broker answers.
    """
    wanted = sorted(topics)
    try:
        answer = await _ask(admin, _MetadataRequest(wanted))
    except NotImplementedError:  # how aiokafka says that the broker is older
        return dict.fromkeys(wanted, "")
    found = {}
    for error, topic, topic_id, *_ in answer.topics:
        if error and error != _UNKNOWN_TOPIC and topic_id == _NO_ID:
            raise for_code(error)(f"topic {topic}")
        if topic_id != _NO_ID:
            found[topic] = str(topic_id)
    return found


async def _ask(admin: AIOKafkaAdminClient, request: _MetadataRequest) -> Any:
    client = admin._client  # aiokafka's clients send requests of one's own through no other door
    node = client.get_random_node()
    if node is None:
        raise KafkaConnectionError("no broker is known")
    return await client.send(node, request)
