"""What cannot serve as a certificate is named, and no password is ever asked for."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from certificates_made import make_certificate

from medsearch_desktop.errors import ConfigError
from medsearch_desktop.sending import client_tls
from medsearch_desktop.source.certificate import show_certificate, trust_authority


@pytest.fixture
def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_a_key_in_the_certificates_file_or_beside_it(tmp_path: Path, context: ssl.SSLContext) -> None:
    _, _, both = make_certificate(tmp_path, "own")
    show_certificate(context, str(both))
    show_certificate(context, str(both), str(both))
    trust_authority(context, str(both))


def test_a_key_behind_a_password_is_refused_without_asking_for_it(tmp_path: Path, context: ssl.SSLContext) -> None:
    _, _, locked = make_certificate(tmp_path, "locked", password=b"a secret")
    with pytest.raises(ConfigError, match="behind a password") as told:
        show_certificate(context, str(locked))
    assert "openssl pkey" in str(told.value)
    with pytest.raises(ConfigError, match="behind a password"):
        client_tls(certificate=str(locked))


def test_what_is_no_certificate_is_named(tmp_path: Path, context: ssl.SSLContext) -> None:
    _, _, own = make_certificate(tmp_path, "own")
    _, _, other = make_certificate(tmp_path, "other")
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"junk")
    for certificate, key in (
        (str(junk), ""),
        ("/none.pem", ""),
        ("/a\0b", ""),
        (str(tmp_path), ""),
        (str(own), str(other)),
        (str(own), "/none.pem"),
    ):
        with pytest.raises(ConfigError, match="certificate cannot be used"):
            show_certificate(context, certificate, key)
        with pytest.raises(ConfigError, match="certificate cannot be used"):
            client_tls(certificate=certificate, key=key)
    for authority in (str(junk), "/none.pem", "/a\0b", str(tmp_path)):
        with pytest.raises(ConfigError, match="authority"):
            trust_authority(context, authority)
        with pytest.raises(ConfigError, match="authority"):
            client_tls(authority=authority)
