"""What a person keeps in a library: saved searches, teaching lists, their export and its way to another library."""

from __future__ import annotations

import csv
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from makers import Film, dataset, uid, write_department
from PIL import Image as Raster
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement

from medsearch_desktop.errors import ListError, NotFoundError, QueryError, RequestError, StorageFullError
from medsearch_desktop.handout import PICTURE_SIDE
from medsearch_desktop.library import Library, open_library
from medsearch_desktop.store import lists as store_lists

STUDY, OTHER = uid(1, 1), uid(1, 2)
IMAGE = uid(1, 2, 1)
HOSTILE = "<img src=x onerror=alert(1)> \"'&; DROP TABLE teaching_lists"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    source = write_department(folder / "source", studies=4)
    # What must not leave, wherever a header may hold it; and an age that is told as "over 89".
    ds = dataset(Film(patient=9, study=9, age="093Y", date="20231231", size=1500))
    ds.PatientName, ds.PatientID, ds.StudyDescription = "Secret^Name", "SECRETID", "Chest of Secret Name"
    ds.AccessionNumber = "SECRETACC"
    ds["BodyPartExamined"] = DataElement("BodyPartExamined", "CS", "Secret, name", validation_mode=IGNORE)
    ds.save_as(source / "SECRETFILE.dcm", enforce_file_format=True)
    with open_library(folder / "library", create=True) as library:
        library.ingest([source])
    return folder


@pytest.fixture
def library(made: Path, tmp_path: Path) -> Iterator[Library]:
    shutil.copytree(made / "library", tmp_path / "library")
    with open_library(tmp_path / "library") as opened:
        yield opened


def names(library: Library) -> list[str]:
    return [each.name for each in library.lists.teaching()]


def targets(library: Library, name: str) -> list[str]:
    return [each.target_id for each in library.lists.teaching_list(name)[1]]


# Saved searches


def test_a_question_is_kept_changed_and_forgotten(library: Library) -> None:
    kept = library.lists.save("  Effusions \n now ", " present:effusion ", sort="date", note="for\nMonday")
    assert (kept.name, kept.question, kept.sort, kept.note) == (
        "Effusions now",
        "present:effusion",
        "date",
        "for\nMonday",
    )
    assert library.lists.saved_search("EFFUSIONS NOW") == kept
    changed = library.lists.change_saved("effusions now", to="Effusions", note="")
    assert (changed.name, changed.question, changed.note, changed.created_at) == (
        "Effusions",
        "present:effusion",
        "",
        kept.created_at,
    )
    assert library.lists.change_saved("Effusions", to="EFFUSIONS").name == "EFFUSIONS"
    library.lists.save("Another", "")
    assert [each.name for each in library.lists.saved()] == ["Another", "EFFUSIONS"]
    library.lists.forget_saved("effusions")
    with pytest.raises(NotFoundError):
        library.lists.forget_saved("effusions")


def test_a_question_that_cannot_be_read_is_not_kept(library: Library) -> None:
    for question in ("(effusion", "nofield:x", "age:old"):
        with pytest.raises(QueryError):
            library.lists.save("bad", question)
    library.lists.save("good", "effusion")
    with pytest.raises(QueryError):
        library.lists.change_saved("good", question="(")
    assert [each.question for each in library.lists.saved()] == ["effusion"]


def test_a_name_is_taken_once(library: Library) -> None:
    library.lists.save("One", "a")
    library.lists.save("Two", "b")
    with pytest.raises(ListError, match="already"):
        library.lists.save("one", "c")
    with pytest.raises(ListError, match="already"):
        library.lists.change_saved("Two", to="ＯＮＥ")
    assert [(each.name, each.question) for each in library.lists.saved()] == [("One", "a"), ("Two", "b")]


@pytest.mark.parametrize("name", ["", " \t\n", "a" * 201, "right\u202eleft", "bell\x07", "half \ud800"])
def test_a_name_is_text_that_can_be_shown(library: Library, name: str) -> None:
    with pytest.raises(RequestError):
        library.lists.save(name, "effusion")
    with pytest.raises(RequestError):
        library.lists.create_teaching(name)


def test_a_hostile_name_is_text(library: Library) -> None:
    library.lists.save(HOSTILE, "effusion")
    library.lists.add_entry(HOSTILE, "study", STUDY, note=HOSTILE)
    assert [each.name for each in library.lists.saved()] == [HOSTILE] == names(library)
    library.lists.remove_teaching(HOSTILE)
    assert names(library) == []


@pytest.mark.parametrize("note", ["a" * 4001, "nul \0", "half \ud800"])
def test_a_note_has_limits(library: Library, note: str) -> None:
    with pytest.raises(RequestError):
        library.lists.create_teaching("list", note=note)
    with pytest.raises(RequestError):
        library.lists.save("name", "effusion", note=note)
    with pytest.raises(RequestError):
        library.lists.save("name", "effusion", sort="size")


# Teaching lists


def test_entries_have_an_order_that_can_be_changed(library: Library) -> None:
    studies = [uid(1, 1), uid(1, 2), uid(2, 3), uid(2, 4)]
    ids = [library.lists.add_entry("basics", "study", study) for study in studies]
    assert targets(library, "Basics") == studies
    library.lists.change_entry(ids[0], place=3)
    assert targets(library, "basics") == [studies[1], studies[2], studies[0], studies[3]]
    library.lists.change_entry(ids[3], place=1)
    assert targets(library, "basics") == [studies[3], studies[1], studies[2], studies[0]]
    library.lists.change_entry(ids[3], place=1_000_000)
    assert targets(library, "basics") == [studies[1], studies[2], studies[0], studies[3]]
    library.lists.remove_entry(ids[2])
    library.lists.change_entry(ids[3], place=2, note="look\nhere")
    opened, entries = library.lists.teaching_list("basics")
    assert [each.target_id for each in entries] == [studies[1], studies[3], studies[0]]
    assert [each.note for each in entries] == ["", "look\nhere", ""]
    assert (opened.entries, opened.missing) == (3, 0)


def test_an_entry_shows_what_it_is(library: Library) -> None:
    library.lists.add_entry("basics", "study", STUDY)
    library.lists.add_entry("basics", "image", IMAGE)
    study, image = library.lists.teaching_list("basics")[1]
    assert (study.study_uid, study.images, study.view_positions) == (STUDY, 2, ("LL", "PA"))
    assert study.image_ids == (uid(1, 1, 1), uid(1, 1, 2))
    assert (image.study_uid, image.images, image.image_ids, image.modalities) == (OTHER, 1, (IMAGE,), ("CR",))


def test_what_cannot_be_listed_is_refused(library: Library) -> None:
    with pytest.raises(NotFoundError):
        library.lists.add_entry("basics", "study", "1.2.3")
    with pytest.raises(RequestError):
        library.lists.add_entry("basics", "report", "s50000001")
    assert names(library) == []
    library.lists.add_entry("basics", "study", STUDY)
    with pytest.raises(ListError, match="already"):
        library.lists.add_entry("basics", "study", STUDY)
    for change in (library.lists.remove_entry, lambda entry: library.lists.change_entry(entry, place=1)):
        with pytest.raises(NotFoundError):
            change("no such entry")
    with pytest.raises(NotFoundError):
        library.lists.change_entry("no such entry", note="x")
    with pytest.raises(NotFoundError):
        library.lists.teaching_list("another")


def test_a_list_is_full_at_its_limit(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lists, "MOST_ENTRIES", 1)
    library.lists.add_entry("basics", "study", STUDY)
    with pytest.raises(ListError, match="at most 1"):
        library.lists.add_entry("basics", "study", OTHER)


def test_lists_are_renamed_and_removed_with_their_entries(library: Library) -> None:
    library.lists.add_entry("one", "study", STUDY)
    library.lists.create_teaching("two", note="n")
    with pytest.raises(ListError):
        library.lists.change_teaching("two", to="ONE")
    with pytest.raises(ListError):
        library.lists.create_teaching("One")
    assert library.lists.change_teaching("one", to="First", note="x").entries == 1
    assert names(library) == ["First", "two"]
    library.lists.remove_teaching("first")
    library.lists.create_teaching("first")
    assert targets(library, "first") == []


def test_threads_that_add_at_once_lose_nothing(library: Library) -> None:
    studies = [uid(1, 1), uid(1, 2), uid(2, 3), uid(2, 4), uid(9, 9)]
    with ThreadPoolExecutor(len(studies)) as pool:
        list(pool.map(lambda study: library.lists.add_entry("basics", "study", study), studies))
    assert sorted(targets(library, "basics")) == sorted(studies)
    positions = library.lists._teaching._database.read("SELECT position FROM teaching_entries ORDER BY position")
    assert positions == [(number,) for number in range(len(studies))]


def test_an_entry_outlives_its_source(made: Path, tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=1)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        library.lists.add_entry("basics", "study", STUDY, note="kept")
        library.lists.add_entry("basics", "image", uid(1, 1, 1))
        library.forget_source(str(source))
        opened, entries = library.lists.teaching_list("basics")
        assert (opened.entries, opened.missing) == (2, 2)
        assert [(each.missing, each.note, each.study_uid) for each in entries] == [(True, "kept", ""), (True, "", "")]
        assert library.lists.export_folder("basics", tmp_path / "out") == 2
        rows = json.loads((tmp_path / "out" / "list.json").read_text())["entries"]
        assert [(row["missing"], row["note"]) for row in rows] == [(True, "kept"), (True, "")]
        library.ingest([source])
        assert library.lists.teaching_list("basics")[0].missing == 0


def test_lists_are_there_after_the_library_was_closed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "library", tmp_path / "library")
    with open_library(tmp_path / "library") as library:
        library.lists.save("q", "effusion")
        library.lists.add_entry("basics", "study", STUDY)
    with open_library(tmp_path / "library") as library:
        assert [each.name for each in library.lists.saved()] == ["q"]
        assert targets(library, "basics") == [STUDY]


# Labels of every kind


@pytest.mark.parametrize(
    ("kind", "target"), [("study", STUDY), ("series", uid(1, 1, 0)), ("image", uid(1, 1, 2)), ("report", "s50000001")]
)
def test_a_label_on_any_part_finds_its_study(library: Library, kind: str, target: str) -> None:
    library.label(kind, target, "odd one")
    answer = library.search('label:"odd one"')
    assert [hit.study_uid for hit in answer.hits] == [STUDY]
    assert answer.total == library.search("has:label").total == 1
    assert [(each.target_kind, each.target_id) for each in library.lists.labelled("odd one")] == [(kind, target)]
    assert library.lists.labels() == {"odd one": 1}
    # Image by image, a label of an image is that image's alone; others are of all images of theirs.
    found = {hit.image_id for hit in library.similar(IMAGE, where='label:"odd one"').hits}
    assert found == ({target} if kind == "image" else {uid(1, 1, 1), uid(1, 1, 2)})
    library.unlabel(kind, target, "odd one")
    assert library.search('label:"odd one"').total == 0


# Handing over


def exported(library: Library, folder: Path, **asked: Any) -> dict[str, Any]:
    library.lists.export_folder("basics", folder, **asked)
    document: dict[str, Any] = json.loads((folder / "list.json").read_text("utf-8"))
    return document


def test_what_is_exported_names_no_patient(library: Library, tmp_path: Path) -> None:
    library.lists.add_entry("basics", "study", uid(9, 9), note="mine")
    library.lists.add_entry("basics", "study", STUDY)
    document = exported(library, tmp_path / "out")
    row = document["entries"][0]
    assert (row["sex"], row["age"], row["year"], row["note"]) == ("F", "over 89", 2023, "mine")
    assert [(p["modality"], p["view_position"], p["body_part"]) for p in row["pictures"]] == [("CR", "PA", "")]
    assert "reports" not in row
    held = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for path in held:
        content = path.read_bytes().lower()
        for secret in (b"secret", b"20231231", b"2023-12-31", b"p0001", b"a00001", b"1.2.826", b"s50000001", b"image1"):
            assert secret not in content, (path.name, secret)
        assert not re.search("secret|1\\.2\\.826|p0001", str(path.relative_to(tmp_path)).lower())
    assert {path.relative_to(tmp_path / "out").as_posix() for path in held} == {
        "list.json",
        "list.csv",
        "index.html",
        "pictures/0001-01.png",
        "pictures/0002-01.png",
        "pictures/0002-02.png",
    }


def test_pictures_are_the_frames_no_larger_than_said(library: Library, tmp_path: Path) -> None:
    library.lists.add_entry("basics", "study", uid(9, 9))
    library.lists.add_entry("basics", "image", IMAGE)
    exported(library, tmp_path / "out")
    with Raster.open(tmp_path / "out" / "pictures" / "0001-01.png") as large:
        assert (large.size, large.format) == ((PICTURE_SIDE, PICTURE_SIDE), "PNG")
        assert large.info == {}
    assert (tmp_path / "out" / "pictures" / "0002-01.png").read_bytes() == library.holdings.frame_picture(IMAGE)


def test_codes_come_from_the_reports_and_their_text_only_when_asked(library: Library, tmp_path: Path) -> None:
    library.lists.add_entry("basics", "study", uid(2, 4))
    document = exported(library, tmp_path / "out")
    codes = [(code["code"], code["assertion"]) for code in document["entries"][0]["codes"]]
    assert ("J90", "present") in codes
    assert ("J93.9", "absent") in codes
    assert "Large left" not in (tmp_path / "out" / "index.html").read_text()
    with_text = exported(library, tmp_path / "text", with_reports=True)
    assert "Large left pleural effusion" in with_text["entries"][0]["reports"][0]
    for warnings, page in ((document["warnings"], "out"), (with_text["warnings"], "text")):
        html = (tmp_path / page / "index.html").read_text()
        assert all(warning.split(":")[0] in html for warning in warnings)
        assert any("burned into" in warning for warning in warnings)
        assert any("text of reports" in warning for warning in warnings) == (page == "text")
    with (tmp_path / "text" / "list.csv").open(encoding="utf-8-sig", newline="") as table:
        (row,) = csv.DictReader(table)
    assert "J90" in row["present"]
    assert "J93.9" in row["absent"]
    assert "Large left pleural effusion" in row["reports"]


class Tags(HTMLParser):
    """The elements of a page, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]


def test_the_page_runs_nothing_and_needs_nothing_else(library: Library, tmp_path: Path) -> None:
    library.lists.create_teaching("basics", note=f"</p><script>alert(2)</script>{HOSTILE}")
    library.lists.add_entry("basics", "study", STUDY, note=HOSTILE)
    library.lists.change_teaching("basics", to=HOSTILE)
    library.lists.export_folder(HOSTILE, tmp_path / "out", with_reports=True)
    read = Tags()
    read.feed((tmp_path / "out" / "index.html").read_text("utf-8"))
    assert read.tags.count("img") == 2
    assert not {"script", "iframe", "object", "link", "form", "a"} & set(read.tags)
    assert not [name for name in read.attributes if name.startswith("on")]
    assert all(address.startswith("data:image/png;base64,") for address in read.addresses)


def test_a_cell_is_no_formula(library: Library, tmp_path: Path) -> None:
    library.lists.add_entry("basics", "study", STUDY, note='=HYPERLINK("http://x")')
    exported(library, tmp_path / "out")
    with (tmp_path / "out" / "list.csv").open(encoding="utf-8-sig", newline="") as table:
        (row,) = csv.DictReader(table)
    assert row["note"] == '\'=HYPERLINK("http://x")'


def test_an_export_is_whole_or_not_there(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.lists.add_entry("basics", "study", STUDY)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ListError, match="something already"):
        library.lists.export_folder("basics", tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert library.lists.export_folder("basics", tmp_path / "empty") == 1
    before = sorted(tmp_path.iterdir())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medsearch_desktop.handout._write_table", full)
    for export, target in (
        (library.lists.export_folder, tmp_path / "none"),
        (library.lists.export_zip, tmp_path / "none.zip"),
    ):
        with pytest.raises(StorageFullError):
            export("basics", target)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_away_leaves_a_word_in_its_place(made: Path, tmp_path: Path) -> None:
    source = write_department(tmp_path / "source", studies=1)
    with open_library(tmp_path / "library", create=True) as library:
        library.ingest([source])
        library.lists.add_entry("basics", "study", STUDY)
        next(source.rglob("image1.dcm")).unlink()
        rows = exported(library, tmp_path / "out")["entries"][0]["pictures"]
    assert [each["file"] for each in rows] == ["", "pictures/0001-02.png"]
    assert "its file is away" in (tmp_path / "out" / "index.html").read_text()


def test_a_zip_holds_the_same(library: Library, tmp_path: Path) -> None:
    library.lists.add_entry("basics", "study", STUDY)
    library.lists.change_teaching("basics", to="../../Bäsics ")
    library.lists.export_folder("../../bäsics", tmp_path / "out")
    library.lists.export_zip("../../bäsics", tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"B-sics"}
        for path in (tmp_path / "out").rglob("*"):
            if path.is_file():
                assert archive.read(f"B-sics/{path.relative_to(tmp_path / 'out').as_posix()}") == path.read_bytes()


def test_an_export_is_taken_over_where_the_same_images_are(library: Library, made: Path, tmp_path: Path) -> None:
    library.lists.create_teaching("basics", note="first year")
    for kind, target, note in (("study", STUDY, "a"), ("image", IMAGE, ""), ("study", uid(2, 4), "c")):
        library.lists.add_entry("basics", kind, target, note=note)
    exported(library, tmp_path / "out")
    text = (tmp_path / "out" / "list.json").read_text()
    source = tmp_path / "there"
    write_department(source, studies=2)
    with open_library(tmp_path / "other", create=True) as other:
        other.ingest([source])
        brought = other.lists.import_teaching(text)
        assert (brought.name, brought.note, brought.entries, brought.missing) == ("basics", "first year", 3, 1)
        assert targets(other, "basics") == [STUDY, IMAGE, ""]
        assert [each.note for each in other.lists.teaching_list("basics")[1]] == ["a", "", "c"]
        with pytest.raises(ListError, match="already"):
            other.lists.import_teaching(text)
        assert other.lists.import_teaching(text, name="again").entries == 3
        # What comes in later takes its place.
        other.ingest([made / "source"])
        assert targets(other, "basics") == [STUDY, IMAGE, uid(2, 4)]
        assert other.lists.teaching_list("basics")[0].missing == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps({"format": "another", "name": "x", "entries": []}),
        json.dumps({"format": "medsearch teaching list 1", "name": "x", "entries": {}}),
        json.dumps({"format": "medsearch teaching list 1", "name": 7, "entries": []}),
        json.dumps({"format": "medsearch teaching list 1", "name": "x", "entries": ["x"]}),
        json.dumps({"format": "medsearch teaching list 1", "name": "x", "entries": [{"kind": "study"}]}),
        json.dumps(
            {"format": "medsearch teaching list 1", "name": "x", "entries": [{"kind": "study", "reference": "../x"}]}
        ),
        json.dumps(
            {"format": "medsearch teaching list 1", "name": "x", "entries": [{"kind": [], "reference": "0" * 64}]}
        ),
    ],
    ids=range(12),
)
def test_what_is_no_list_is_refused(library: Library, text: str) -> None:
    with pytest.raises(ListError, match=r"list\.json: is no teaching list"):
        library.lists.import_teaching(text, item="list.json")
    assert names(library) == []


def test_a_list_that_is_too_long_is_refused(library: Library) -> None:
    rows = [{"kind": "study", "reference": f"{number:064x}"} for number in range(2001)]
    text = json.dumps({"format": "medsearch teaching list 1", "name": "x", "entries": rows})
    with pytest.raises(ListError, match="2001 entries"):
        library.lists.import_teaching(text)
    text = json.dumps({"format": "medsearch teaching list 1", "name": "x", "entries": rows[:2000]})
    assert library.lists.import_teaching(text).missing == 2000
