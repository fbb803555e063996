"""A spaCy pipeline out of its package: the one folder of data in it, without links, surprises or code.

scispaCy's releases are source packages: `en_ner_bc5cdr_md-0.5.4/en_ner_bc5cdr_md/en_ner_bc5cdr_md-0.5.4/`
holds `config.cfg`, `meta.json` and the weights, and around it stand a `setup.py` and an `__init__.py` that
nothing here needs.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from medsearch_desktop.errors import ModelError

CONFIG, META = "config.cfg", "meta.json"
# The largest release, en_core_sci_lg, unpacks to less than 1 GiB in about 40 files.
MOST_BYTES = 3 << 30
MOST_MEMBERS = 2_000
_AGAIN = "Copy it again from where it came"


def unpack(source: Path, target: Path, *, keep: Callable[[str], bool]) -> None:
    """Write the files of the pipeline in `source`, an archive or a folder, below `target`, which must not exist.

    `keep` is asked of each file by its name in the pipeline, with "/" between folders.

    Raises ModelError when the archive is no whole one, holds a link or a name that leads out of it, is larger
    than `MOST_BYTES` unpacked, or holds no pipeline or more than one.
    """
    if source.is_dir():
        _copy(source, target, keep)
        return
    try:
        with tarfile.open(source, "r:gz") as archive:
            members = _checked(archive, source)
            home = _home([name for name, _ in members], source)
            for path, member in members:
                if home not in path.parents or not keep(path.relative_to(home).as_posix()):
                    continue
                content = archive.extractfile(member)
                assert content is not None, "regular files have content"
                _write(target / path.relative_to(home), content)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ModelError(
            f"is not a whole .tar.gz archive ({printable(error)})", item=str(source), remedy=_AGAIN
        ) from error
    except OSError as error:
        raise ModelError(f"cannot be unpacked ({error.strerror or error})", item=str(source)) from error


def printable(value: object) -> str:
    """Return a text from a file of unknown origin as a terminal may show it, shortened."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value))
    return text if len(text) <= 160 else f"{text[:160]}..."


def _checked(archive: tarfile.TarFile, source: Path) -> list[tuple[PurePosixPath, tarfile.TarInfo]]:
    """Return the regular files of an archive, each by its path, when everything in it is as it should be."""
    found: list[tuple[PurePosixPath, tarfile.TarInfo]] = []
    total = 0
    item = str(source)
    # One by one: the size in a member's head is weighed before its content is read.
    for number, member in enumerate(archive, start=1):
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
            raise ModelError(f"holds {printable(member.name)!r}, which leads out of it", item=item, remedy=_AGAIN)
        if not (member.isfile() or member.isdir()):
            raise ModelError(f"holds {printable(member.name)!r}, a link or device", item=item, remedy=_AGAIN)
        total += member.size
        if total > MOST_BYTES or number > MOST_MEMBERS:
            raise ModelError(
                f"is too large: at most {MOST_BYTES >> 30} GiB in {MOST_MEMBERS} files are unpacked", item=item
            )
        if member.isfile():
            found.append((path, member))
    if len({path for path, _ in found}) != len(found):
        raise ModelError("holds a file twice", item=item, remedy=_AGAIN)
    return found


def _home(paths: list[PurePosixPath], source: Path) -> PurePosixPath:
    names = set(paths)
    homes = [path.parent for path in paths if path.name == CONFIG and path.parent / META in names]
    if len(homes) != 1:
        raise ModelError(
            f"holds {len(homes) or 'no'} spaCy pipeline{'s' if len(homes) > 1 else ''}: a folder with {CONFIG} and"
            f" {META}, once, is expected",
            item=str(source),
            remedy="Take the .tar.gz of a release, such as en_ner_bc5cdr_md-0.5.4.tar.gz",
        )
    return homes[0]


def _copy(source: Path, target: Path, keep: Callable[[str], bool]) -> None:
    total = 0
    try:
        for path in sorted(source.rglob("*")):
            if path.is_symlink():
                raise ModelError("holds a link", item=str(path), remedy="Copy the pipeline with its files")
            name = path.relative_to(source)
            if not path.is_file() or not keep(name.as_posix()):
                continue
            total += path.stat().st_size
            if total > MOST_BYTES:
                raise ModelError(f"is too large: at most {MOST_BYTES >> 30} GiB are copied", item=str(source))
            with path.open("rb") as content:
                _write(target / name, content)
    except OSError as error:
        raise ModelError(f"cannot be copied ({error.strerror or error})", item=str(source)) from error


def _write(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
