from __future__ import annotations

import ssl
import subprocess

import pytest
from pydantic import SecretStr

from models.errors import SettingsError
from streams.kafka import client_options, full_name, group_id


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


def test_names_carry_the_prefix_once(make_settings):
    settings = make_settings(kafka={"prefix": "shop-"})
    assert full_name(settings, "items") == "shop-items"
    assert full_name(settings, "shop-items") == "shop-items"
    assert group_id(settings, "recorder") == "shop-palate-recorder"
