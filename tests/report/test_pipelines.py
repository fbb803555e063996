from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import spacy
from pipelines_made import HOME, NAME, VERSION, add_file, make_pipeline, pack_pipeline

from medsearch_desktop.errors import ModelAlteredError, ModelError, ModelMissingError
from medsearch_desktop.report.pipelines import (
    MANIFEST,
    import_pipeline,
    is_pipeline,
    language_dir,
    load_pipeline,
    remove_pipeline,
    survey_pipelines,
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("made") / "pipeline")


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """Packs the pipeline as scispaCy does, with some files changed and whatever else is asked for."""
    return lambda *extra, **changed: pack_pipeline(made, tmp_path, *extra, **changed)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    assert [path.name for path in language_dir().glob(".*")] == []


def config(made: Path, old: str, new: str) -> str:
    text = (made / "config.cfg").read_text("utf-8")
    assert old in text
    return text.replace(old, new, 1)


def test_a_release_is_registered_and_finds_its_mentions(pack: Callable[..., Path]) -> None:
    done = import_pipeline(str(pack()))
    assert done.spec.model_id == NAME
    assert done.spec.version == VERSION
    assert done.spec.licence == "CC0"
    assert done.spec.origin == f"Imported from {NAME}-{VERSION}.tar.gz, https://example.org/made"
    assert done.spec.components == ("ner",)
    assert done.spec.labels == ("DISEASE",)
    assert ("hepatic encephalopathy", "DISEASE") in done.found
    assert done.notes == ("left out, for they find no mentions: tagger",)
    assert survey_pipelines() == ([done.spec], [])
    kept = {path.relative_to(done.spec.path).as_posix() for path in done.spec.path.rglob("*") if path.is_file()}
    assert kept == set(done.spec.files)
    assert "ner/model" in kept
    assert not any(name.startswith("tagger/") or name.endswith(".py") for name in kept)
    texts = ["There is known hepatic encephalopathy.", ""]
    found = load_pipeline(done.spec).find(texts)
    assert [[texts[0][each.start : each.end] for each in own] for own in found] == [["hepatic encephalopathy"], []]


def test_a_folder_does_as_well_and_a_name_is_taken_once(made: Path) -> None:
    assert is_pipeline(str(made))
    done = import_pipeline(str(made), model_id="mine", origin="our ward", licence="ours")
    assert (done.spec.model_id, done.spec.origin, done.spec.licence) == ("mine", "our ward", "ours")
    with pytest.raises(ModelError, match="mine: a model of that name is registered already"):
        import_pipeline(str(made), model_id="MINE".lower())
    with pytest.raises(ModelError, match="not a plain name"):
        import_pipeline(str(made), model_id="../mine")


def test_an_installed_package_is_found_by_name_and_not_run(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    package = site / NAME
    (package / f"{NAME}-{VERSION}").parent.mkdir(parents=True)
    made_files = package / f"{NAME}-{VERSION}"
    for path in made.rglob("*"):
        if path.is_file():
            target = made_files / path.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (package / "__init__.py").write_text("raise SystemExit('this was run')\n")
    info = site / f"{NAME}-{VERSION}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n")
    (info / "entry_points.txt").write_text(f"[spacy_models]\n{NAME} = {NAME}\n")
    monkeypatch.syspath_prepend(str(site))
    assert is_pipeline(NAME)
    assert import_pipeline(NAME).spec.model_id == NAME
    assert not is_pipeline("en_ner_other_md")
    with pytest.raises(ModelError, match=f"no such file. Installed spaCy pipelines are: {NAME}"):
        import_pipeline("en_ner_other_md")


def test_removed_is_gone(pack: Callable[..., Path]) -> None:
    spec = import_pipeline(str(pack())).spec
    assert remove_pipeline(NAME) == spec
    assert survey_pipelines() == ([], [])
    assert list(language_dir().iterdir()) == []
    assert remove_pipeline(NAME) is None


def test_a_file_that_was_altered_or_lost_is_named(pack: Callable[..., Path]) -> None:
    spec = import_pipeline(str(pack())).spec
    weights = spec.path / "ner" / "model"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"x")
    with pytest.raises(ModelAlteredError, match=r"ner/model: is not the file"):
        load_pipeline(spec)
    weights.unlink()
    with pytest.raises(ModelMissingError, match=r"ner/model: is missing. Import the model again"):
        load_pipeline(spec)


def test_a_damaged_manifest_does_not_hide_the_others(made: Path) -> None:
    one, other = (import_pipeline(str(made), model_id=name).spec for name in ("one", "other"))
    (one.path.parent / MANIFEST).write_text('{"format": 1, "kind": "language", "model": {}}')
    specs, problems = survey_pipelines()
    assert specs == [other]
    assert "one/manifest.json: the manifest of a language model cannot be read ('files')" in str(problems[0])


def test_broken_archives(pack: Callable[..., Path], tmp_path: Path) -> None:
    whole = pack().read_bytes()
    broken = tmp_path / "broken.tar.gz"
    for content in (whole[:1000], whole[: len(whole) // 2], b"", b"no archive", gzip.compress(b"no archive")):
        broken.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken.tar.gz: (is not a whole .tar.gz archive|holds no spaCy)"):
            import_pipeline(str(broken))
    assert survey_pipelines() == ([], [])


@pytest.mark.parametrize("name", ["/etc/x", "../x", f"{HOME}/../../x", "C:\\x", f"{HOME}/..\\x"])
def test_names_that_lead_out_of_the_archive(pack: Callable[..., Path], name: str) -> None:
    with pytest.raises(ModelError, match="which leads out of it"):
        import_pipeline(str(pack(tarfile.TarInfo(name))))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(pack: Callable[..., Path], kind: bytes) -> None:
    member = tarfile.TarInfo(f"{HOME}/vocab/more")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(ModelError, match="a link or device"):
        import_pipeline(str(pack(member)))


def test_what_unpacks_to_too_much(pack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack()
    monkeypatch.setattr("medsearch_desktop.report.pipeline_files.MOST_BYTES", 10_000)
    with pytest.raises(ModelError, match="is too large"):
        import_pipeline(str(archive))
    monkeypatch.undo()
    monkeypatch.setattr("medsearch_desktop.report.pipeline_files.MOST_MEMBERS", 3)
    with pytest.raises(ModelError, match="is too large"):
        import_pipeline(str(archive))


def test_no_pipeline_or_two_or_a_file_twice(pack: Callable[..., Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar.gz"
    with tarfile.open(empty, "w:gz") as archive:
        add_file(archive, "setup.py", b"")
    with pytest.raises(ModelError, match=r"holds no spaCy pipeline: a folder with config\.cfg and meta\.json"):
        import_pipeline(str(empty))
    with pytest.raises(ModelError, match="holds 2 spaCy pipelines"):
        import_pipeline(str(pack(tarfile.TarInfo("other/config.cfg"), tarfile.TarInfo("other/meta.json"))))
    with pytest.raises(ModelError, match="holds a file twice"):
        import_pipeline(str(pack(tarfile.TarInfo(f"{HOME}/config.cfg"))))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('factory = "ner"', 'factory = "made_up"', "has no entity recogniser: its components are tagger, ner"),
        ('"spacy.ner_scorer.v1"', '"builtins.exec.v1"', "components.ner.scorer @scorers = 'builtins.exec.v1'"),
        ('"spacy.TransitionBasedParser.v2"', '"spacy.TorchBiLSTMEncoder.v1"', "not needed: components.ner.model"),
        ("before_creation = null", 'before_creation = {"@callbacks":"x"}', "wants code of its own"),
        ('lang = "en"', 'lang = "de"', "is of the language 'de'"),
        ('"spacy.Tokenizer.v1"', '"made.Tokenizer.v1"', "nlp.tokenizer @tokenizers = 'made.Tokenizer.v1'"),
        ('factory = "ner"', 'factory = "ner"\nsource = "en_core_web_sm"', "components.ner source = 'en_core_web_sm'"),
        ("[nlp]", "[nlp", "its config.cfg cannot be read"),
        ("pipeline = [", "pipeline = 7\nx = [", "its config.cfg cannot be read"),
    ],
)
def test_configurations_that_are_refused(
    pack: Callable[..., Path], made: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ModelError) as caught:
        import_pipeline(str(pack(config_cfg=config(made, old, new))))
    assert message in str(caught.value)
    assert survey_pipelines() == ([], [])


def test_code_that_only_training_wants_is_neither_needed_nor_run(pack: Callable[..., Path], made: Path) -> None:
    # As in scispaCy's own: its readers and callbacks are not there when a pipeline is only used.
    text = (made / "config.cfg").read_text("utf-8").replace('"spacy.Corpus.v1"', '"med_mentions_reader"')
    text = text.replace("before_init = null", 'before_init = {"@callbacks":"replace_tokenizer"}')
    assert "med_mentions_reader" in text
    assert "replace_tokenizer" in text
    assert import_pipeline(str(pack(config_cfg=text))).spec.model_id == NAME


def test_weights_and_facts_that_are_none(pack: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"its meta\.json cannot be read"):
        import_pipeline(str(pack(meta_json="[]")))
    with pytest.raises(ModelError, match="does not load with this spaCy"):
        import_pipeline(str(pack(**{"ner/model": "no weights"})))
    assert survey_pipelines() == ([], [])


def test_what_is_told_of_a_model_cannot_command_a_terminal(pack: Callable[..., Path], made: Path) -> None:
    meta = json.loads((made / "meta.json").read_text("utf-8")) | {"license": "\x1b[2JMIT"}
    assert import_pipeline(str(pack(meta_json=json.dumps(meta)))).spec.licence == "?[2JMIT"


def test_a_pipeline_made_with_another_spacy_is_told_of(pack: Callable[..., Path], made: Path) -> None:
    meta = json.loads((made / "meta.json").read_text("utf-8")) | {"spacy_version": ">=3.2.0,<3.3.0"}
    notes = import_pipeline(str(pack(meta_json=json.dumps(meta)))).notes
    assert notes[0] == f"was made with spaCy >=3.2.0,<3.3.0, runs with {spacy.__version__}"


def test_the_vocabulary_does_not_grow_with_the_texts(made: Path) -> None:
    pipeline = load_pipeline(import_pipeline(str(made)).spec)
    vocab = pipeline._nlp.vocab
    strings = len(vocab.strings)
    pipeline.find([f"Neverseen{number} word{number}." for number in range(200)])
    assert len(vocab.strings) <= strings + 5
    assert "Neverseen7" not in vocab
