"""SASL over TLS, as a real cluster asks for it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest

from deploy.broker import Broker
from models.errors import StackError
from streams.kafka.clients import consumer, deliver, producer
from streams.kafka.connectivity import check_reachable
from streams.kafka.topics import ensure_topics
from tests.integration.test_tracker import index_of, interaction, tracking, wired
from tests.ports import free_ports
from tests.streams.clients import read, started

pytestmark = pytest.mark.service

JAAS = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.fixture
def certificate(tmp_path):
    """PEM files of a self-signed certificate for 127.0.0.1 and of its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=kafka", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made, *name, *files], check=True, capture_output=True)
    return cert, key


class SecuredBroker(Broker):
    """The embedded broker with one more listener, which asks for TLS and a password."""

    def secure(self, port, certificate):
        self.port = port
        self.keystore = self.settings.data_dir / "keystore.pem"
        self.keystore.parent.mkdir(parents=True)
        self.keystore.write_text("".join(path.read_text() for path in reversed(certificate)))

    def _write_properties(self, host, port):
        super()._write_properties(host, port)
        lines = self.properties.read_text().splitlines()
        [listeners] = [line for line in lines if line.startswith("listeners=")]
        [advertised] = [line for line in lines if line.startswith("advertised.listeners=")]
        secured = f",SASL_SSL://{host}:{self.port}"
        lines += [  # the last line of a name counts
            listeners + secured,
            advertised + secured,
            "listener.security.protocol.map="
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={self.keystore.absolute()}",
            "sasl.enabled.mechanisms=PLAIN",
            f'listener.name.sasl_ssl.plain.sasl.jaas.config={JAAS} user_palate="open sesame";',
        ]
        self.properties.write_text("\n".join(lines) + "\n")


@pytest.fixture
def secured(needs_java, make_settings, certificate):
    """`secured(password, **other)` → settings of a client of a cluster that asks for a password."""
    plain, port = free_ports(2)
    bootstrap = f"127.0.0.1:{plain}"
    broker = SecuredBroker(make_settings(kafka={"bootstrap": bootstrap, "embedded": True}))
    broker.secure(port, certificate)

    def client(password, **other):
        login = {"sasl_username": "palate", "sasl_password": password}
        tls = {"security_protocol": "SASL_SSL", "ssl_ca": certificate[0]}
        return make_settings(kafka={"bootstrap": f"127.0.0.1:{port}", **login, **tls, **other})

    try:
        broker.start()
        yield client
    finally:
        broker.stop()


def test_topics_producers_and_consumers_work_over_sasl_and_tls(secured):
    settings = secured("open sesame")

    async def run():
        await ensure_topics(settings)
        async with started(lambda: producer(settings)) as sender:
            await deliver(sender, settings.topic("interactions"), b"{}", key=b"u")
        async with started(lambda: consumer(settings, ["interactions"], None)) as reader:
            return await read(reader, 1)

    [record] = asyncio.run(run())
    assert (record.key, record.value) == (b"u", b"{}")

    for said, client in {
        r"refused user palate \(SASL PLAIN\): .*SASL_PASSWORD": secured("wrong"),
        "does not offer SASL SCRAM-SHA-512": secured("x", sasl_mechanism="SCRAM-SHA-512"),
        "do not agree on TLS.*SSL_CA": secured("open sesame", ssl_ca=None),
        "SECURITY_PROTOCOL than PLAINTEXT": secured("x", security_protocol="PLAINTEXT"),
        "SECURITY_PROTOCOL than SSL": secured("x", security_protocol="SSL"),
    }.items():
        with pytest.raises(StackError, match=said):
            asyncio.run(check_reachable(client, 0.5))


def test_a_tracker_works_over_sasl_and_tls(secured):
    settings = secured("open sesame")

    async def run():
        async with wired(settings) as wire, tracking(settings, index_of("tea", "teapot")):
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.recommendations("ada") and wire.requests("ada"))

    asyncio.run(run())
