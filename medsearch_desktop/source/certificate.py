"""Certificates of DICOM through TLS (PS3.15 B): the one that this program shows, and whose it trusts. PEM files."""

from __future__ import annotations

import ssl

from medsearch_desktop.errors import ConfigError
from medsearch_desktop.source.sniff import os_reason


def show_certificate(context: ssl.SSLContext, certificate: str, key: str = "") -> None:
    """Have `context` show a certificate; its key is in the same file where `key` is empty.

    Raises ConfigError for files that cannot be read or are none, and for a key behind a password: none is asked for.
    """
    is_locked = False

    def password() -> str:
        # Left to itself OpenSSL asks for it at the terminal, and a server waits there for ever.
        nonlocal is_locked
        is_locked = True
        return ""

    try:
        context.load_cert_chain(certificate, key or None, password)
    except (OSError, ValueError) as error:
        if is_locked:
            raise ConfigError(
                "the key is behind a password",
                item=key or certificate,
                remedy="Give one that has none and that nobody else may read: `openssl pkey -in KEY -out PLAIN`",
            ) from error
        raise ConfigError(
            f"the certificate cannot be used ({os_reason(error)})",
            item=certificate,
            remedy="Give PEM files of a certificate and its own key",
        ) from error


def trust_authority(context: ssl.SSLContext, authority: str) -> None:
    """Have `context` trust who shows a certificate of this authority. Raises ConfigError."""
    try:
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the authority's certificate cannot be used ({os_reason(error)})", item=authority, remedy="Give a PEM file"
        ) from error
