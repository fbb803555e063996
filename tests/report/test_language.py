"""Which language a report is in, and that none is pretended to be read."""

from __future__ import annotations

import pytest

from medsearch_desktop.report.language import language_of
from medsearch_desktop.report.reader import ReportReader, extract_json


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "FINDINGS: No effusion. Heart normal."),
        ("en", "PNEUMONIA EN BLOC DE NOVO"),
        ("en", "History of De Quervain disease, La Crosse, de la Cruz. Lungs clear."),
        ("en", ""),
        ("en", "XXXX ___ XXXX"),
        ("en", "Heart α β γ"),
        ("de", "Kein Nachweis eines Pleuraergusses. Das Herz ist normal. Keine Infiltrate."),
        ("de", "KEIN PNEUMOTHORAX. DAS HERZ IST NICHT VERGRÖSSERT UND DIE LUNGE FREI."),
        ("fr", "Pas d'épanchement pleural. Le coeur est de taille normale."),
        ("it", "Non versamento pleurico. Il cuore è nei limiti della norma."),
        ("es", "Sin derrame pleural. El corazón es normal en tamaño."),
        ("pt", "Sem derrame pleural. O coração não está aumentado de tamanho."),
        ("nl", "Geen pleuravocht. Het hart is niet vergroot."),
        ("pl", "Nie stwierdza się płynu w jamie opłucnej. Serce nie jest powiększone."),
        ("ro", "Cordul nu este mărit. Fără revărsat pleural. În limite normale pe dreapta."),
        ("cs", "Srdce není zvětšené. Plíce jsou bez ložiskových změn."),
        ("sv", "Hjärtat är inte förstorat. Ingen pleuravätska och inga infiltrat."),
        ("hu", "A szív nem nagyobb. Mellkasi folyadék nincs, és a tüdő kóros eltérés nélkül."),
        ("und-Cyrl", "Лёгкие без очаговых изменений. Пневмоторакса нет."),
        ("und-Grek", "Χωρίς πλευριτική συλλογή."),
        ("und-Arab", "لا يوجد انصباب جنبي"),
        ("ja", "胸水は認めません。"),
        ("ko", "흉수 없음"),
    ],
)
def test_language(language: str, text: str) -> None:
    assert language_of(text) == language


def test_another_language_is_said_and_no_mention_pretended() -> None:
    found = extract_json(
        ReportReader().read("Kein Pneumothorax. Das Herz ist nicht groß. Keine Infiltrate.", report_id="r")
    )
    assert (found["language"], found["entities"]) == ("de", [])
    assert found["findings"] == {"present": [], "absent": [], "uncertain": []}
