from __future__ import annotations

import json
import os
import threading

import pytest

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image import signing


def test_a_key_is_made_once_and_is_its_owners_alone() -> None:
    mark = signing.own_fingerprint()
    assert len(mark) == 40
    assert signing.own_fingerprint() == mark
    path = signing.key_folder() / signing.KEY_FILE
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in signing.key_folder().iterdir()] == [signing.KEY_FILE]


def test_two_at_once_make_one_key() -> None:
    marks: list[str] = []
    callers = [threading.Thread(target=lambda: marks.append(signing.own_fingerprint())) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(marks) == 8
    assert len(set(marks)) == 1


def test_a_signature_is_of_these_bytes_and_of_this_key() -> None:
    public, signature = signing.sign(b"what is signed")
    assert signing.is_signed(b"what is signed", public=public, signature=signature)
    assert not signing.is_signed(b"what is signeD", public=public, signature=signature)
    assert not signing.is_signed(b"what is signed", public=public, signature=bytes(64))
    assert not signing.is_signed(b"what is signed", public=bytes(32), signature=signature)
    assert signing.fingerprint(public) == signing.own_fingerprint()


def test_trust_is_remembered() -> None:
    one, two = "ab" * 20, "cd" * 20
    assert not signing.is_trusted(one)
    signing.trust(one)
    signing.trust(two)
    signing.trust(one)
    assert signing.is_trusted(one)
    assert json.loads((signing.key_folder() / signing.SIGNERS_FILE).read_text("utf-8"))["signers"] == [one, two]
    assert signing.is_trusted(signing.own_fingerprint()), "oneself is trusted"


def test_a_fingerprint_is_read_as_people_write_it() -> None:
    mark = "0123456789abcdef0123456789abcdef01234567"
    assert signing.parse_fingerprint(signing.spaced(mark)) == mark
    assert signing.parse_fingerprint(signing.spaced(mark).upper().replace(" ", ":")) == mark
    for wrong in ("", mark[:-1], mark + "0", "g" * 40):
        with pytest.raises(ModelError, match="40 hexadecimal digits"):
            signing.parse_fingerprint(wrong)


@pytest.mark.skipif(os.name != "posix", reason="needs a system with file modes, as Linux or macOS")
def test_a_key_that_others_can_read_is_not_used() -> None:
    signing.own_fingerprint()
    (signing.key_folder() / signing.KEY_FILE).chmod(0o644)
    with pytest.raises(ModelError, match="can be read by others"):
        signing.sign(b"x")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_named(content: bytes) -> None:
    signing.own_fingerprint()
    (signing.key_folder() / signing.KEY_FILE).write_bytes(content)
    with pytest.raises(ModelError, match="the signing key is damaged"):
        signing.sign(b"x")


@pytest.mark.parametrize("content", ["", "[]", '{"signers": [7]}', '{"signers": ["short"]}'])
def test_a_damaged_list_of_signers_trusts_nobody(content: str) -> None:
    signing.trust("ab" * 20)
    (signing.key_folder() / signing.SIGNERS_FILE).write_text(content, "utf-8")
    with pytest.raises(ModelError, match="trusted signers cannot be read"):
        signing.is_trusted("ab" * 20)
