"""A small spaCy pipeline with the components and the package layout of scispaCy's releases."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import spacy
from spacy.training import Example
from spacy.util import fix_random_seed

NAME, VERSION = "en_ner_made_md", "0.5.4"
HOME = f"{NAME}-{VERSION}/{NAME}/{NAME}-{VERSION}"


def make_pipeline(folder: Path) -> Path:
    """Write a tagger that nobody needs and a recogniser that has learnt three sentences; return the folder."""
    fix_random_seed(1)
    nlp = spacy.blank("en")
    nlp.meta.update(name="ner_made_md", version=VERSION, license="CC0", url="https://example.org/made")
    tagger: Any = nlp.add_pipe("tagger")
    tagger.add_label("NN")
    ner: Any = nlp.add_pipe("ner")
    ner.add_label("DISEASE")
    taught = [
        ("Hepatic encephalopathy was known.", [(0, 22, "DISEASE")]),
        ("There is known hepatic encephalopathy.", [(15, 37, "DISEASE")]),
        ("The heart is normal.", []),
    ]
    examples = []
    for text, spans in taught:
        doc = nlp.make_doc(text)
        examples.append(Example.from_dict(doc, {"entities": spans, "tags": ["NN"] * len(doc)}))
    nlp.initialize(lambda: examples)
    for _ in range(30):
        with nlp.select_pipes(enable="ner"):
            nlp.update(examples)
    nlp.to_disk(folder)
    return folder


def pack_pipeline(made: Path, folder: Path, *extra: tarfile.TarInfo, **changed: str) -> Path:
    """Pack a pipeline as scispaCy does; `changed` are new contents by name, with "_" for "."."""
    target = folder / f"{NAME}-{VERSION}.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        for name in ("setup.py", f"{NAME}/__init__.py"):
            add_file(archive, f"{NAME}-{VERSION}/{name}", b"raise SystemExit('this was run')\n")
        for path in sorted(made.rglob("*")):
            if path.is_file():
                name = path.relative_to(made).as_posix()
                content = changed.get(name.replace(".", "_"))
                add_file(archive, f"{HOME}/{name}", path.read_bytes() if content is None else content.encode())
        for member in extra:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return target


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a regular file to an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
