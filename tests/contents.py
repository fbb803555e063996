"""Everything that a library knows, to compare two of them by."""

from __future__ import annotations

from medsearch_desktop.library import Library


def contents(library: Library) -> dict[str, list[tuple]]:
    """Everything a library knows, without the numbers that depend on the order of arrival."""
    read = library._database.read
    vectors = {}
    for numbers, rows in library.catalogue.vectors(library.model.model_id):
        vectors.update(zip(numbers.tolist(), rows, strict=True))
    images = read("SELECT image_id, path, study_uid, image_no FROM images ORDER BY image_id")
    return {
        "images": [(i, p, s, vectors[no].tobytes()) for i, p, s, no in images],
        "reports": read("SELECT path, text, study_uid, link_rule FROM reports ORDER BY path"),
        "entities": read(
            "SELECT r.path, e.ordinal, e.text, e.assertion FROM entities e JOIN reports r USING (report_no)"
            " ORDER BY ALL"
        ),
        "studies": read("SELECT study_uid, patient_id, study_date FROM studies ORDER BY ALL"),
        "series": read("SELECT series_uid FROM series ORDER BY ALL"),
        "patients": read("SELECT patient_id FROM patients ORDER BY ALL"),
        "files": read("SELECT path, sha256, state FROM files ORDER BY ALL"),
    }
