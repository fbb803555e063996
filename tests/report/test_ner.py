"""The shipped recogniser, its file, and what becomes of what it finds in a report."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medsearch_desktop.config import load_config
from medsearch_desktop.errors import ModelError
from medsearch_desktop.records import Category, Entity
from medsearch_desktop.report import ner
from medsearch_desktop.report.entities import PIPELINE_VERSION, EntityExtractor
from medsearch_desktop.report.linking import FLOOR, Linker
from medsearch_desktop.report.ner import (
    NAME,
    Recogniser,
    build_pipeline,
    load_recogniser,
    load_shipped_recogniser,
    open_recogniser,
    shipped_file,
    tokens_of,
    write_recogniser,
)
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.report.recognise import Recognition
from medsearch_desktop.workbench import Workbench

# Neither disease nor drug is in the lexicon; both are written for this test.
REPORT = (
    "INDICATION: Rule out neurosarcoidosis.\n"
    "FINDINGS: Patient with rheumatoid arthritis under methotrexate. No evidence of hepatic encephalopathy. "
    "Small left pleural effusion."
)


@pytest.fixture(scope="module")
def own() -> Recogniser:
    return load_shipped_recogniser()


@pytest.fixture(scope="module")
def linker() -> Linker:
    return Linker()


@pytest.fixture(scope="module")
def reader(own: Recogniser, linker: Linker) -> ReportReader:
    return ReportReader(extractor=EntityExtractor(linker=linker, recognition=Recognition(own, [], linker)))


@pytest.fixture(scope="module")
def plain(linker: Linker) -> ReportReader:
    return ReportReader(extractor=EntityExtractor(linker=linker))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The file of the recogniser, damaged among its weights: what describes it is before them, what lists it behind."""
    whole = bytearray(shipped_file().read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 100] = bytes(100)
    (tmp_path / "broken.npz").write_bytes(whole)
    return tmp_path / "broken.npz"


def recognised(reader: ReportReader, text: str) -> list[Entity]:
    found = [entity for entity in reader.read(text, report_id="r").entities if "ner/" in entity.rule]
    assert all(text[entity.start : entity.end] == entity.text for entity in found)
    return found


def test_tokens_are_cut_as_the_corpora_cut_theirs() -> None:
    words, starts = tokens_of("Crohn's (5-FU) 3.5 mg_x, β2")
    assert words == ("Crohn", "'", "s", "(", "5", "-", "FU", ")", "3", ".", "5", "mg", "_", "x", ",", "β2")
    assert starts[:3] == (0, 5, 6)
    assert tokens_of("") == ((), ())


def test_diseases_and_drugs_with_their_places(own: Recogniser) -> None:
    text = "Patients with hepatic encephalopathy received lithium and cyclophosphamide."
    (found,) = own.find([text])
    said = [(text[each.start : each.end], each.label) for each in found]
    assert ("hepatic encephalopathy", "DISEASE") in said
    assert ("lithium", "CHEMICAL") in said
    assert own.find(["", text, "\n"])[1] == found


def test_an_entity_says_who_found_it_and_what_is_said_of_it(reader: ReportReader) -> None:
    found = {entity.text: entity for entity in recognised(reader, REPORT)}
    encephalopathy = found["hepatic encephalopathy"]
    assert encephalopathy.rule.startswith(f"ner/{NAME} + ")
    assert (str(encephalopathy.assertion), encephalopathy.section) == ("absent", "FINDINGS")
    assert encephalopathy.cue == "No evidence of"
    assert encephalopathy.icd10cm == "K76.82"
    assert FLOOR <= encephalopathy.score <= 1.0
    assert encephalopathy.category is Category.DIAGNOSIS
    drug = found["methotrexate"]
    assert (drug.category, drug.icd10cm, drug.rule) == (Category.DRUG, "", f"ner/{NAME}")
    assert REPORT[encephalopathy.sentence_start : encephalopathy.sentence_end].startswith("No evidence")


def test_what_the_lexicon_finds_stays_as_it_was(reader: ReportReader, plain: ReportReader) -> None:
    texts = [REPORT, "No hepatic encephalopathy, effusion or methotrexate pneumonitis; stable cardiomegaly."]
    for text in texts:
        more, less = (each.read(text, report_id="r").entities for each in (reader, plain))
        assert [entity for entity in more if "ner/" not in entity.rule] == list(less)
        assert len(more) > len(less)
        spans = [(entity.start, entity.end) for entity in more if "ner/" in entity.rule]
        assert len(spans) == len(set(spans))


def test_capitals_do_not_matter(reader: ReportReader) -> None:
    (found,) = recognised(reader, "IMPRESSION: HISTORY OF MYASTHENIA GRAVIS.")
    assert found.text == "MYASTHENIA GRAVIS"
    assert str(found.assertion) == "historical"
    assert found.icd10cm.startswith("G70.0")


def test_an_ordinary_report_is_not_even_asked_about(linker: Linker) -> None:
    class Silent:
        name = "silent"
        heads = load_shipped_recogniser().heads
        plain = load_shipped_recogniser().plain

        def find(self, texts):
            raise AssertionError(texts)

    reader = ReportReader(extractor=EntityExtractor(linker=linker, recognition=Recognition(Silent(), [], linker)))
    text = "FINDINGS: The lungs are clear. No pleural effusion or pneumothorax. Heart size is normal."
    assert reader.read(text, report_id="r").entities
    with pytest.raises(AssertionError, match="neurosarcoidosis"):
        reader.read("FINDINGS: neurosarcoidosis.", report_id="r")


def test_abbreviations_of_what_was_recognised(reader: ReportReader) -> None:
    text = "FINDINGS: Hepatic encephalopathy (HEC) is known. HEC is not worse."
    short = [entity for entity in recognised(reader, text) if entity.text == "HEC"]
    assert len(short) == 2
    assert {(entity.icd10cm, entity.rule.split(" + ")[0]) for entity in short} == {("K76.82", "abbreviation")}


def test_signatures_and_headers_are_not_read(reader: ReportReader) -> None:
    text = "Accession: methotrexate 12345\nFINDINGS: Clear.\nELECTRONICALLY SIGNED BY: Dr. Methotrexate Arthritis"
    assert recognised(reader, text) == []


@pytest.mark.parametrize("text", ["", "\x00\ud800 neurosarcoidosis \ud800", "ſarcoidoſis ㎎ " * 50, "(" * 500])
def test_odd_texts_are_read(reader: ReportReader, text: str) -> None:
    recognised(reader, text)


def test_threads_agree(reader: ReportReader) -> None:
    texts = [f"{REPORT} Neurosarcoidosis{'x' * number} too." for number in range(12)]
    alone = [reader.read(text, report_id="r").entities for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: reader.read(text, report_id="r").entities, texts))
    assert together == alone


def test_the_vocabulary_does_not_grow_with_the_reports() -> None:
    recogniser = load_recogniser(shipped_file())
    strings = recogniser._nlp.vocab.strings
    recogniser.find(["One sentence."])
    before = len(strings)
    recogniser.find([f"Neverseen{number} arthritis word{number}." for number in range(300)])
    assert len(strings) <= before + 5


def test_its_file_is_small_and_comes_back_the_same(own: Recogniser, tmp_path: Path) -> None:
    assert shipped_file().stat().st_size < 15_000_000
    with np.load(shipped_file(), allow_pickle=False) as archive:
        told = json.loads(archive["description"].tobytes())
    copies = [tmp_path / name for name in ("one.npz", "two.npz")]
    for copy in copies:
        write_recogniser(
            copy,
            own._nlp,
            architecture=told["architecture"],
            labels=told["labels"],
            heads=told["heads"],
            plain=told["plain"],
        )
    assert copies[0].read_bytes() == copies[1].read_bytes()
    text = "Rheumatoid arthritis under methotrexate."
    assert load_recogniser(copies[0]).find([text]) == own.find([text])


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    whole = shipped_file().read_bytes()
    broken = tmp_path / "broken.npz"
    for content in (b"", b"none", whole[:5000], whole[: len(whole) // 2]):
        broken.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.npz: is not a whole recogniser .*\. Install MedSearch"):
            load_recogniser(broken)
    with pytest.raises(ModelError, match=r"none\.npz: cannot be read"):
        load_recogniser(tmp_path / "none.npz")
    np.savez(broken, description=np.frombuffer(b'{"format": 2}', np.uint8))
    with pytest.raises(ModelError, match="is not of format 1"):
        load_recogniser(broken)


def test_a_damaged_file_is_told_whenever_it_is_asked(broken: Path) -> None:
    recogniser = open_recogniser(broken)
    linker = Linker()
    reader = ReportReader(extractor=EntityExtractor(linker=linker, recognition=Recognition(recogniser, [], linker)))
    assert reader.read("FINDINGS: Small left pleural effusion.", report_id="r").entities
    for _ in range(2):
        with pytest.raises(ModelError, match=r"broken\.npz: is not a whole recogniser"):
            reader.read("FINDINGS: No hepatic encephalopathy.", report_id="r")
    with pytest.raises(ModelError, match=r"broken\.npz: is not a whole recogniser"):
        recogniser.load()


def test_threads_may_ask_it_first(linker: Linker) -> None:
    recogniser = open_recogniser(shipped_file())
    reader = ReportReader(extractor=EntityExtractor(linker=linker, recognition=Recognition(recogniser, [], linker)))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: recognised(reader, REPORT), range(8)))
    assert found[0]
    assert all(each == found[0] for each in found)


def test_a_model_of_another_size_is_refused(own: Recogniser, tmp_path: Path) -> None:
    with np.load(shipped_file(), allow_pickle=False) as archive:
        told = json.loads(archive["description"].tobytes())
    other = json.loads(json.dumps(told["architecture"]))
    other["hidden_width"] = 32
    write_recogniser(
        tmp_path / "odd.npz",
        build_pipeline(other, told["labels"]),
        architecture=told["architecture"],
        labels=told["labels"],
        heads=[],
        plain=[],
    )
    with pytest.raises(ModelError, match="has the shape"):
        load_recogniser(tmp_path / "odd.npz")


def test_the_setting_decides_who_is_asked() -> None:
    benches = {
        name: Workbench(load_config({"recognisers": name}, environ={})) for name in ("extract", "always", "never")
    }
    versions = {name: (bench.reader.version, bench.extractor.version) for name, bench in benches.items()}
    asked = f"{PIPELINE_VERSION}+{NAME}"
    assert versions == {
        "extract": (PIPELINE_VERSION, asked),
        "always": (asked, asked),
        "never": (PIPELINE_VERSION, PIPELINE_VERSION),
    }
    report = benches["extract"].report(REPORT.encode(), name="r.txt")
    assert any("ner/" in entity.rule for entity in report.entities)


def test_where_all_are_asked_a_damaged_recogniser_is_told_before_the_first_report(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ner, "shipped_file", lambda: broken)
    load_shipped_recogniser.cache_clear()
    try:
        bench = Workbench(load_config({"recognisers": "extract"}, environ={}))
        assert bench.report(b"FINDINGS: Small left pleural effusion.", name="r.txt").entities
        with pytest.raises(ModelError, match=r"broken\.npz: is not a whole recogniser"):
            _ = Workbench(load_config({"recognisers": "always"}, environ={})).reader
    finally:
        load_shipped_recogniser.cache_clear()
