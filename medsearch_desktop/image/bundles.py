"""A model carried by hand: one file that holds it and says, under a signature, what it is and where it is from.

A bundle is a zip archive, stored without compression, of

    manifest.json     {"format": 1, "kind": "medsearch-model", "model": {its manifest entry},
                       "members": [{"name", "bytes", "sha256"}]} of all members but the first two
    signature.json    {"algorithm": "Ed25519", "public_key", "signature"}: of the bytes of manifest.json, in hexadecimal
    the ONNX file, and MODEL_CARD.md where the model has one

Everything else in one is refused. Nothing is believed, not even what the manifest says of the others, before
the signature has been checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsearch_desktop.errors import ModelError
from medsearch_desktop.image import signing
from medsearch_desktop.image.models import PLAIN_NAME, ModelSpec, read_entry, read_model
from medsearch_desktop.image.registration import CARD, full_entry, read_card

SUFFIX = ".msmodel"
FORMAT = 1
KIND = "medsearch-model"
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"

# The most bytes of each member; what a DenseNet121 has is 14 MB, the largest ONNX file 2 GiB.
_MOST = {MANIFEST: 1 << 16, SIGNATURE: 1 << 12, CARD: 1 << 20}
_MOST_MODEL = (2 << 30) - 1
_AGAIN = "Copy it again from where it came"
# Zip cannot go further back; any date that is always the same would do.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle holds, after its signature and all checksums have been found right.

    `entry` is the model's manifest entry, `signer` a fingerprint.
    """

    content: bytes
    entry: dict[str, Any]
    card: bytes | None
    signer: str


def write_bundle(spec: ModelSpec, output: Path) -> str:
    """Write a model to a bundle under the user's own signature, whole or not at all; return the fingerprint.

    A file that is there already is replaced. The same model signed with the same key gives the same bytes.

    Raises ModelMissingError or ModelAlteredError when the model's file is not the manifest's, ModelError
    when anything cannot be read or written.
    """
    members = {spec.path.name: read_model(spec)}
    card = read_card(spec)
    if card is not None:
        members[CARD] = card
    listed = [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()
    ]
    manifest = {"format": FORMAT, "kind": KIND, "model": full_entry(spec), "members": listed}
    text = json.dumps(manifest, indent=2, ensure_ascii=True).encode("ascii")
    public, signature = signing.sign(text)
    signed = {"algorithm": "Ed25519", "public_key": public.hex(), "signature": signature.hex()}
    members = {MANIFEST: text, SIGNATURE: json.dumps(signed).encode("ascii"), **members}
    for name, data in members.items():
        if len(data) > _MOST.get(name, _MOST_MODEL):
            raise ModelError(
                f"its {name} has {len(data)} bytes, a bundle takes at most {_MOST.get(name, _MOST_MODEL)}",
                item=spec.model_id,
                remedy="Shorten it",
            )
    try:
        handle, draft = tempfile.mkstemp(prefix=f".{output.name}-", dir=output.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for name, data in members.items():
                        archive.writestr(zipfile.ZipInfo(name, _DATE), data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp's file is its owner's alone, and this one is meant to be handed on.
            Path(draft).chmod(0o644)
            Path(draft).replace(output)
        finally:
            Path(draft).unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(
            f"cannot be written ({error.strerror or error})", item=str(output), remedy="Give -o another place"
        ) from error
    return signing.fingerprint(public)


def open_bundle(path: Path, *, trust: str = "") -> Bundle:
    """Return what a bundle holds if its signer is trusted, or is the one whose fingerprint `trust` gives.

    Nothing is remembered: `remember` does that.

    Raises ModelError when the file is not a whole bundle, holds anything that it should not, was changed
    after it was signed, or when its signer is not trusted.
    """
    wanted = signing.parse_fingerprint(trust) if trust else ""
    item = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = _checked_members(archive, item)
            text = _read(archive, MANIFEST, sizes, item)
            signer = _checked_signature(text, _read(archive, SIGNATURE, sizes, item), item)
            manifest, entry = _checked_manifest(text, set(sizes), item)
            _check_signer(signer, wanted, entry, item)
            members = {}
            for member in manifest["members"]:
                data = _read(archive, member["name"], sizes, item)
                if len(data) != member["bytes"] or hashlib.sha256(data).hexdigest() != member["sha256"]:
                    raise ModelError(f"{member['name']} is not the one that was signed", item=item, remedy=_AGAIN)
                members[member["name"]] = data
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror or error})", item=item) from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"is not a whole bundle ({_clean(error)})", item=item, remedy=_AGAIN) from error
    content = members[entry["file"]]
    if entry["bytes"] != len(content) or entry["sha256"] != hashlib.sha256(content).hexdigest():
        raise ModelError("its manifest entry is not of the model in it", item=item, remedy="Ask its sender")
    return Bundle(content, entry, members.get(CARD), signer)


def remember(bundle: Bundle) -> None:
    """Remember the signer of an opened bundle as one whose next bundles need no question.

    Raises ModelError when that cannot be written.
    """
    if not signing.is_trusted(bundle.signer):
        signing.trust(bundle.signer)


def _checked_members(archive: zipfile.ZipFile, item: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for member in archive.infolist():
        name = member.filename
        if not PLAIN_NAME.fullmatch(name):
            raise ModelError(f"holds {_clean(name)!r}, which is not a plain name", item=item, remedy=_AGAIN)
        if name in sizes:
            raise ModelError(f"holds {name} twice", item=item, remedy=_AGAIN)
        # A bundle is written without compression, so that nothing in it can unpack to more than it is.
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise ModelError(f"{name} is compressed, which a bundle's members never are", item=item, remedy=_AGAIN)
        most = _MOST.get(name, _MOST_MODEL)
        if member.file_size > most:
            raise ModelError(f"{name} has {member.file_size} bytes, at most {most} are read", item=item, remedy=_AGAIN)
        sizes[name] = member.file_size
    for name in (MANIFEST, SIGNATURE):
        if name not in sizes:
            raise ModelError(f"has no {name}: it is not a bundle", item=item, remedy=_AGAIN)
    if len(sizes) > len(_MOST) + 1:
        raise ModelError(f"holds {len(sizes)} members, a bundle has at most 4", item=item, remedy=_AGAIN)
    return sizes


def _read(archive: zipfile.ZipFile, name: str, sizes: dict[str, int], item: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(sizes[name] + 1)
    if len(data) != sizes[name]:
        raise ModelError(f"{name} is not as long as the archive says", item=item, remedy=_AGAIN)
    return data


def _checked_signature(text: bytes, signed: bytes, item: str) -> str:
    try:
        value = json.loads(signed)
        algorithm = value["algorithm"]
        public, signature = bytes.fromhex(value["public_key"]), bytes.fromhex(value["signature"])
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError("its signature cannot be read", item=item, remedy=_AGAIN) from error
    if algorithm != "Ed25519" or (len(public), len(signature)) != (signing.PUBLIC_BYTES, signing.SIGNATURE_BYTES):
        raise ModelError("its signature is not an Ed25519 signature", item=item, remedy=_AGAIN)
    if not signing.is_signed(text, public=public, signature=signature):
        raise ModelError("was changed after it was signed: the signature does not fit", item=item, remedy=_AGAIN)
    return signing.fingerprint(public)


def _checked_manifest(text: bytes, present: set[str], item: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        manifest = json.loads(text)
        if (manifest["format"], manifest["kind"]) != (FORMAT, KIND):
            raise ModelError(
                f"is not a bundle of format {FORMAT}",
                item=item,
                remedy="Use the release of MedSearch Desktop that wrote it",
            )
        entry = manifest["model"]
        spec = read_entry(entry, Path())
        names = [member["name"] for member in manifest["members"]]
        wrong = [member for member in manifest["members"] if type(member["bytes"]) is not int]
        if wrong or spec.path.name in _MOST or not {spec.path.name} <= set(names) <= {spec.path.name, CARD}:
            raise ValueError("its members are not a model and a card")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"its manifest is unsound ({_clean(error)})", item=item, remedy="Ask its sender") from error
    if sorted(names) != sorted(present - {MANIFEST, SIGNATURE}):
        odd = ", ".join(sorted(set(names) ^ (present - {MANIFEST, SIGNATURE}))) or "a member twice"
        raise ModelError(f"its members are not those that were signed: {odd}", item=item, remedy=_AGAIN)
    return manifest, dict(entry)


def _check_signer(signer: str, wanted: str, entry: dict[str, Any], item: str) -> None:
    if wanted and wanted != signer:
        raise ModelError(
            f"is signed by {signing.spaced(signer)}, not by the signer to be trusted",
            item=item,
            remedy="Compare the fingerprints once more with its sender",
        )
    if not wanted and not signing.is_trusted(signer):
        facts = ", ".join(
            f"{key} {_clean(entry.get(key, ''))!r}" for key in ("model_id", "sha256", "origin", "licence")
        )
        raise ModelError(
            f"is signed by {signing.spaced(signer)}, whom you do not trust yet ({facts})",
            item=item,
            remedy="If `medsearch model key` shows the sender that fingerprint, import it with"
            f" --trust {signer}; it is remembered",
        )


def _clean(value: object) -> str:
    # From a file of an unknown sender: a terminal must not obey it.
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value))
    return text if len(text) <= 160 else f"{text[:160]}..."
