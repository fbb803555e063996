"""The cloud deployment's GraphQL interface, asked by a real client over HTTP: each question, nulls, attacks, limits."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gql import Client, GraphQLRequest, gql
from gql.transport.exceptions import TransportQueryError, TransportServerError
from gql.transport.httpx import HTTPXTransport
from graphql import GraphQLObjectType
from makers import Film, dataset, uid, write_department
from servers import Local, local_server

from medsearch_desktop.library import open_library
from medsearch_desktop.report.parity import PARITY_FIELDS, parity_fields
from medsearch_desktop.serve.graphql import FOUND
from medsearch_desktop.serve.graphql_limits import MOST_FIELDS, MOST_QUESTIONS

FIRST = uid(1, 1, 1)
BUCKETS = [f"{state}{kind}" for state in ("Positive", "Negative") for kind in ("Signs", "Diagnoses", "Symptoms")]
BUCKETS += ["PositiveICD10CMs", "NegativeICD10CMs"]
FRACTURE = "FINDINGS: Displaced fracture of the left clavicle, patient {}.\nIMPRESSION: Left clavicle fracture.\n"
NAME = "Doe^Jane"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("graphql")
    source = write_department(folder / "source", studies=14)
    for number in range(6):
        (source / f"fracture{number}.txt").write_text(FRACTURE.format(number), "utf-8")
    full = "EXAMINATION: Chest\nINDICATION: Cough.\nTECHNIQUE: Two views.\nIMPRESSION: Cough. No dyspnea.\n"
    (source / "full.txt").write_text(full, "utf-8")
    signs = "FINDINGS: Patchy infiltrate. Infiltrate of the left base. No mass.\n"
    (source / "signs.txt").write_text(signs, "utf-8")
    dataset(Film(patient=90, study=90)).save_as(folder / "alone.dcm", enforce_file_format=True)
    odd = os.path.join(os.fsencode(source), b"odd\xff.dcm")  # noqa: PTH118 - of bytes
    dataset(Film(patient=91, study=91, modality="")).save_as(os.fsdecode(odd), enforce_file_format=True)
    with open_library(folder / "library", create=True) as library:
        library.ingest([source, folder / "alone.dcm"])
        with local_server(library) as local:
            yield local


def client_of(server: Local, *, token: str = "", with_schema: bool = False) -> Client:
    headers = {"Authorization": f"Bearer {token or server.security.token}"}
    url = f"http://127.0.0.1:{server.port}/graphql"
    transport = HTTPXTransport(url=url, headers=headers, timeout=60, trust_env=False)
    return Client(transport=transport, fetch_schema_from_transport=with_schema)


def ask(server: Local, text: str, **variables: Any) -> dict[str, Any]:
    with client_of(server) as session:
        answer: dict[str, Any] = session.execute(GraphQLRequest(gql(text), variable_values=variables))
    return answer


def refused(server: Local, text: str, **variables: Any) -> list[dict[str, Any]]:
    """Ask what the client itself may not be able to read, and return the errors."""
    answer = server.client.post("/graphql", json={"query": text, "variables": variables})
    assert answer.status_code == 200, answer.text
    errors: list[dict[str, Any]] = answer.json()["errors"]
    assert errors
    return errors


def buckets(server: Local, name: str, input: str | None = None) -> list[tuple[str, int]]:
    asked = f"query($input: String) {{ {name}(input: $input) {{ key doc_count }} }}"
    row = ask(server, asked, input=input) if input is not None else ask(server, f"{{ {name} {{ key doc_count }} }}")
    return [(bucket["key"], bucket["doc_count"]) for bucket in row[name]]


def counted(server: Local, field: str, report_ids: list[str]) -> list[tuple[str, int]]:
    """Count by reading each report what a bucket question counts in the database."""
    found: Counter[str] = Counter()
    for report_id in report_ids:
        found.update(parity_fields(server.library.report(report_id).report.entities)[field])
    return sorted(found.items(), key=lambda bucket: (-bucket[1], bucket[0].lower()))[:10]


def every_report(server: Local) -> list[str]:
    return [row["ReportId"] for row in ask(server, "{ listReports(from: 0, size: 1000) { ReportId } }")["listReports"]]


# The schema


def test_a_client_that_reads_the_schema_finds_all_of_the_deployment(server: Local) -> None:
    with client_of(server, with_schema=True) as session:
        schema = session.client.schema
    assert schema is not None

    def shape(name: str) -> dict[str, str]:
        kind = schema.type_map[name]
        assert isinstance(kind, GraphQLObjectType)
        return {field: str(each.type) for field, each in kind.fields.items()}

    image = ("ImageId", "ReportId", "Bucket", "Key", "Modality", "ViewPosition", "BodyPartExamined")
    assert shape("Image") == dict.fromkeys(image, "String")
    texts = ("ReportId", "Examination", "Findings", "Impression", "Indication", "Technique")
    lists = {"Images": "[Image]"} | dict.fromkeys(BUCKETS, "[String]")
    assert shape("Report") == dict.fromkeys(texts, "String") | lists
    for name in BUCKETS:
        assert shape(name) == {"key": "String", "doc_count": "Int"}
    asked = {
        "getImage": ("Image", {"ImageId": "String"}),
        "getImages": ("[Image]", {"ReportId": "String"}),
        "getReport": ("Report", {"ReportId": "String"}),
        "listReports": ("[Report]", {"from": "Int", "size": "Int"}),
        "searchReports": ("[Report]", {"input": "String"}),
        "getSimilarImages": ("[Image]", {"ImageId": "String", "k": "Int"}),
    }
    for name in BUCKETS:
        asked[f"get{name}byReports"] = (f"[{name}]", {"input": "String"})
    for name in ("PositiveICD10CMs", "NegativeICD10CMs"):
        asked[f"getAll{name}"] = (f"[{name}]", {})
        asked[f"get{name}"] = asked[f"get{name}bySimilarReport"] = (f"[{name}]", {"input": "String"})
    query = schema.query_type
    assert query is not None
    found = {
        name: (str(field.type), {key: str(given.type) for key, given in field.args.items()})
        for name, field in query.fields.items()
    }
    assert found == asked
    assert schema.mutation_type is schema.subscription_type is None


# Images and reports


def test_an_image_with_its_report_and_place(server: Local) -> None:
    fields = "ImageId ReportId Bucket Key Modality ViewPosition BodyPartExamined"
    row = ask(server, f"query($id: String) {{ getImage(ImageId: $id) {{ {fields} }} }}", id=FIRST)["getImage"]
    file = Path(row["Bucket"], row["Key"])
    assert file.read_bytes() == server.client.get(f"/api/images/{FIRST}/file").content
    assert Path(row.pop("Bucket")).name == "source"
    assert row == {
        "ImageId": FIRST, "ReportId": "s50000001", "Key": "files/p00000001/s50000001/image1.dcm",
        "Modality": "CR", "ViewPosition": "PA", "BodyPartExamined": "CHEST",
    }  # fmt: skip


def test_a_file_that_was_ingested_by_itself_lies_in_its_folder(server: Local) -> None:
    row = ask(server, f'{{ getImage(ImageId: "{uid(90, 90, 1)}") {{ Bucket Key ReportId }} }}')["getImage"]
    assert (row["Key"], row["ReportId"]) == ("alone.dcm", None)
    assert Path(row["Bucket"], row["Key"]).is_file()


def test_a_name_that_is_no_text_and_a_header_that_lacks_something(server: Local) -> None:
    row = ask(server, f'{{ getImage(ImageId: "{uid(91, 91, 1)}") {{ Key Modality }} }}')["getImage"]
    assert row == {"Key": "odd\udcff.dcm", "Modality": None}


def test_the_images_of_a_report_are_those_of_its_study(server: Local) -> None:
    rows = ask(server, '{ getImages(ReportId: "s50000003") { ImageId ReportId } }')["getImages"]
    assert rows == [{"ImageId": uid(2, 3, number), "ReportId": "s50000003"} for number in (1, 2)]
    assert ask(server, '{ getImages(ReportId: "fracture1") { ImageId } }')["getImages"] == []


def test_a_report_with_its_sections_findings_and_images(server: Local) -> None:
    fields = " ".join(PARITY_FIELDS)
    texts = "ReportId Examination Findings Impression Indication Technique"
    asked = f"query($id: String) {{ getReport(ReportId: $id) {{ {texts} {fields} Images {{ ImageId }} }} }}"
    row = ask(server, asked, id="s50000004")["getReport"]
    assert row["Findings"] == "Large left pleural effusion. No pneumothorax."
    assert row["Impression"] == "Left pleural effusion."
    assert [row[name] for name in ("Examination", "Indication", "Technique")] == [None, None, None]
    assert (row["PositiveDiagnoses"], row["NegativeDiagnoses"]) == (["pleural effusion"], ["pneumothorax"])
    assert row["PositiveICD10CMs"] == ["Pleural effusion, not elsewhere classified"]
    assert row["Images"] == [{"ImageId": uid(2, 4, 1)}, {"ImageId": uid(2, 4, 2)}]
    for report_id in every_report(server):
        row = ask(server, asked, id=report_id)["getReport"]
        entities = server.library.report(report_id).report.entities
        assert {name: row[name] for name in PARITY_FIELDS} == parity_fields(entities)
    row = ask(server, asked, id="full")["getReport"]
    sections = ["Chest", "", "Cough. No dyspnea.", "Cough.", "Two views."]
    assert [row[name] for name in texts.split()[1:]] == sections
    assert (row["PositiveSymptoms"], row["NegativeSymptoms"]) == (["Cough"], ["dyspnea"])


def test_the_list_of_reports_has_pages(server: Local) -> None:
    whole = every_report(server)
    assert len(whole) == len(set(whole)) == 22
    asked = "query($from: Int, $size: Int) { listReports(from: $from, size: $size) { ReportId Images { ReportId } } }"
    pages = [ask(server, asked, **{"from": first, "size": 8})["listReports"] for first in (0, 8, 16, 24)]
    assert [row["ReportId"] for page in pages for row in page] == whole
    assert [len(page) for page in pages] == [8, 8, 6, 0]
    for row in (row for page in pages for row in page):
        images = 2 if row["ReportId"].startswith("s5") else 0
        assert row["Images"] == [{"ReportId": row["ReportId"]}] * images
    assert [row["ReportId"] for row in ask(server, asked)["listReports"]] == whole[:10]


def test_a_search_finds_any_of_the_words_in_findings_and_impression(server: Local) -> None:
    def found(words: str | None) -> list[str]:
        rows = ask(server, "query($w: String) { searchReports(input: $w) { ReportId } }", w=words)["searchReports"]
        return [row["ReportId"] for row in rows]

    assert sorted(found("clavicle")) == [f"fracture{number}" for number in range(6)]
    both = found("CLAVICLES cardiomegaly")
    assert sorted(both) == sorted(found("clavicle") + found("cardiomegaly"))
    assert len(found("cardiomegaly")) == 3
    # The indication is no finding, and the words of the query language are words.
    assert found("views") == []
    assert len(found("no left")) > len(found("left"))
    assert found("modality:CR") == []
    assert len(set(found("lungs heart effusion clavicle cough infiltrate"))) == FOUND < len(every_report(server))


def test_similar_images_are_those_of_the_library_nearest_first(server: Local) -> None:
    asked = "query($id: String, $k: Int) { getSimilarImages(ImageId: $id, k: $k) { ImageId ReportId Key } }"
    rows = ask(server, asked, id=FIRST, k=5)["getSimilarImages"]
    assert [row["ImageId"] for row in rows] == [hit.image_id for hit in server.library.similar(FIRST, k=5).hits]
    assert FIRST not in [row["ImageId"] for row in rows]
    assert all(row["Key"] for row in rows)
    assert len(ask(server, asked, id=FIRST)["getSimilarImages"]) == 10
    assert len(ask(server, asked, id=FIRST, k=100)["getSimilarImages"]) == 29


# Buckets


def test_all_reports_are_counted_as_if_each_were_read(server: Local) -> None:
    for field in ("PositiveICD10CMs", "NegativeICD10CMs"):
        found = buckets(server, f"getAll{field}")
        assert found == counted(server, field, every_report(server))
        assert found


@pytest.mark.parametrize("field", BUCKETS)
def test_named_reports_are_counted_as_if_each_were_read(server: Local, field: str) -> None:
    whole = every_report(server)
    seen = []
    for names in (whole, whole[:5], whole[-1:], []):
        # An image without a report has null for it, and a client passes that on.
        given = json.dumps([*names, *names[:1], "unknown", None])
        found = dict(buckets(server, f"get{field}byReports", given))
        assert found == dict(counted(server, field, names))
        seen += found
    assert seen


def test_found_reports_are_counted(server: Local) -> None:
    found = buckets(server, "getPositiveICD10CMs", "clavicle")
    assert found == counted(server, "PositiveICD10CMs", [f"fracture{number}" for number in range(6)])
    assert found[0][1] == 6
    negative = [name for name in every_report(server) if name.startswith("s5")]
    assert buckets(server, "getNegativeICD10CMs", "pneumothorax lungs heart") == counted(
        server, "NegativeICD10CMs", negative
    )
    assert buckets(server, "getPositiveICD10CMs", "") == buckets(server, "getNegativeICD10CMs", "xyzzy") == []


def test_reports_worded_like_one_are_counted_without_it(server: Local) -> None:
    others = [f"fracture{number}" for number in range(6) if number != 2]
    found = buckets(server, "getPositiveICD10CMsbySimilarReport", "fracture2")
    clavicle = counted(server, "PositiveICD10CMs", others)[0]
    assert clavicle[1] == 5
    assert clavicle in found
    assert buckets(server, "getNegativeICD10CMsbySimilarReport", "s50000004")
    assert buckets(server, "getNegativeICD10CMsbySimilarReport", "unknown") == []


def test_what_the_deployments_page_asks_at_once(server: Local) -> None:
    names = [f"get{name}byReports" for name in BUCKETS]
    text = " ".join(f"{name}(input: $ids) {{ key doc_count }}" for name in names)
    row = ask(server, f"query Page($ids: String) {{ {text} }}", ids='["s50000001", "s50000004"]')
    assert list(row) == names
    assert row["getPositiveDiagnosesbyReports"] == [{"key": "pleural effusion", "doc_count": 1}]


# Nulls


def test_what_is_unknown_or_null_is_null_and_lists_are_empty(server: Local) -> None:
    lists = [f"get{name}byReports" for name in BUCKETS]
    for name in ("PositiveICD10CMs", "NegativeICD10CMs"):
        lists += [f"get{name}", f"get{name}bySimilarReport"]
    for given, ids in (("null", "null"), ('""', '""'), ('"unknown"', '"[\\"unknown\\"]"')):
        text = f"getImage(ImageId: {given}) {{ ImageId }} getReport(ReportId: {given}) {{ ReportId }}"
        text += f" getSimilarImages(ImageId: {given}) {{ ImageId }} getImages(ReportId: {given}) {{ ImageId }}"
        text += f" searchReports(input: {given}) {{ ReportId }}"
        row = ask(server, f"{{ {text} }}")
        assert row == {
            "getImage": None, "getReport": None, "getSimilarImages": None, "getImages": [], "searchReports": [],
        }  # fmt: skip
        asked = " ".join(f"{name}(input: {ids if 'byReports' in name else given}) {{ key }}" for name in lists)
        assert ask(server, f"{{ {asked} }}") == {name: [] for name in lists}


def test_no_path_of_this_machine_is_an_image(server: Local) -> None:
    path = server.library.holdings.image_file(FIRST).path
    row = ask(server, "query($id: String) { getSimilarImages(ImageId: $id) { ImageId } }", id=path)
    assert row == {"getSimilarImages": None}


# Who may ask, and what


def test_without_the_token_nothing_is_answered(server: Local) -> None:
    for token in ("wrong", server.security.token + "x"):
        with client_of(server, token=token) as session, pytest.raises(TransportServerError) as caught:
            session.execute(gql("{ __typename }"))
        assert caught.value.code == 401
    url = f"http://127.0.0.1:{server.port}/graphql"
    assert httpx.post(url, json={"query": "{ __typename }"}, trust_env=False, timeout=60).status_code == 401
    other = server.client.post("/graphql", json={"query": "{ __typename }"}, headers={"Origin": "http://evil.example"})
    assert other.status_code == 403


def test_there_is_no_page_to_explore_with(server: Local) -> None:
    answer = server.client.get("/graphql", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert "<" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"7", b"null", b"\xff", b'[{"query": "{ __typename }"}]', b"{}", b'{"query": 7}',
        b'{"query": "{a}", "variables": []}', b'{"query": "{a}", "operationName": 7}',
        b'{"query": "{a}", "operationName": "Doe Jane"}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_body_without_a_question_is_refused(server: Local, body: bytes) -> None:
    answer = server.client.post("/graphql", content=body)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["message"]
    assert error["extensions"] == {"kind": "request"}
    assert "Doe" not in answer.text


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        (f'{{ getImage(ImageId: {{a: "{NAME}"}}) {{ ImageId }} }}', {}),
        (f'{{ getImage(ImageId: ["{NAME}", "b"]) {{ ImageId }} }}', {}),
        (f'{{ getImage(ImageId: "x" "{NAME}") {{ ImageId }} }}', {}),
        (f'{{ listReports(size: "{NAME}") {{ ReportId }} }}', {}),
        (f'{{ getImage(ImageId: "x") @include(if: "{NAME}") {{ ImageId }} }}', {}),
        (f'{{ getPositiveSignsbyReports(input: "{NAME}") {{ key }} }}', {}),
        ("query($v: String) { getImage(ImageId: $v) { ImageId } }", {"v": [NAME]}),
        ("query($v: String) { getImage(ImageId: $v) { ImageId } }", {"v": {"a": NAME}}),
        ("query($v: Int) { listReports(size: $v) { ReportId } }", {"v": NAME}),
        ("query($v: String) { getPositiveSignsbyReports(input: $v) { key } }", {"v": f'["{NAME}"'}),
        ("query($v: String) { getPositiveSignsbyReports(input: $v) { key } }", {"v": f'{{"a": "{NAME}"}}'}),
        ("query($v: String) { getPositiveSignsbyReports(input: $v) { key } }", {"v": f'[["{NAME}"]]'}),
    ],
)
def test_an_error_repeats_no_value(server: Local, text: str, variables: dict[str, Any]) -> None:
    for error in refused(server, text, **variables):
        assert NAME not in json.dumps(error)
        assert "Doe" not in json.dumps(error)
        assert error.get("locations") or "value" in error["message"]


def test_a_client_is_told_what_is_wrong_and_where(server: Local) -> None:
    with pytest.raises(TransportQueryError) as caught:
        ask(server, "{ getImage(ImageId: null) { Nothing } listReports { ReportId } }")
    (error,) = caught.value.errors or []
    assert error["message"].startswith("Cannot query field 'Nothing'")
    # Where it is in what the client has made of the question.
    assert error["locations"] == [{"line": 3, "column": 5}]
    with pytest.raises(TransportQueryError) as caught:
        ask(server, "{ listReports(size: 1001) { ReportId } __typename }")
    (error,) = caught.value.errors or []
    assert (error["message"], error["path"]) == ("size has to be 0 to 1,000", ["listReports"])
    assert caught.value.data == {"listReports": None, "__typename": "Query"}


@pytest.mark.parametrize(
    "given",
    ["listReports(from: -1)", "listReports(size: -1)", "listReports(size: 1001)", "getSimilarImages(k: 0)",
     "getSimilarImages(k: 101)", "listReports(from: 2147483648)"],
)  # fmt: skip
def test_numbers_have_limits(server: Local, given: str) -> None:
    (error,) = refused(server, f"{{ {given} {{ ReportId }} }}")
    assert error["message"]


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE reports; --",
        '"; MATCH',
        "a" * 100_000,
        "a " * 100_000,
        "\0",
        "\ud800",
        "*",
        "OR AND NOT ((",
        "🩻",
    ],
)
def test_hostile_text_is_text(server: Local, text: str) -> None:
    names = ("getPositiveICD10CMs", "getPositiveICD10CMsbySimilarReport")
    asked = " ".join(f"{name}(input: $v) {{ key }}" for name in names)
    asked += " searchReports(input: $v) { ReportId } getImage(ImageId: $v) { ImageId } getImages(ReportId: $v) { Key }"
    asked += " getSimilarImages(ImageId: $v) { ImageId } getReport(ReportId: $v) { ReportId }"
    asked += " getPositiveSignsbyReports(input: $ids) { key }"
    question = {
        "query": f"query($v: String, $ids: String) {{ {asked} }}",
        "variables": {"v": text, "ids": json.dumps([text])},
    }
    answer = server.client.post("/graphql", content=json.dumps(question))
    assert answer.status_code == 200
    row = answer.json()
    assert "errors" not in row
    assert (row["data"]["getReport"], row["data"]["getImage"], row["data"]["getImages"]) == (None, None, [])
    assert len(every_report(server)) == 22


# What an answer may cost


@pytest.mark.parametrize(
    "text",
    [
        f"{{ getReport(ReportId: \"x\") {{ {'ReportId ' * MOST_FIELDS} }} }}",
        " ".join(f"query Q{number} {{ {'__typename ' * 10} }}" for number in range(60)),
        f"fragment F on Report {{ {'ReportId ' * MOST_FIELDS} ReportId }} {{ __typename }}",
        "{ getReport { ...F0 } } fragment F30 on Report { ReportId } "
        + " ".join(f"fragment F{n} on Report {{ ...F{n + 1} ...F{n + 1} }}" for n in range(30)),
        "{ getReport { ...F0 } } fragment F900 on Report { ReportId } "
        + " ".join(f"fragment F{n} on Report {{ ...F{n + 1} }}" for n in range(900)),
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        f"{{ {' '.join(f'a{number}: __typename' for number in range(MOST_QUESTIONS + 1))} }}",
        f"{{ ...F {' '.join(f'a{number}: __typename' for number in range(MOST_QUESTIONS))} }}"
        " fragment F on Query { __typename }",
        f"{{ getReport {{ {'... {' * 30} ReportId {'}' * 30} }} }}",
        f"{{ getReport {{ {'... {' * 2000} ReportId {'}' * 2000} }} }}",
        f"{{ getImage(ImageId: {'[' * 3000}{']' * 3000}) {{ ImageId }} }}",
        f"{{ {'__typename ' * 90_000} }}",
        "{ __schema { types { fields { type { fields { type { fields { type { name } } } } } } } } }",
    ],
)  # fmt: skip
def test_a_question_that_is_too_large_is_refused_before_it_is_looked_at(server: Local, text: str) -> None:
    for error in refused(server, text):
        assert any(word in error["message"] for word in ("more than", "too long", "itself", "depth")), error


def test_an_answer_holds_no_more_than_so_many_records(server: Local) -> None:
    asked = " ".join(f"a{number}: listReports(size: 1000) {{ ReportId }}" for number in range(11))
    answer = server.client.post("/graphql", json={"query": f"{{ {asked} }}"}).json()
    (error,) = answer["errors"]
    assert error["path"] == ["a10"]
    assert "10,000 reports and images" in error["message"]
    assert (answer["data"]["a10"], len(answer["data"]["a9"])) == (None, 22)


def test_a_list_names_no_more_than_a_thousand_reports(server: Local) -> None:
    asked = "query($v: String) { getPositiveSignsbyReports(input: $v) { key } }"
    (error,) = refused(server, asked, v=json.dumps(["x"] * 1001))
    assert "1,000" in error["message"]
    assert ask(server, asked, v=json.dumps(["x"] * 1000)) == {"getPositiveSignsbyReports": []}


def test_what_goes_wrong_inside_is_told_without_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_library(tmp_path / "library", create=True) as library, local_server(library) as server:
        library.close()
        (error,) = refused(server, "{ listReports { ReportId } }")
    assert error["message"] == "something went wrong inside"
    assert error["extensions"] == {"kind": "internal"}
    told = capfd.readouterr().err
    assert "page_of_reports" in told
    assert str(tmp_path) not in told
