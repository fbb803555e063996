"""Which files there are to send: of studies, series and single images, one image for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medsearch_desktop.store.database import Database


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """A file to send, by the first of its images; `size` is in bytes as of the last ingest."""

    image_id: str
    study_uid: str
    series_uid: str
    size: int


class OutgoingFiles:
    """Finds the files of what is to be sent; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(
        self, *, studies: Sequence[str], series: Sequence[str], images: Sequence[str], most: int
    ) -> list[OutgoingFile]:
        """Return at most `most` files of all of these together, in the order of study, series and instance."""
        rows = self._database.read(
            "WITH wanted AS (SELECT image_id, study_uid, series_uid, path, frame, instance_number FROM images"
            "  WHERE study_uid IN (SELECT unnest($studies)) OR series_uid IN (SELECT unnest($series))"
            "  OR path IN (SELECT path FROM images WHERE image_id IN (SELECT unnest($images)))),"
            # The frames of an instance are in one file.
            " firsts AS (SELECT arg_min(image_id, frame) AS image_id, any_value(study_uid) AS study_uid,"
            "  any_value(series_uid) AS series_uid, min(instance_number) AS instance_number, path"
            "  FROM wanted GROUP BY path)"
            " SELECT image_id, firsts.study_uid, series_uid, size FROM firsts JOIN files USING (path)"
            " JOIN series USING (series_uid)"
            " ORDER BY firsts.study_uid, series_number, series_uid, instance_number, image_id LIMIT $most",
            {"studies": list(studies), "series": list(series), "images": list(images), "most": most},
        )
        return [OutgoingFile(*row) for row in rows]
