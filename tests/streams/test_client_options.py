from __future__ import annotations

import asyncio
import ssl
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from models.errors import SettingsError
from models.settings import load_settings
from streams.kafka.clients import client_options, consumer, group_id
from streams.kafka.topic_follower import TopicFollower
from streams.kafka.topics import TOPICS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate and its key, as PEM files."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost"]
    try:
        subprocess.run([*request, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


def test_a_plain_cluster_gets_neither_sasl_nor_tls_options(make_settings):
    options = client_options(make_settings(kafka={"bootstrap": "a:1,b:2"}))
    assert options["bootstrap_servers"] == "a:1,b:2"
    assert options["security_protocol"] == "PLAINTEXT"
    assert not [name for name in options if name.startswith(("sasl", "ssl"))]


def test_sasl_settings_reach_the_client(make_settings):
    options = client_options(
        make_settings(
            kafka={
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_username": "palate",
                "sasl_password": SecretStr("open sesame"),
            }
        )
    )
    assert options["security_protocol"] == "SASL_PLAINTEXT"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "palate"
    assert options["sasl_plain_password"] == "open sesame"
    assert "ssl_context" not in options


def test_tls_settings_become_a_context_that_checks_the_server(make_settings, certificate):
    cert, key = certificate
    files = {"ssl_ca": cert, "ssl_cert": cert, "ssl_key": key}
    options = client_options(make_settings(kafka={"security_protocol": "SSL", **files}))
    context = options["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert [found["subject"] for found in context.get_ca_certs()] == [
        ((("commonName", "localhost"),),)
    ]


def test_sasl_over_tls_has_both(make_settings, certificate):
    secret = {"sasl_username": "palate", "sasl_password": "x", "ssl_ca": certificate[0]}
    options = client_options(make_settings(kafka={"security_protocol": "SASL_SSL", **secret}))
    assert {"ssl_context", "sasl_mechanism", "sasl_plain_password"} <= options.keys()


def test_a_certificate_that_cannot_be_read_is_a_setting_that_is_wrong(make_settings, tmp_path):
    absent = {"security_protocol": "SSL", "ssl_ca": tmp_path / "absent.pem"}
    with pytest.raises(SettingsError, match=r"kafka\.ssl_.*absent\.pem"):
        client_options(make_settings(kafka=absent))


PREFIXES = st.from_regex(r"[A-Za-z0-9._-]{0,20}", fullmatch=True)
OUR_NAMES = st.sampled_from([name[:n] for name in TOPICS for n in range(len(name) + 1)])


@given(prefix=PREFIXES | OUR_NAMES)
@example("p")
@example("pro")
@example("i")
@example("rec")
def test_readers_and_writers_use_the_same_topics_under_any_prefix(prefix):
    settings = load_settings(kafka={"prefix": prefix, "bootstrap": "127.0.0.1:1"})
    written = {name: settings.topic(name) for name in TOPICS}
    assert written == {name: prefix + name for name in TOPICS}
    for name in TOPICS:
        assert asyncio.run(_read_topics(settings, name)) == {written[name]}
        assert TopicFollower(settings, name, lambda _: None).topic == written[name]


async def _read_topics(settings, name):
    return consumer(settings, [name], None)._subscription.topics


@pytest.mark.parametrize("prefix", ["a b", "ä-", "a/b", "a\n", "p" * 101])
def test_a_prefix_that_no_topic_may_have_is_refused(prefix):
    with pytest.raises(SettingsError, match=r"kafka\.prefix"):
        load_settings(kafka={"prefix": prefix})


def test_names_carry_the_prefix(make_settings):
    settings = make_settings(kafka={"prefix": "shop-"})
    assert group_id(settings, "recorder") == "shop-palate-recorder"


def test_every_reader_sees_only_what_is_committed(make_settings):
    settings = make_settings()

    async def levels():
        return consumer(settings, ["items"], None)._isolation_level

    assert asyncio.run(levels()) == "read_committed"
