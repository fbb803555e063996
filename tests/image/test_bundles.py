from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_made as made
import pytest

from medsearch_desktop.errors import ModelAlteredError, ModelError
from medsearch_desktop.image import signing
from medsearch_desktop.image.bundles import MANIFEST, SIGNATURE, write_bundle
from medsearch_desktop.image.imports import import_model
from medsearch_desktop.image.models import find_model, list_models, verify
from medsearch_desktop.image.registration import CARD, read_card, remove_model

Members = dict[str, bytes]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose model is not registered any more and whose signer is not trusted here."""
    write_bundle(made.own_model(card=b"# Card"), tmp_path / "own.msmodel")
    remove_model("own-64")
    (signing.key_folder() / signing.KEY_FILE).rename(tmp_path / "senders-key.pem")
    return tmp_path / "own.msmodel"


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def signer(path: Path) -> str:
    return signing.fingerprint(bytes.fromhex(json.loads(members(path)[SIGNATURE])["public_key"]))


def pack(content: Members, path: Path, *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def signed(content: Members, path: Path, *, model: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a bundle that is signed properly, by another key, whatever its manifest says now."""
    manifest = json.loads(content[MANIFEST]) | changes
    manifest["model"] |= model or {}
    text = json.dumps(manifest).encode()
    public, signature = signing.sign(text)
    mark = {"algorithm": "Ed25519", "public_key": public.hex(), "signature": signature.hex()}
    return pack({**content, MANIFEST: text, SIGNATURE: json.dumps(mark).encode()}, path)


def refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=message):
        import_model(path, **options)
    assert [spec for spec in list_models() if not spec.shipped] == []
    assert find_model().shipped


def test_a_model_goes_to_another_machine_and_is_the_same(tmp_path: Path) -> None:
    sent = made.own_model(card=b"# Card")
    mark = write_bundle(sent, tmp_path / "own.msmodel")
    again = write_bundle(sent, tmp_path / "again.msmodel")
    assert mark == again == signing.own_fingerprint()
    assert (tmp_path / "own.msmodel").read_bytes() == (tmp_path / "again.msmodel").read_bytes()
    remove_model("own-64")
    done = import_model(tmp_path / "own.msmodel")
    assert (done.spec, done.kind, done.signer) == (sent, "bundle", mark)
    assert read_card(done.spec) == b"# Card"
    verify(find_model("own-64"))
    with pytest.raises(ModelError, match="registered already"):
        import_model(tmp_path / "own.msmodel")


def test_an_unknown_signer_is_shown_with_what_was_signed_and_refused(bundle: Path) -> None:
    spec = find_model()
    for fact in (signing.spaced(signer(bundle)), f"--trust {signer(bundle)}", spec.sha256, "A test", "Apache-2.0"):
        refused(bundle, fact)
    refused(bundle, "not by the signer to be trusted", trust="ab" * 20)
    refused(bundle, "40 hexadecimal digits", trust="abcd")
    assert not signing.is_trusted(signer(bundle))


def test_a_signer_once_trusted_stays_so(bundle: Path) -> None:
    import_model(bundle, trust=signing.spaced(signer(bundle)).upper())
    remove_model("own-64")
    assert import_model(bundle).signer == signer(bundle)


def test_trust_is_not_remembered_of_a_bundle_that_fails(bundle: Path) -> None:
    made.own_model()
    with pytest.raises(ModelError, match="registered already"):
        import_model(bundle, trust=signer(bundle))
    assert not signing.is_trusted(signer(bundle))


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE, CARD, "own-64.onnx"])
def test_one_changed_bit_of_any_member_is_found(bundle: Path, tmp_path: Path, name: str) -> None:
    content = members(bundle)
    data = bytearray(content[name])
    data[len(data) // 2] ^= 1
    changed = pack({**content, name: bytes(data)}, tmp_path / "changed.msmodel")
    refused(changed, "changed after it was signed|signature|not the one that was signed", trust=signer(bundle))


def test_another_signature_does_not_fit(bundle: Path, tmp_path: Path) -> None:
    content = members(bundle)
    public, signature = signing.sign(b"something else")
    for mark in (
        {"algorithm": "Ed25519", "public_key": public.hex(), "signature": signature.hex()},
        json.loads(content[SIGNATURE]) | {"public_key": public.hex()},
        json.loads(content[SIGNATURE]) | {"algorithm": "none"},
        json.loads(content[SIGNATURE]) | {"signature": ""},
        [],
        {"algorithm": "Ed25519"},
    ):
        changed = pack({**content, SIGNATURE: json.dumps(mark).encode()}, tmp_path / "changed.msmodel")
        refused(changed, "signature", trust=signer(bundle))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_cut_off_bundle_is_refused(bundle: Path, share: float) -> None:
    content = bundle.read_bytes()
    bundle.write_bytes(content[: int(len(content) * share)])
    refused(bundle, "is not a whole bundle")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content | {"../outside": b"x"}, "not a plain name"),
        (lambda content: content | {"/etc/outside": b"x"}, "not a plain name"),
        (lambda content: content | {"a\\b": b"x"}, "not a plain name"),
        (lambda content: content | {"sub/": b""}, "not a plain name"),
        (lambda content: content | {"more.txt": b"x"}, "holds 5 members|those that were signed: more.txt"),
        (lambda content: {k: v for k, v in content.items() if k != CARD}, f"those that were signed: {CARD}"),
        (lambda content: {k: v for k, v in content.items() if k != "own-64.onnx"}, "those that were signed: own-64"),
        (lambda content: {k: v for k, v in content.items() if k != SIGNATURE}, "has no signature.json"),
        (lambda content: {k: v for k, v in content.items() if k != MANIFEST}, r"has no manifest\.json"),
        (lambda content: content | {MANIFEST: b" " * 70_000}, "has 70000 bytes, at most 65536"),
        (lambda content: content | {CARD: bytes((1 << 20) + 1)}, "at most 1048576 are read"),
    ],
)
def test_what_does_not_belong_in_a_bundle_is_refused(
    bundle: Path, tmp_path: Path, change: Callable[[Members], Members], message: str
) -> None:
    changed = pack(change(members(bundle)), tmp_path / "changed.msmodel")
    refused(changed, message, trust=signer(bundle))
    assert not (tmp_path / "outside").exists()


def test_compressed_members_are_refused_unread(bundle: Path, tmp_path: Path) -> None:
    bomb = pack({**members(bundle), "own-64.onnx": bytes(50_000_000)}, tmp_path / "bomb.msmodel", compression=8)
    assert bomb.stat().st_size < 100_000
    refused(bomb, "is compressed", trust=signer(bundle))


def test_a_member_twice_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = pack(members(bundle), tmp_path / "twice.msmodel")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(CARD, b"# Another")
    refused(path, f"holds {CARD} twice", trust=signer(bundle))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "not a bundle of format 1"),
        ({"kind": "other"}, "not a bundle of format 1"),
        ({"members": []}, "its manifest is unsound"),
        ({"members": 7}, "its manifest is unsound"),
        ({"members": [{"name": "own-64.onnx"}]}, "its manifest is unsound"),
        ({"model": {"file": "../own.onnx"}}, "its manifest is unsound"),
        ({"model": {"file": MANIFEST}}, "its manifest is unsound"),
        ({"model": {"model_id": "a/b"}}, "its manifest is unsound"),
        ({"model": {"preprocessing": {"size": 64}}}, "preprocessing is incomplete"),
        ({"model": {"sha256": "0" * 64}}, "manifest entry is not of the model"),
        ({"model": {"dim": 512}}, r"vectors \(n, 512\)"),
    ],
)
def test_a_signature_does_not_make_a_bad_manifest_good(
    bundle: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = signed(members(bundle), tmp_path / "bad.msmodel", **changes)
    refused(path, message)


def test_a_signed_file_that_is_no_network_is_refused(bundle: Path, tmp_path: Path) -> None:
    junk, card = b"no network", b"# Card"
    mark = hashlib.sha256(junk).hexdigest()
    listed = [
        {"name": "own-64.onnx", "bytes": len(junk), "sha256": mark},
        {"name": CARD, "bytes": len(card), "sha256": hashlib.sha256(card).hexdigest()},
    ]
    content = {**members(bundle), "own-64.onnx": junk}
    path = signed(content, tmp_path / "junk.msmodel", model={"bytes": len(junk), "sha256": mark}, members=listed)
    refused(path, "cannot load the model")


def test_the_signer_of_a_hostile_origin_cannot_command_the_terminal(bundle: Path, tmp_path: Path) -> None:
    path = signed(members(bundle), tmp_path / "x.msmodel", model={"origin": "\x1b[2J" + "long " * 1000})
    (signing.key_folder() / signing.KEY_FILE).unlink()
    with pytest.raises(ModelError) as caught:
        import_model(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("options", [{"model_id": "x"}, {"origin": "x"}, {"licence": "x"}, {"size": 64}])
def test_a_bundle_has_its_own_facts(bundle: Path, options: dict[str, Any]) -> None:
    refused(bundle, "has its own name", trust=signer(bundle), **options)


def test_an_altered_model_is_not_signed(tmp_path: Path) -> None:
    spec = made.own_model()
    spec.path.write_bytes(spec.path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelAlteredError):
        write_bundle(spec, tmp_path / "own.msmodel")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    spec = made.own_model()
    (tmp_path / "folder.msmodel").mkdir()
    for output in (tmp_path / "folder.msmodel", tmp_path / "none" / "own.msmodel"):
        with pytest.raises(ModelError, match="cannot be written"):
            write_bundle(spec, output)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.msmodel"]


def test_what_no_one_could_import_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"its {CARD} has 1048577 bytes, a bundle takes at most 1048576"):
        write_bundle(made.own_model(card=bytes((1 << 20) + 1)), tmp_path / "own.msmodel")
    assert list(tmp_path.iterdir()) == []
