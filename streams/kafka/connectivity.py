"""For commands: reach the cluster within a deadline, or say why it cannot be reached.

aiokafka's clients keep the cause to their log and raise "unable to bootstrap"; a connection of
our own tells a wrong password from a cluster that is down.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from models.errors import StackError
from models.settings import KafkaSettings, Settings
from streams.kafka.clients import RETRY_S, Client, client_options, start_client

C = TypeVar("C", bound=Client)

CONNECT_MS: Final = 5_000  # of one try, at each step
FOR_GOOD: Final = (  # what another try would not change
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
    ssl.SSLError,
)


async def start_within(settings: Settings, make: Callable[[], C], within_s: float | None) -> C:
    """A started client. Raises StackError saying why if it takes longer (None: waits)."""
    if within_s is None:
        return await start_client(make)
    await check_reachable(settings, within_s)
    async with answers_within(settings, within_s):
        return await start_client(make)


@asynccontextmanager
async def answers_within(settings: Settings, within_s: float) -> AsyncIterator[None]:
    """Raises StackError if what is done inside takes longer, once the cluster is reachable."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError as error:
        raise StackError(
            f"Kafka at {settings.kafka.bootstrap} lets us in, but did not answer within "
            f"{within_s:g} s; do all of its brokers run, and can their advertised addresses be "
            "reached from here?"
        ) from error


async def check_reachable(settings: Settings, within_s: float) -> None:
    """Return once a server of `kafka.bootstrap` lets us in.

    Raises StackError with the cause: at once if it is a password or certificate that the servers
    refuse, else after `within_s`.
    """
    kafka, deadline = settings.kafka, time.monotonic() + within_s
    while True:
        found = await asyncio.gather(*(_refusal(settings, one) for one in _addresses(kafka)))
        causes = [cause for cause in found if cause is not None]
        if len(causes) < len(found):
            return
        if all(isinstance(cause, FOR_GOOD) for cause in causes):
            raise StackError(f"Kafka at {kafka.bootstrap} {_refused(kafka, causes[0])}")
        if time.monotonic() + RETRY_S > deadline:
            raise StackError(
                f"Kafka at {kafka.bootstrap} did not answer within {within_s:g} s "
                f"({str(causes[0]) or type(causes[0]).__name__}); {_hint(kafka, causes[0])}"
            )
        await asyncio.sleep(RETRY_S)


def _addresses(kafka: KafkaSettings) -> list[tuple[str, int]]:
    hosts: list[tuple[str, int, Any]] = collect_hosts(kafka.bootstrap)
    return [(host, port) for host, port, _ in hosts]


async def _refusal(settings: Settings, address: tuple[str, int]) -> Exception | None:
    """Why one server cannot be asked for its topics; None if it can."""
    options = client_options(settings)
    del options["bootstrap_servers"]
    try:
        connection = await create_conn(*address, request_timeout_ms=CONNECT_MS, **options)
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except (KafkaError, OSError, TimeoutError) as error:
        return error
    return None


def _refused(kafka: KafkaSettings, cause: Exception) -> str:
    """What the cluster refuses, and the setting to look at."""
    sasl = f"SASL {kafka.sasl_mechanism}"
    match cause:
        case SaslAuthenticationFailed():
            why = str(cause).partition(": ")[2]
            return (
                f"refused user {kafka.sasl_username} ({sasl}): {why}; check "
                "PALATE_KAFKA__SASL_USERNAME and PALATE_KAFKA__SASL_PASSWORD"
            )
        case UnsupportedSaslMechanismError():
            return f"does not offer {sasl}; set PALATE_KAFKA__SASL_MECHANISM to one that it offers"
        case IllegalSaslStateError():
            return (
                f"asks for no password at that address, and {kafka.security_protocol} gives one; "
                "correct PALATE_KAFKA__SECURITY_PROTOCOL or name its SASL listener"
            )
    return (
        f"and this side do not agree on TLS: {cause}; check PALATE_KAFKA__SSL_CA, "
        "PALATE_KAFKA__SSL_CERT, PALATE_KAFKA__SSL_KEY and PALATE_KAFKA__SECURITY_PROTOCOL"
    )


def _hint(kafka: KafkaSettings, cause: Exception) -> str:
    if isinstance(cause, KafkaConnectionError | ConnectionResetError):  # it hung up on us
        return (
            "it runs, but hangs up: does that listener ask for another "
            f"PALATE_KAFKA__SECURITY_PROTOCOL than {kafka.security_protocol}?"
        )
    if kafka.embedded:
        return "`palate up` starts it, KAFKA_BOOTSTRAP names another cluster"
    return "is the cluster up, and is that its address?"
