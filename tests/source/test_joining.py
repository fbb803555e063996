"""Which study a report is joined to, over layouts met in archives; a wrong join is worse than none."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsearch_desktop.records import LinkRule
from medsearch_desktop.source.joining import ImageRow, StudyDirectory, report_keys, study_hint

UID_A, UID_B, UID_C = "1.2.840.113619.2.1.100", "1.2.840.113619.2.1.200", "1.2.840.113619.2.1.300"
FREE_TEXT = "FINAL REPORT\nFINDINGS: The lungs are clear.\nIMPRESSION: No acute disease.\n"


def image(path: str, uid: str = UID_A, *, accession: str = "", study_id: str = "", patient: str = "") -> ImageRow:
    return ImageRow(uid, accession, study_id, patient, f"/data/{path}")


@dataclass
class Case:
    images: list[ImageRow]
    report: str
    text: str = FREE_TEXT
    others: list[str] = field(default_factory=list)

    def find(self) -> tuple[str, LinkRule] | None:
        reports = [f"/data/{name}" for name in (self.report, *self.others)]
        keys = report_keys(reports[0], "/data", self.text)
        return StudyDirectory(self.images, reports).find(keys)


APART = [image("img/a/1.dcm", accession="A123", study_id="50414267"), image("img/b/1.dcm", UID_B, accession="B456")]


@pytest.mark.parametrize(
    "line",
    [
        f"StudyInstanceUID: {UID_A}",
        f"Study Instance UID {UID_A}",
        f"study_instance_uid={UID_A}",
        f"Study UID: {UID_A}.",
        f"SIUID: {UID_A}",
        f"(0020,000D) UI [{UID_A}]  # Study Instance UID",
        f"Patient: X    Study UID: {UID_A}    Date: 2020",
    ],
)
def test_stated_study_uid(line: str) -> None:
    assert Case(APART, "txt/x.txt", f"{line}\n{FREE_TEXT}").find() == (UID_A, LinkRule.STUDY_UID)


@pytest.mark.parametrize(
    "line",
    [
        "Accession Number: A123",
        "ACCESSION NUMBER:A123",
        "Accession #: A123",
        "Accession # A123",
        "Accession No. A123",
        "Accession No.: A123",
        "Accession: a123",
        "AccessionNumber = A123",
        "Acc. No: A123",
        "Acc #: A123",
        "Exam date: 2020-01-02   Accession Number: A123   Status: final",
        "Accession Number: A123, Status: final",
        "Accession Numbers: A123, X999",
        "Accession Number A123",
    ],
)
def test_stated_accession_number(line: str) -> None:
    assert Case(APART, "txt/x.txt", f"{line}\n{FREE_TEXT}").find() == (UID_A, LinkRule.ACCESSION_NUMBER)


@pytest.mark.parametrize("line", ["Study ID: 50414267", "StudyID: s50414267", "Study identifier = 50414267"])
def test_stated_study_id(line: str) -> None:
    assert Case(APART, "txt/x.txt", f"{line}\n{FREE_TEXT}").find() == (UID_A, LinkRule.STUDY_ID)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (f"{UID_A}.txt", LinkRule.STUDY_UID),
        (UID_A, LinkRule.STUDY_UID),
        (f"report_{UID_A}.txt", LinkRule.STUDY_UID),
        (f"{UID_A}/report.txt", LinkRule.STUDY_UID),
        ("A123.txt", LinkRule.ACCESSION_NUMBER),
        ("a123_report.txt", LinkRule.ACCESSION_NUMBER),
        ("A123/report.txt", LinkRule.ACCESSION_NUMBER),
        ("s50414267.txt", LinkRule.STUDY_ID),
        ("50414267.txt", LinkRule.STUDY_ID),
        ("s50414267/report.txt", LinkRule.STUDY_ID),
        ("chest-50414267.txt", LinkRule.STUDY_ID),
    ],
)
def test_named(name: str, rule: LinkRule) -> None:
    assert Case(APART, f"txt/{name}").find() == (UID_A, rule)


@pytest.mark.parametrize("name", ["x.txt", "report.txt", f"{UID_C}.txt", f"{UID_A}1.txt", f"9{UID_A}.txt", "A1234.txt"])
def test_nothing_to_go_by(name: str) -> None:
    assert Case(APART, f"txt/{name}").find() is None


def test_the_strongest_statement_wins() -> None:
    text = f"Accession Number: B456\nStudyInstanceUID: {UID_A}\n"
    assert Case(APART, "img/b/B456.txt", text).find() == (UID_A, LinkRule.STUDY_UID)
    assert Case(APART, "img/b/s50414267.txt", "Accession Number: B456").find() == (UID_B, LinkRule.ACCESSION_NUMBER)
    assert Case(APART, f"txt/{UID_B}.txt", f"Study UID: {UID_A}").find() == (UID_A, LinkRule.STUDY_UID)


def test_one_accession_number_of_two_studies_does_not_decide() -> None:
    images = [image("a/1.dcm", accession="A123"), image("b/1.dcm", UID_B, accession="A123")]
    assert Case(images, "txt/x.txt", "Accession Number: A123").find() is None
    assert Case(images, "b/x.txt", "Accession Number: A123").find() == (UID_B, LinkRule.FOLDER)
    assert Case(images, "txt/A123.txt").find() is None


def test_a_report_of_two_studies_is_given_to_neither() -> None:
    assert Case(APART, "txt/x.txt", "Accession Numbers: A123, B456").find() is None
    assert Case(APART, "txt/x.txt", "Accession Numbers: A123 and B456").find() is None
    assert Case(APART, "txt/x.txt", f"Study UID: {UID_A}\nStudy UID: {UID_B}").find() is None


def test_what_the_report_states_overrules_where_it_lies() -> None:
    assert Case(APART, "img/a/x.txt").find() == (UID_A, LinkRule.FOLDER)
    assert Case(APART, "img/a/x.txt", "Accession Number: Z999").find() is None
    assert Case(APART, "img/a/x.txt", f"Study UID: {UID_C}").find() is None
    assert Case(APART, "img/a/A123.txt", "Accession Number: Z999").find() is None
    no_accession = [image("img/a/1.dcm")]
    assert Case(no_accession, "img/a/x.txt", "Accession Number: Z999").find() == (UID_A, LinkRule.FOLDER)
    made_up = [image("img/a/1.png", "2.25.1234567")]
    assert Case(made_up, "img/a/x.txt", f"Study UID: {UID_C}").find() == ("2.25.1234567", LinkRule.FOLDER)


def test_identifiers_quoted_far_below_the_header_do_not_count() -> None:
    text = FREE_TEXT + "The lungs are clear. " * 400 + "\nComparison, Accession Number: A123"
    assert Case(APART, "txt/x.txt", text).find() is None


@pytest.mark.parametrize("blank", ["", "___", "N/A", "pending", "unknown", "to follow"])
def test_blank_identifiers_neither_join_nor_stand_against_a_join(blank: str) -> None:
    text = f"Accession Number: {blank}\nStudy ID: {blank}\nPatient ID: {blank}\nfractures acc. to prior CT 2\n"
    keys = report_keys("/data/x.txt", "/data", text)
    assert keys.stated.accession_numbers == ()
    assert keys.stated.study_ids == ()
    assert Case(APART, "img/a/x.txt", text).find() == (UID_A, LinkRule.FOLDER)


MIMIC = "files/p10/p10000032"


@pytest.mark.parametrize(("study_ids", "rule"), [(("50414267", "53189527"), LinkRule.STUDY_ID), (("", ""), None)])
def test_mimic_cxr(study_ids: tuple[str, str], rule: LinkRule | None) -> None:
    images = [
        image(f"{MIMIC}/s50414267/02aa804e-bde0afdd.dcm", study_id=study_ids[0], patient="10000032"),
        image(f"{MIMIC}/s50414267/174413ec-4ec4c1f7.dcm", study_id=study_ids[0], patient="10000032"),
        image(f"{MIMIC}/s53189527/2a2277a9-b0ded155.dcm", UID_B, study_id=study_ids[1], patient="10000032"),
    ]
    expected = rule or LinkRule.STUDY_ID
    others = [f"{MIMIC}/s53189527.txt", f"{MIMIC}/s53911762.txt"]
    assert Case(images, f"{MIMIC}/s50414267.txt", others=others).find() == (UID_A, expected)
    assert Case(images, f"{MIMIC}/s53189527.txt", others=others).find() == (UID_B, expected)
    assert Case(images, f"{MIMIC}/s53911762.txt", others=others).find() is None
    assert Case(images[:2], f"{MIMIC}/s53911762.txt").find() is None, "another study of the same patient"
    assert Case(images, "reports/p10/p10000032/s50414267.txt").find() == (UID_A, expected), (
        "reports in a tree of their own"
    )


def test_a_folder_of_the_reports_own_name() -> None:
    images = [image("p1/scan7/x.dcm"), image("p1/scan8/y.dcm", UID_B)]
    assert Case(images, "p1/scan7.txt", others=["p1/scan8.txt"]).find() == (UID_A, LinkRule.FOLDER)
    both = [*images, image("p1/scan7/z.dcm", UID_C)]
    assert Case(both, "p1/scan7.txt", others=["p1/scan8.txt"]).find() is None


@pytest.mark.parametrize("study_id", ["1", "1001"])
def test_a_study_id_that_repeats_between_patients(study_id: str) -> None:
    images = [
        image(f"{patient}/{study}/{series}/i.dcm", f"1.2.3.4.{patient[1:]}.{study}", study_id=study, patient=patient)
        for patient in ("P1", "P2")
        for study in (study_id, "7")
        for series in ("s1", "s2")
    ]
    text = f"Study ID: {study_id}"
    assert Case(images, "txt/x.txt", text).find() is None
    assert Case(images, "P2/x.txt", text).find() == (f"1.2.3.4.2.{study_id}", LinkRule.STUDY_ID)
    assert Case(images, "txt/P2/x.txt", text).find() == (f"1.2.3.4.2.{study_id}", LinkRule.STUDY_ID)
    assert Case(images, "txt/x.txt", f"Patient ID: P1\n{text}").find() == (f"1.2.3.4.1.{study_id}", LinkRule.STUDY_ID)
    assert Case(images, "txt/x.txt", f"Patient ID: P3\n{text}").find() is None


def test_a_short_study_id_decides_nothing_alone_though_unique() -> None:
    images = [image("img/a/1.dcm", study_id="1", patient="P1")]
    assert Case(images, "txt/x.txt", "Study ID: 1").find() is None
    assert Case(images, "txt/s1.txt").find() is None
    assert Case(images, "txt/1.txt").find() is None


def test_a_date_is_no_identifier() -> None:
    images = [image("img/a/1.dcm", study_id="20230105", accession="20230105")]
    assert Case(images, "txt/20230105.txt").find() is None
    assert Case(images, "txt/x.txt", "Accession Number: 20230105").find() == (UID_A, LinkRule.ACCESSION_NUMBER)


def test_one_report_with_the_images_of_one_study() -> None:
    images = [image("a/1.dcm"), image("a/2.dcm"), image("b/1.dcm", UID_B)]
    assert Case(images, "a/whatever 20200101.txt").find() == (UID_A, LinkRule.FOLDER)
    assert Case(images, "report.txt").find() is None, "two studies below"
    assert Case(images, "c/report.txt").find() is None


def test_a_report_above_the_series_of_one_study() -> None:
    images = [image("p/st/se1/1.dcm"), image("p/st/se2/2.dcm"), image("q/st/se1/3.dcm", UID_B)]
    assert Case(images, "p/st/report.txt").find() == (UID_A, LinkRule.FOLDER)
    assert Case(images, "p/report.txt").find() == (UID_A, LinkRule.FOLDER)
    assert Case(images, "p/st2.txt").find() is None, "named for another study than the one below"


def test_several_reports_beside_one_study() -> None:
    images = [image("a/CXR1_IM-0001-3001.dcm")]
    others = ["a/CXR2.txt", "a/CXR3.txt"]
    assert Case(images, "a/CXR1.txt", others=others).find() == (UID_A, LinkRule.FILE_NAME)
    assert Case(images, "a/CXR2.txt", others=["a/CXR1.txt"]).find() is None
    assert Case(images, "a/smith.txt", others=["a/jones.txt"]).find() is None
    assert Case(images, "a/final_report.txt", others=["a/addendum.txt"]).find() == (UID_A, LinkRule.FOLDER)


def test_many_studies_and_reports_flat_in_one_folder() -> None:
    images = [image(f"CXR{n}_IM-{n:04}-{view}.dcm", f"1.2.3.4.{n}") for n in range(1, 40) for view in (1001, 2001)]
    reports = [f"CXR{n}.txt" for n in range(1, 60)]
    for n in range(1, 60):
        others = [report for report in reports if report != f"CXR{n}.txt"]
        expected = (f"1.2.3.4.{n}", LinkRule.FILE_NAME) if n < 40 else None
        assert Case(images, f"CXR{n}.txt", others=others).find() == expected
    assert Case(images, "report.txt", others=reports).find() is None


@pytest.mark.parametrize(
    ("stem", "report"),
    [("CXR1", "CXR1"), ("cxr1", "CXR1"), ("CXR1_front", "CXR1"), ("CXR1", "CXR1_report"), ("CXR1.lat", "CXR1")],
)
def test_file_names(stem: str, report: str) -> None:
    images = [image(f"{stem}.dcm"), image("CXR12.dcm", UID_B)]
    assert Case(images, f"{report}.txt").find() == (UID_A, LinkRule.FILE_NAME)
    apart = [image(f"images/{stem}.png"), image("images/CXR12.png", UID_B)]
    assert Case(apart, f"reports/{report}.txt").find() == (UID_A, LinkRule.FILE_NAME)


def test_a_file_name_of_two_studies_decides_only_in_its_own_folder() -> None:
    images = [image("a/CXR1.dcm"), image("a/x.dcm", UID_C), image("b/CXR1.dcm", UID_B), image("b/y.dcm", UID_C)]
    assert Case(images, "txt/CXR1.txt").find() is None
    assert Case(images, "b/CXR1.txt").find() == (UID_B, LinkRule.FILE_NAME)


def test_counted_names_say_nothing_across_folders() -> None:
    images = [image("a/IM0001.dcm"), image("a/IM0002.dcm", UID_B)]
    assert Case(images, "txt/IM0001.txt").find() is None
    assert Case(images, "a/IM0001.txt").find() == (UID_A, LinkRule.FILE_NAME)
    assert Case(images, "a/IM.txt", others=["a/IM0002.txt"]).find() is None


def test_a_study_uid_in_a_name_that_the_text_denies() -> None:
    assert Case(APART, f"txt/{UID_A}.txt", f"Study UID: {UID_C}").find() is None


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/d/files/p10/p10000032/s50414267/x.jpg", "/d", "p10000032/s50414267"),
        ("/d/files/p10/p10000032/s50414267/x.jpg", "/d/files/p10/p10000032/s50414267", "p10000032/s50414267"),
        ("/d/s50414267/x.jpg", "/d", "s50414267"),
        ("/home/s1234567/x.jpg", "/home/s1234567", ""),
        ("/d/p10000032/s50414267.jpg", "/d", ""),
        ("/d/p1/s1/x.jpg", "/d", ""),
        ("/d/series1/x.jpg", "/d", ""),
        ("/d/x.jpg", "/d", ""),
    ],
)
def test_study_hint(path: str, root: str, expected: str) -> None:
    assert study_hint(path, root) == expected


def test_large_libraries_answer_the_same() -> None:
    count = 20_000
    images = [
        image(
            f"p{n // 10}/s{n}/i.dcm", f"1.2.3.4.{n}", accession=f"ACC{n}", study_id=str(n % 10), patient=f"P{n // 10}"
        )
        for n in range(count)
    ]
    reports = [f"/data/txt/ACC{n}.txt" for n in range(count)]
    directory = StudyDirectory(images, reports)
    for n, report in enumerate(reports):
        found = directory.find(report_keys(report, "/data", FREE_TEXT))
        assert found == (f"1.2.3.4.{n}", LinkRule.ACCESSION_NUMBER)


@given(st.text(max_size=300), st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=40))
def test_any_text_and_name_is_taken(text: str, name: str) -> None:
    keys = report_keys(f"/data/{name}", "/data", text)
    found = StudyDirectory(APART, [f"/data/{name}"]).find(keys)
    assert found is None or found[0] in {UID_A, UID_B}
    assert isinstance(study_hint(f"/data/{name}", "/data"), str)


@given(
    st.sampled_from(["Accession Number: ", "Study UID ", "StudyID: ", "(0020,000D", "1.2.", "acc no "]),
    st.integers(1, 5000),
)
def test_long_headers_take_no_longer_than_they_are(piece: str, times: int) -> None:
    keys = report_keys("/data/x.txt", "/data", piece * times)
    assert len(keys.stated.accession_numbers) <= 4000
