"""Real associations on loopback: what is stored, refused, bounded, encrypted, and left behind."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from certificates_made import make_certificate
from makers import Film, dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from pynetdicom import AE, _config

from medsearch_desktop.errors import ConfigError, SourceError
from medsearch_desktop.source import spool as spool_module
from medsearch_desktop.source.receiver import Receiver, Reception
from medsearch_desktop.source.spool import NotDicomError, Spool

VERIFICATION = "1.2.840.10008.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", reserve_bytes=0)


@contextmanager
def receiving(spool: Spool, **settings: Any) -> Iterator[tuple[Receiver, list[str]]]:
    kept: list[str] = []
    with Receiver(spool, Reception(port=0, **settings), kept.append) as receiver:
        yield receiver, kept


def sender(*syntaxes: str, classes: tuple[str, ...] = (CR, VERIFICATION), title: str = "SENDER") -> AE:
    ae = AE(ae_title=title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for uid in classes:
        ae.add_requested_context(uid, list(syntaxes) or [ExplicitVRLittleEndian])
    return ae


def send(receiver: Receiver, *datasets: pydicom.Dataset, syntax: str = ExplicitVRLittleEndian) -> list[int]:
    classes = tuple({ds.SOPClassUID for ds in datasets})
    association = sender(syntax, classes=classes).associate("127.0.0.1", receiver.port)
    assert association.is_established
    try:
        return [association.send_c_store(ds).Status for ds in datasets]
    finally:
        association.release()


def until(is_so: Callable[[], object], *, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_an_echo_is_answered(spool: Spool) -> None:
    with receiving(spool) as (receiver, _):
        association = sender().associate("127.0.0.1", receiver.port)
        assert association.send_c_echo().Status == 0x0000
        association.release()


def test_an_instance_comes_to_rest_as_it_was_sent(spool: Spool) -> None:
    ds = dataset(Film())
    with receiving(spool) as (receiver, kept):
        assert send(receiver, ds) == [0x0000]
        assert receiver.counts.received == 1
    [path] = kept
    stored = pydicom.dcmread(path)
    assert stored == ds
    assert stored.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert Path(path).name == f"{ds.SOPInstanceUID}.dcm"
    assert list(spool.incoming.iterdir()) == []
    if os.name != "nt":
        assert Path(path).stat().st_mode & 0o077 == 0
        assert Path(path).parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit]
)
def test_any_transfer_syntax_is_taken_as_it_is(
    spool: Spool, syntax: pydicom.uid.UID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = dataset(Film())
    if syntax == JPEGBaseline8Bit:
        ds.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    elif syntax == ExplicitVRBigEndian:
        ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = syntax
    file = tmp_path / "film.dcm"
    pydicom.dcmwrite(
        file, ds, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, enforce_file_format=True
    )
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    with receiving(spool) as (receiver, kept):
        association = sender(syntax).associate("127.0.0.1", receiver.port)
        assert association.send_c_store(file).Status == 0x0000
        association.release()
    before, after = pydicom.dcmread(file), pydicom.dcmread(kept[0])
    assert after.file_meta.TransferSyntaxUID == syntax
    assert after == before


def test_any_storage_class_is_taken(spool: Spool) -> None:
    classes = (CTImageStorage, "1.2.840.10008.5.1.4.1.1.88.11", "1.2.826.0.1.3680043.10.1.99")
    made = []
    for number, uid in enumerate(classes):
        ds = dataset(Film(image=number + 1))
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid
        made.append(ds)
    with receiving(spool) as (receiver, kept):
        assert send(receiver, *made) == [0, 0, 0]
    assert [pydicom.dcmread(path).SOPClassUID for path in kept] == list(classes)


def test_the_same_instance_again_is_kept_once_and_another_beside_it(spool: Spool) -> None:
    ds, other = dataset(Film()), dataset(Film())
    other.PatientID = "P9999"
    with receiving(spool) as (receiver, kept):
        assert send(receiver, ds, ds, other, other) == [0, 0, 0, 0]
        assert (receiver.counts.received, receiver.counts.duplicates) == (2, 2)
    assert [pydicom.dcmread(path).PatientID for path in kept] == ["P0001", "P9999"]
    assert len(list(spool.folder.glob("*/*.dcm"))) == 2


@pytest.mark.parametrize(
    "uid", ["../../../../etc/passwd", "/etc/cron.d/x", "..", ".", "1.2.3/../..", "1.02.3", "a b", "." * 64]
)
def test_a_hostile_identifier_is_no_path(spool: Spool, uid: str, tmp_path: Path) -> None:
    before = {p for p in tmp_path.rglob("*") if spool.folder not in p.parents}
    with receiving(spool) as (receiver, kept):
        ds = dataset(Film())
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(uid)
        assert send(receiver, ds) == [0x0000]
    assert {p for p in tmp_path.rglob("*") if spool.folder not in p.parents} == before
    [path] = map(Path, kept)
    assert path.parents[1] == spool.folder
    assert path.name == ("1.02.3.dcm" if uid == "1.02.3" else path.name)
    assert path.name.startswith(("uid-", "1.02.3"))


def test_what_is_no_data_set_is_refused_and_kept_aside(spool: Spool) -> None:
    with receiving(spool) as (receiver, kept):
        association = sender().associate("127.0.0.1", receiver.port)
        status = _store_raw(association, b"this is no data set at all, but text " * 9)
        assert status == 0xC000
        association.release()
    assert kept == []
    assert receiver.counts.refused == 1
    [aside] = spool.quarantine.iterdir()
    assert b"no data set at all" in aside.read_bytes()


def _store_raw(association: Any, data: bytes) -> int:
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CR, "1.2.3"
    request.DataSet = BytesIO(data)
    context = next(c for c in association.accepted_contexts if c.abstract_syntax == CR)
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.01)
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(answer.Status)


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", reserve_bytes=1 << 60)
    with receiving(spool) as (receiver, kept):
        assert send(receiver, dataset(Film())) == [0xA700]
    assert kept == []
    assert [p for p in spool.folder.rglob("*") if p.is_file()] == []


def test_a_disk_that_fails_is_told(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(spool_module, "_sync_file", fail)
    with receiving(spool) as (receiver, kept):
        assert send(receiver, dataset(Film())) == [0xA700]
    assert kept == []


def test_only_known_titles_and_networks_may_send(spool: Spool) -> None:
    with receiving(spool, callers=("MODALITY",), ae_title="HERE", require_called=True) as (receiver, _):
        refused = sender(title="STRANGER").associate("127.0.0.1", receiver.port, ae_title="HERE")
        assert refused.is_rejected
        assert sender(title="MODALITY").associate("127.0.0.1", receiver.port, ae_title="THERE").is_rejected
        known = sender(title="MODALITY").associate("127.0.0.1", receiver.port, ae_title="HERE")
        assert known.is_established
        known.release()
        assert receiver.counts.rejected == 2
    with receiving(spool, networks=("10.0.0.0/8", "192.168.1.7")) as (receiver, _):
        stranger = socket.create_connection(("127.0.0.1", receiver.port), 60)
        assert stranger.recv(1) == b""
        stranger.close()
    with receiving(spool, networks=("127.0.0.1",)) as (receiver, _):
        association = sender().associate("127.0.0.1", receiver.port)
        assert association.is_established
        association.release()


def test_more_associations_than_allowed_are_refused(spool: Spool) -> None:
    with receiving(spool, most_associations=2) as (receiver, _):
        held = [sender().associate("127.0.0.1", receiver.port) for _ in range(2)]
        assert all(each.is_established for each in held)
        assert sender().associate("127.0.0.1", receiver.port).is_rejected
        held[0].release()
        until(lambda: (last := sender().associate("127.0.0.1", receiver.port)).is_established and not last.release())
        held[1].release()


def test_silence_ends_an_association(spool: Spool) -> None:
    with receiving(spool, idle_seconds=1.0) as (receiver, _):
        association = sender().associate("127.0.0.1", receiver.port)
        until(lambda: association.is_aborted or association.is_released)


def test_strangers_break_nothing(spool: Spool) -> None:
    with receiving(spool, idle_seconds=30.0) as (receiver, kept):
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x01\x00\xff\xff\xff\xff",
            b"\x04\x00\x00\x00\x10\x00",
            b"",
            os.urandom(999),
        ):
            with socket.create_connection(("127.0.0.1", receiver.port), 60) as stranger:
                stranger.sendall(data)
        half = socket.create_connection(("127.0.0.1", receiver.port), 60)
        half.sendall(struct.pack(">BBL", 1, 0, 500) + b"half")
        assert send(receiver, dataset(Film())) == [0x0000]
        half.close()
    assert len(kept) == 1


def test_a_connection_that_breaks_off_leaves_nothing(spool: Spool) -> None:
    with receiving(spool) as (receiver, kept):
        association = sender().associate("127.0.0.1", receiver.port)
        from io import BytesIO

        from pynetdicom.dimse_messages import C_STORE_RQ
        from pynetdicom.dimse_primitives import C_STORE

        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CR, "1.2.3"
        request.DataSet = BytesIO(bytes(500_000))
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        context = next(c for c in association.accepted_contexts if c.abstract_syntax == CR)
        units = list(message.encode_msg(context.context_id, 16_000))
        for unit in units[: len(units) // 2]:
            association.dul.send_pdu(unit)
        until(lambda: list(spool.incoming.iterdir()))
        association.abort()
        until(lambda: not list(spool.incoming.iterdir()))
    assert kept == []


def test_left_overs_are_swept(spool: Spool) -> None:
    part = spool.new_part()
    assert spool.sweep() == 0
    os.utime(part, (1, 1))
    assert spool.sweep() == 1
    assert not part.exists()


def test_a_file_that_is_there_already_is_never_written_over(spool: Spool) -> None:
    first, second = spool.new_part(), spool.new_part()
    dataset(Film()).save_as(first, enforce_file_format=True)
    dataset(Film(image=2)).save_as(second, enforce_file_format=True)
    content = first.read_bytes()
    one = spool.keep(first, sop_instance_uid="1.2", transfer_syntax=ExplicitVRLittleEndian)
    two = spool.keep(second, sop_instance_uid="1.2", transfer_syntax=ExplicitVRLittleEndian)
    assert Path(one.path).read_bytes() == content
    assert one.path != two.path
    empty = spool.new_part()
    with pytest.raises(NotDicomError):
        spool.keep(empty, sop_instance_uid="1.3", transfer_syntax=ExplicitVRLittleEndian)


def test_without_hard_links_it_is_renamed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with receiving(spool) as (receiver, kept):
        assert send(receiver, dataset(Film()), dataset(Film())) == [0, 0]
    assert len(kept) == 1
    assert pydicom.dcmread(kept[0]).PatientID == "P0001"


def test_a_bad_setting_stops_it(spool: Spool) -> None:
    for settings, error in (
        ({"ae_title": "far too long for a title"}, ConfigError),
        ({"networks": ("10.0.0",)}, ConfigError),
        ({"certificate": "/none.pem"}, ConfigError),
        ({"key": "/none.pem"}, ConfigError),
    ):
        with pytest.raises(error), receiving(spool, **settings):
            pytest.fail("it began")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = Receiver(spool, Reception(port=taken.getsockname()[1]), print)
        with pytest.raises(SourceError, match="listen"):
            busy.__enter__()


def _client(own: tuple[Any, Any, Path], authority: tuple[Any, Any, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority[2])
    context.load_cert_chain(own[2])
    return context


def test_mutual_tls(spool: Spool, tmp_path: Path) -> None:
    authority = make_certificate(tmp_path, "authority")
    server = make_certificate(tmp_path, "server", issuer=authority[:2])
    client = make_certificate(tmp_path, "client", issuer=authority[:2])
    stranger = make_certificate(tmp_path, "stranger")
    own = {"certificate": str(server[2]), "key": str(server[2]), "authority": str(authority[2])}
    with receiving(spool, **own) as (receiver, kept):
        # Somebody who connects and says nothing holds nobody up.
        silent = socket.create_connection(("127.0.0.1", receiver.port))
        association = sender().associate("127.0.0.1", receiver.port, tls_args=(_client(client, authority), "server"))
        assert association.send_c_store(dataset(Film())).Status == 0x0000
        association.release()
        with (
            socket.create_connection(("127.0.0.1", receiver.port), 60) as plain,
            _client(stranger, authority).wrap_socket(plain) as encrypted,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            # With TLS 1.3 a client learns only then that its certificate was refused.
            encrypted.recv(1)
        silent.close()
    assert len(kept) == 1


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk's storescu (apt-get install dcmtk)")
def test_dcmtk_sends_from_four_associations(spool: Spool, tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / f"from{number}"
        folder.mkdir()
        for image in range(8):
            film = Film(patient=number + 1, image=image + 1)
            dataset(film).save_as(folder / f"{image}.dcm", enforce_file_format=True)
    with receiving(spool) as (receiver, kept):
        command = ["storescu", "+sd", "-aet", "DCMTK", "127.0.0.1", str(receiver.port)]
        running = [subprocess.Popen([*command, str(tmp_path / f"from{number}")]) for number in range(4)]
        assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert len(kept) == len(set(kept)) == 32
    sent = {ds.SOPInstanceUID: ds.PixelData for ds in map(pydicom.dcmread, tmp_path.glob("from*/*.dcm"))}
    assert {ds.SOPInstanceUID: ds.PixelData for ds in map(pydicom.dcmread, kept)} == sent
