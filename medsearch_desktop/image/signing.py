"""Who signed a bundle: the user's own Ed25519 key pair, and the signers that the user trusts.

Both lie in the user's configuration folder. This is the only file that imports cryptography.
A fingerprint is the first 40 hexadecimal digits of the SHA-256 of the public key's 32 bytes: what two
people compare by telephone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from medsearch_desktop.config import APP_NAME
from medsearch_desktop.errors import ModelError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE = "signing-key.pem"
SIGNERS_FILE = "trusted-signers.json"
PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64


def key_folder() -> Path:
    """Return the folder of the key and of the trusted signers, which need not exist."""
    return Path(platformdirs.user_config_dir(APP_NAME, appauthor=False))


def fingerprint(public: bytes) -> str:
    """Return the fingerprint of a public key of 32 bytes."""
    return hashlib.sha256(public).hexdigest()[:40]


def spaced(mark: str) -> str:
    """Return a fingerprint as it is shown: ten groups of four."""
    return " ".join(mark[start : start + 4] for start in range(0, len(mark), 4))


def parse_fingerprint(text: str) -> str:
    """Return the fingerprint that a user typed, with or without spaces, colons and capitals.

    Raises ModelError when it is not 40 hexadecimal digits.
    """
    mark = re.sub(r"[\s:-]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{40}", mark):
        raise ModelError(
            f"is not a fingerprint of 40 hexadecimal digits: {text!r}"[:200],
            item="--trust",
            remedy="`medsearch model key` on the signer's machine shows it",
        )
    return mark


def own_fingerprint() -> str:
    """Return the fingerprint of the user's own key, which is made when there is none yet.

    Raises ModelError when the key cannot be read or written, or others could have read it.
    """
    return fingerprint(_public(_own_key()))


def sign(data: bytes) -> tuple[bytes, bytes]:
    """Return the user's public key and the Ed25519 signature of `data`; a key is made when there is none yet.

    Raises ModelError as `own_fingerprint` does.
    """
    key = _own_key()
    return _public(key), key.sign(data)


def is_signed(data: bytes, *, public: bytes, signature: bytes) -> bool:
    """Return whether `signature` (64 bytes) was made of `data` with the key whose public half (32 bytes) is given."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_trusted(mark: str) -> bool:
    """Return whether a fingerprint is one that the user trusted before, or the user's own.

    Raises ModelError when the list of signers or the own key cannot be read.
    """
    return mark in _signers() or ((key_folder() / KEY_FILE).exists() and mark == own_fingerprint())


def trust(mark: str) -> None:
    """Remember a fingerprint as one that the user trusts.

    Raises ModelError when the list of signers cannot be read or written.
    """
    signers = _signers()
    if mark in signers:
        return
    path = key_folder() / SIGNERS_FILE
    content = json.dumps({"format": 1, "signers": [*signers, mark]}, indent=2) + "\n"
    with _translated(path), _beside(path, content.encode("ascii")) as draft:
        draft.replace(path)


def _signers() -> list[str]:
    path = key_folder() / SIGNERS_FILE
    try:
        listed = json.loads(path.read_text("utf-8"))
        return [parse_fingerprint(mark) for mark in listed["signers"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError, ModelError) as error:
        raise ModelError(
            f"the list of trusted signers cannot be read ({error})", item=str(path), remedy="Mend or remove the file"
        ) from error


def _own_key() -> Ed25519PrivateKey:
    path = key_folder() / KEY_FILE
    if not path.exists():
        _make_key(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with _translated(path):
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise ModelError(
                "the signing key can be read by others", item=str(path), remedy=f"Run chmod 600 {path}, or remove it"
            )
        pem = path.read_bytes()
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ModelError(
            "the signing key is damaged", item=str(path), remedy="Remove it: a new one is made, to be trusted anew"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ModelError("the signing key is not an Ed25519 key", item=str(path), remedy="Remove it: a new one is made")
    return key


def _make_key(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # Linked, not renamed: of two processes that make a key at once, the first wins and both use its key.
    with _translated(path), _beside(path, pem) as draft, contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


@contextlib.contextmanager
def _beside(path: Path, content: bytes) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp makes a file that its owner alone may read.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"cannot be read or written ({error.strerror or error})", item=str(path), remedy="Check its permissions"
        ) from error
