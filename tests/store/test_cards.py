"""A card says of a document what the database and the language pipeline say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pydicom.config
import pytest
from makers import uid, write_department

from medsearch_desktop.library import open_library
from medsearch_desktop.store.cards import Card
from medsearch_desktop.store.fulltext import fields


def test_a_card_holds_what_the_reader_read(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=4)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        for hit in library.search("", k=10).hits:
            report = library.workbench.read_report(str(min(source.rglob(f"{hit.report_id}.txt"))))
            assert len(hit.entities) == len(report.entities) > 0
            for stored, read in zip(hit.entities, report.entities, strict=True):
                assert abs(stored.score - read.score) < 1e-6
                assert (stored.text, stored.start, stored.end, stored.assertion, stored.category, stored.cue) == (
                    (read.text, read.start, read.end, read.assertion, read.category, read.cue)
                )
                assert [code.icd10cm for code in stored.alternatives] == [code.icd10cm for code in read.alternatives]


def test_a_study_without_a_report_has_a_card_of_its_images(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=1)
    min(source.rglob("*.txt")).unlink()
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        (hit,) = library.search("modality:CR").hits
        assert (hit.report_id, hit.study_uid, hit.entities) == (None, uid(1, 1), ())
        assert set(hit.image_ids) == {uid(1, 1, 1), uid(1, 1, 2)}


def test_a_card_holds_what_the_header_says_of_patient_and_study(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=2)
    for path in source.rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        if ds.StudyInstanceUID == uid(1, 1):
            ds.PatientAge, ds.StudyDescription = "006M", "CHEST, 2 VIEWS"
            if ds.ViewPosition == "LL":
                ds.Modality, ds.SeriesInstanceUID = "DX", uid(1, 1, 8)
        else:
            ds.PatientAge = ds.PatientSex = ""
        ds.save_as(path)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        known, unknown = library.search("", sort="oldest").hits
        row = (known.patient_sex, known.patient_age, known.modalities, known.study_description)
        assert row == ("F", 0.5, ("CR", "DX"), "CHEST, 2 VIEWS")
        assert (unknown.patient_sex, unknown.patient_age, unknown.modalities) == ("", None, ("CR",))
        near = next(hit for hit in library.similar(uid(1, 2, 1)).hits if hit.study_uid == uid(1, 1))
        assert (near.patient_sex, near.patient_age, near.modalities, near.study_description) == row


def test_a_card_holds_no_more_of_a_header_than_a_row_can_show(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=1)
    for path in source.rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            ds.StudyDescription, ds.Modality, ds.PatientSex = "D" * 60_000, "M" * 60_000, "S" * 60_000
            ds.save_as(path)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        (hit,) = library.search("").hits
        assert (hit.study_description, hit.modalities, hit.patient_sex) == ("D" * 200, ("M" * 16,), "S" * 16)
        assert len(library.holdings.study(uid(1, 1)).study_description) == 60_000


def test_a_report_without_a_study_has_a_card_that_says_nothing_of_one(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "loose.txt").write_text("IMPRESSION: Normal chest.", "utf-8")
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([tmp_path / "source"])
        (hit,) = library.search("").hits
        assert (hit.report_id, hit.study_uid) == ("loose", None)
        assert (hit.patient_sex, hit.patient_age, hit.modalities, hit.study_description) == ("", None, (), "")


def test_cards_of_an_earlier_format_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_department(tmp_path / "source", studies=1)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        made = library.search("").hits
        # As the release before packed them: without what was added at the end.
        before = [json.dumps(json.loads(row["card"])[:8]).encode() for row in library.catalogue.documents()]
        monkeypatch.setattr(fields, "FORMAT", 3)
        fields.made_by.cache_clear()
        rows = [{**row, "card": card} for row, card in zip(library.catalogue.documents(), before, strict=True)]
        library.fulltext.update(rows, watermark=library.fulltext.watermark)
    monkeypatch.undo()
    fields.made_by.cache_clear()
    with open_library(tmp_path / "library") as library:
        assert library.search("").hits == made


def test_a_card_follows_every_change(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=1)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        min(source.rglob("image2.dcm")).unlink()
        min(source.rglob("*.txt")).write_text("IMPRESSION: Bilateral zebra sign.", "utf-8")
        library.ingest([source])
        (hit,) = library.search("zebra").hits
        assert hit.image_ids == (uid(1, 1, 1),)
        assert hit.snippet.endswith("Bilateral zebra sign.")


def test_cards_of_documents_that_are_gone_are_left_out(tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=2)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        documents = {document["doc_no"]: document["card"] for document in library.catalogue.documents()}
        assert library.fulltext.cards([*documents, 999_998]) == documents
        assert {Card.unpack(card).impression for card in documents.values()} == {"Normal chest.", "Right pneumothorax."}
        assert list(library.catalogue.documents(np.array([999_998]))) == []
