"""Draw README's picture from the demo library: `python ui/pictures/draw.py LIBRARY`.

A query film with its nearest neighbours of the same view, each with what its report says.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from medsearch_desktop import open_library

QUERY = 'impression:"large right pleural effusion" view:PA'
SIZE, GAP, CAPTION = 300, 12, 96
BACKGROUND, TEXT, FAINT = (24, 26, 30), (222, 224, 228), (140, 146, 156)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Break a text into at most `most` lines of `width` pixels."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    lines.append(line)
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1] + " …"]


def main(library_path: str) -> None:
    """Write demo.webp beside this file."""
    font, small = ImageFont.load_default(16), ImageFont.load_default(14)
    with open_library(library_path) as library:
        hit = library.search(QUERY, k=1).hits[0]
        query = next(image_id for image_id in hit.image_ids if library.view_of(image_id) == "PA")
        answer = library.similar(query, k=3, where="view:PA")
        cells = [(query, "asked", " ".join(hit.snippet.replace("…", "").split()))]
        cells += [(near.image_id, f"cosine {near.score:.3f}", near.impression) for near in answer.hits]
        sheet = Image.new("RGB", (len(cells) * (SIZE + GAP) + GAP, SIZE + CAPTION + 2 * GAP), BACKGROUND)
        pen = ImageDraw.Draw(sheet)
        for place, (image_id, title, words) in enumerate(cells):
            picture = library.thumbnail(image_id)
            assert picture is not None
            film = Image.open(io.BytesIO(picture)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
            left = GAP + place * (SIZE + GAP)
            sheet.paste(film, (left, GAP))
            pen.text((left, SIZE + GAP + 6), title, font=font, fill=TEXT)
            for row, line in enumerate(wrapped(words, small, SIZE, 3)):
                pen.text((left, SIZE + GAP + 30 + 20 * row), line, font=small, fill=FAINT)
    sheet.save(Path(__file__).with_name("demo.webp"), quality=82, method=6)


if __name__ == "__main__":
    main(sys.argv[1])
