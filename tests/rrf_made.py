"""Metathesaurus files of our own making, in the layout of the Rich Release Format."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path


def atom(
    cui: str,
    text: str,
    *,
    sab: str = "MTH",
    code: str = "",
    language: str = "ENG",
    suppress: str = "N",
    preferred: bool = True,
    tty: str = "PT",
) -> str:
    """Return one line of MRCONSO.RRF."""
    status, is_preferred = ("P", "Y") if preferred else ("S", "N")
    cells = [cui, language, status, "L1", "PF", "S1", is_preferred, "A1", "", "", "", sab, tty, code, text, "0"]
    return "|".join([*cells, suppress, "256"]) + "|"


def style(cui: str, name: str) -> str:
    """Return one line of MRSTY.RRF."""
    return "|".join([cui, "T047", "B2.2", name, "AT1", "256"]) + "|"


def definition(cui: str, text: str) -> str:
    """Return one line of MRDEF.RRF."""
    return "|".join([cui, "A1", "AT1", "S1", "MSH", text, "N", "256"]) + "|"


def write(path: Path, lines: Iterable[str], *, packed: bool = False) -> None:
    """Write a file of those lines, packed when asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        with gzip.open(path.with_name(f"{path.name}.gz"), "wt", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
    else:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)


# CUIs beyond those given out, names that no terminology has.
ATOMS = (
    atom("C9900001", "Glimmer lung syndrome"),
    atom("C9900001", "Sparkling lung disease", preferred=False),
    atom("C9900001", "Glimmer lung", sab="ICD10CM", code="J98.4", preferred=False),
    atom("C9900001", "Enfermedad del pulmon brillante", language="SPA", preferred=False),
    atom("C9900001", "Twinkling chest", suppress="O", preferred=False),
    atom("C9900002", "Wobbling patella deformity", sab="ICD10CM", code="M22.00"),
    atom("C9900003", "Brumal sclerosis of the ankle", sab="ICD10CM", code="Q99.99"),
    atom("C9900004", "Zygodactyl protein", sab="MSH", code="D1"),
    atom("C9900005", "Umbral spleen sign"),
)
STYLES = (
    style("C9900001", "Disease or Syndrome"),
    style("C9900002", "Acquired Abnormality"),
    style("C9900003", "Disease or Syndrome"),
    style("C9900004", "Amino Acid, Peptide, or Protein"),
    style("C9900005", "Finding"),
)


def release(folder: Path, *, packed: bool = False, many: int = 0) -> Path:
    """Write a small release and return its META folder; `many` adds as many concepts of one name each."""
    meta = folder / "2026AA" / "META"
    more = [f"C{number:07d}" for number in range(1, many + 1)]
    atoms = (atom(cui, f"Disorder number {cui} of region {index % 997}") for index, cui in enumerate(more))
    write(meta / "MRCONSO.RRF", (*ATOMS, *atoms), packed=packed)
    write(meta / "MRSTY.RRF", (*STYLES, *(style(cui, "Disease or Syndrome") for cui in more)), packed=packed)
    write(meta / "MRDEF.RRF", [definition("C9900001", "A lung that glimmers.")], packed=packed)
    return meta
