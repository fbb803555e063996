"""The table of filters: its SQL on a real database, its sentences, and that no row is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import duckdb
import pytest

import medsearch_desktop.store
from medsearch_desktop.search.filters import BY_NAME, CHOICES, FILTERS, Kind, describe, icd_code, to_sql
from medsearch_desktop.search.query import Tree, parse, unparse
from medsearch_desktop.search.text import matching_documents
from medsearch_desktop.store.fulltext import COUNTED_FIELDS, KEYWORD_FIELDS, TEXT_FIELDS, FulltextIndex

# study, patient, sex, age, accession, study id, date, description, report text, entities, labels, images;
# an image is its modality, view, body part, laterality, manufacturer.
EFFUSION = ("J90", "Pleural effusion, not elsewhere classified", "Effusion", "{}", "Diagnosis", "pleural effusion")
STUDIES = [
    ("1.1", "P1", "F", 64.0, "A1", "S1", date(2024, 2, 3), "CHEST 2 VIEWS", "Small pleural effusion.", "present",
     {"study": ["Teaching"]}, [("CR", "PA", "CHEST", "", "SIEMENS"), ("CR", "LL", "CHEST", "", "SIEMENS")]),
    ("1.2", "P2", "M", 60.5, "A2", "S1", date(2024, 7, 1), "CHEST PORTABLE", "No pleural effusion. Pneumothorax.",
     "absent", {"image": ["follow up"]}, [("DX", "AP", "chest ", "", "GE Healthcare")]),
    ("1.3", "P1_", "F", 18.0, "", "", date(2023, 12, 31), "HAND", None, None,
     {"series": ["50%"]}, [("DX", "AP", "HAND", "L", "GE Healthcare")]),
    ("1.4", "", "", None, "A'4", "", None, "", "Clear lungs.", None,
     {"report": ["teaching"]}, [("CT", "", "", "R", ""), ("CT", "", "CHEST", "R", "")]),
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[duckdb.DuckDBPyConnection, FulltextIndex]:
    """A database of the real schema with the images above, and the index of their documents."""
    connection = duckdb.connect()
    connection.execute((Path(medsearch_desktop.store.__file__).parent / "schema.sql").read_text("utf-8"))
    documents = []
    image_no = 0
    for number, row in enumerate(STUDIES):
        uid, patient, sex, age, accession, study_id, day, description, text, assertion, labels, shots = row
        connection.execute(
            "INSERT INTO studies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [number, uid, patient, sex, age, accession, study_id, day, description],
        )
        entities = [tuple(part.format(assertion) for part in EFFUSION)] if assertion else []
        if text is not None:
            connection.execute(
                "INSERT INTO reports (report_no, report_id, study_uid, link_rule, path, encoding, text, sections,"
                " pipeline_version, language) VALUES (?, ?, ?, 'folder', '', 'utf-8', ?, [], '1', 'en')",
                [number, f"R{number}", uid, text],
            )
            for code, title, finding, said, category, mention in entities:
                connection.execute(
                    "INSERT INTO entities VALUES (?, 0, ?, 0, 0, '', ?, ?, ?, '', ?, ?, 1, '[]', '', -1, -1, '[]', "
                    "'certain', false, '', -1, -1)",
                    [number, mention, category, said, finding, code, title],
                )
        for at, (modality, view, body, side, maker) in enumerate(shots):
            connection.execute(
                "INSERT INTO series VALUES (?, ?, ?, 1, '', ?, ?, ?)", [f"{uid}.{at}", uid, modality, body, side, maker]
            )
            connection.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, '', 0, 1, 1, ?, '', '', ?, 1, 1, 8, '', '')",
                [image_no, f"{uid}.{at}.1", f"{uid}.{at}.1", uid, f"{uid}.{at}", modality, view],
            )
            image_no += 1
        targets = {"study": uid, "series": f"{uid}.0", "image": f"{uid}.0.1", "report": f"R{number}"}
        for kind, names in labels.items():
            for name in names:
                connection.execute("INSERT INTO labels VALUES (?, ?, ?)", [kind, targets[kind], name])
        documents.append(
            {
                "doc_no": number,
                "report_id": None if text is None else f"R{number}",
                "study_uid": uid,
                "text": text or "",
                "sections": [("FINDINGS", 0, len(text or ""))],
                "patient_id": patient,
                "accession_number": accession,
                "study_id": study_id,
                "study_date": day,
                "study_description": description,
                "patient_sex": sex,
                "patient_age": age,
                "modalities": sorted({shot[0] for shot in shots}),
                "view_positions": sorted({shot[1] for shot in shots}),
                "body_parts": sorted({shot[2] for shot in shots}),
                "lateralities": sorted({shot[3] for shot in shots}),
                "manufacturers": sorted({shot[4] for shot in shots}),
                "labels": [name for names in labels.values() for name in names],
                "image_count": len(shots),
                "entities": entities,
            }
        )
    index = FulltextIndex(tmp_path_factory.mktemp("index"))
    index.update(documents, watermark=1)
    return connection, index


def chosen(library: tuple[duckdb.DuckDBPyConnection, FulltextIndex], query: str) -> str:
    connection, index = library

    def matching_studies(tree: Tree) -> Sequence[str]:
        return [STUDIES[number][0] for number in matching_documents(index, tree)]

    where, parameters = to_sql(parse(query), matching_studies=matching_studies)
    rows = connection.execute(
        "SELECT i.image_no FROM images i JOIN series se USING (series_uid) JOIN studies s ON s.study_uid = i.study_uid"
        f" WHERE {where} ORDER BY i.image_no",
        parameters,
    ).fetchall()
    return " ".join(str(image_no) for (image_no,) in rows)


@pytest.mark.parametrize(
    ("query", "images_chosen"),
    [
        ("", "0 1 2 3 4 5"),
        ("modality:cr", "0 1"),
        ("modality:(CR OR CT)", "0 1 4 5"),
        ("NOT modality:CR", "2 3 4 5"),
        ("view:PA", "0"),
        ("view:P*", "0"),
        ("body:chest", "0 1 2 5"),
        ("laterality:R", "4 5"),
        ("side:l", "3"),
        ("sex:female", "0 1 3"),
        ("age:>60", "0 1 2"),
        ("age:60", "2"),
        ("age:18..60", "3"),
        ("NOT age:>60", "3 4 5"),
        ("date:2024", "0 1 2"),
        ("date:2023-12..2024-02", "0 1 3"),
        ("-date:2024", "3 4 5"),
        ("patient:p1", "0 1"),
        ("patient:P1*", "0 1 3"),
        ("patient:P1_*", "3"),
        ("accession:A'4", "4 5"),
        ('accession:"x\' OR TRUE --"', ""),
        ("study:S1", "0 1 2"),
        ("study:1.3", "3"),
        ("report:r1", "2"),
        ("label:teaching", "0 1 4 5"),
        ('label:"follow up"', "2"),
        ("label:50%", "3"),
        ("label:5%", ""),
        ("has:report", "0 1 2 4 5"),
        ("-has:report", "3"),
        ("has:label", "0 1 2 3 4 5"),
        ("has:finding", "0 1 2"),
        ("has:date", "0 1 2 3"),
        ("has:age", "0 1 2 3"),
        ("has:image", "0 1 2 3 4 5"),
        ("effusions", "0 1 2"),
        ('"pleural effusion" view:AP', "2"),
        ("effusion -pneumothorax", "0 1"),
        ("effusion OR hand", "0 1 2 3"),
        ("-effusion", "3 4 5"),
        ("findings:effus*", "0 1 2"),
        ("icd:J90", "0 1 2"),
        ('present:"pleural effusion"', "0 1"),
        ("absent:effusion", "2"),
        ("NOT absent:J90 modality:DX", "3"),
        ("description:portable", "2"),
        ("manufacturer:ge", "2 3"),
        ("(effusion view:PA) OR laterality:L", "0 3"),
        ("like:1.1.0.1 modality:DX", "2 3"),
    ],
)
def test_sql(images: tuple[duckdb.DuckDBPyConnection, FulltextIndex], query: str, images_chosen: str):
    assert chosen(images, query) == images_chosen


def test_nothing_of_the_question_is_in_the_sql():
    tree = parse('patient:"Robert\'); DROP" secretword age:>60 date:2024 label:"$f9 {match}"')
    where, parameters = to_sql(tree, matching_studies=lambda _: ["1.1"], name="w")
    for word in ("Robert", "secretword", "60", "2024", "f9", "{"):
        assert word not in where
    assert set(parameters) == {f"w{number}" for number in range(len(parameters))}
    assert all(f"${name}" in where for name in parameters)


def test_text_parts_are_asked_together():
    asked: list[str] = []

    def matching_studies(tree: Tree) -> list[str]:
        asked.append(unparse(tree))
        return []

    to_sql(parse("effusion modality:CR impression:clear (a OR b) NOT c"), matching_studies=matching_studies)
    assert asked == ["effusion impression:clear (a OR b) NOT c"]
    asked.clear()
    to_sql(parse("NOT (effusion modality:CR)"), matching_studies=matching_studies)
    assert asked == ["effusion"]


def test_every_row_is_whole():
    known = {*TEXT_FIELDS, *KEYWORD_FIELDS, *COUNTED_FIELDS, "states", "age", "day"}
    names = [name for row in FILTERS for name in (row.key, *row.aliases)]
    assert len(names) == len(set(names)) == len(BY_NAME)
    for row in FILTERS:
        assert set(row.index) <= known
        assert row.help
        assert "{value}" in row.reads
        assert "{value}" in row.reads_not
        assert ("{match}" in row.sql) == (row.kind in (Kind.KEYWORD, Kind.NUMBER, Kind.DATE))
        for name in (row.key, *row.aliases):
            assert name == name.lower()


def test_the_examples_of_the_help_are_queries():
    for row in FILTERS:
        for example in [part.strip(" ,") for part in row.help.split(": ", 1)[-1].split(", ")]:
            if example.startswith(f"{row.key}:"):
                parse(example.partition(" (")[0])
    assert all(parse(f"has:{choice}") for choice in CHOICES)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "Everything in the library."),
        ("effusion", 'Contains "effusion".'),
        ("NOT effusion", 'Does not contain "effusion".'),
        ("effus* modality:CR", 'Contains a word that begins with "effus" and modality is CR.'),
        (
            "effusion -edema age:>60 date:2024",
            'Contains "effusion", does not contain "edema", age over 60 and dated from 2024-01-01 to 2024-12-31.',
        ),
        ("modality:CR OR -view:PA", "Either modality is CR or view is not PA."),
        ("(a OR b) c", '(either contains "a" or contains "b") and contains "c".'),
        ("NOT (a b)", 'Not (contains "a" and contains "b").'),
        ("NOT NOT a", 'Contains "a".'),
        ("NOT NOT NOT a", 'Does not contain "a".'),
        ("NOT NOT (a b)", 'Contains "a" and contains "b".'),
        ('present:"pleural effusion"', '"pleural effusion" is present.'),
        ("absent:J93 icd:J18.9", "J93 is ruled out and the report mentions ICD-10-CM J18.9."),
        ("impression:clear", 'The IMPRESSION section contains "clear".'),
        ("age:60", "Age 60."),
        ("age:<=5.5", "Age 5.5 or under."),
        ("age:20..40", "Age from 20 to 40."),
        ("date:2024-03-05", "Dated on 2024-03-05."),
        ("date:<2024", "Dated up to 2023-12-31."),
        ("patient:P1*", "Patient is P1...."),
        ("-has:report", "Does not have a report."),
        ("like:a.dcm", 'Looks like "a.dcm".'),
    ],
)
def test_sentences(query: str, sentence: str):
    assert describe(parse(query)) == sentence


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(("j18.9", "J18.9"), ("J189", "J18.9"), ("J18", "J18"), ("S22.39XA", "S22.39XA"), ("s2239xa", "S22.39XA")),
        *(("C7A.090", "C7A.090"), ("J1", None), ("effusion", None), ("J18.", "J18"), ("12.3", None)),
        ("J18.99999", None),
    ],
)
def test_icd_codes(text: str, code: str | None):
    assert icd_code(text) == code
