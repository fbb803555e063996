"""Whole reports in the styles that departments write, cut into their parts."""

from __future__ import annotations

import pytest

from medsearch_desktop.report.sections import find_sections

STYLES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "final report, masks, numbered impression, notification": (
        (
            "                                 FINAL REPORT\n"
            " EXAMINATION:  CHEST (PORTABLE AP)\n"
            " \n"
            " INDICATION:  ___ year old man with fever.  // eval for pneumonia\n"
            " \n"
            " TECHNIQUE:  Portable upright chest radiograph.\n"
            " \n"
            " COMPARISON:  ___.\n"
            " \n"
            " FINDINGS: \n"
            " \n"
            " Lung volumes are low.  There is a moderate left pleural effusion.\n"
            " \n"
            " IMPRESSION: \n"
            " \n"
            " 1.  Moderate left effusion.\n"
            " 2.  No pneumothorax.\n"
            " \n"
            " NOTIFICATION:   The findings were discussed with ___, M.D. by ___, M.D. on the\n"
            " telephone on ___ at 3:14 PM, 5 minutes after discovery of the findings."
        ),
        [
            ("EXAMINATION", "CHEST (PORTABLE AP)"),
            ("INDICATION", "___ year old man with fever.  // eval for pneumonia"),
            ("TECHNIQUE", "Portable upright chest radiograph."),
            ("COMPARISON", "___."),
            ("FINDINGS", "Lung volumes are low.  There is a moderate left pleural effusion."),
            ("IMPRESSION", ("1.  Moderate left effusion.\n 2.  No pneumothorax.")),
            (
                "NOTIFICATION",
                (
                    "The findings were discussed with ___, M.D. by ___, M.D. on the\n"
                    " telephone on ___ at 3:14 PM, 5 minutes after discovery of the findings."
                ),
            ),
        ],
    ),
    "final report, wet reads": (
        (
            "                                 FINAL REPORT\n"
            " CHEST RADIOGRAPH PERFORMED ON ___\n"
            " \n"
            " COMPARISON:  Prior study from ___.\n"
            " \n"
            " CLINICAL HISTORY:  Cough, question pneumonia.\n"
            " \n"
            " FINDINGS:  PA and lateral views of the chest were provided.  No effusion.\n"
            " \n"
            " IMPRESSION:  No acute findings.\n"
            " \n"
            " WET READ: ___ ___ ___ 9:12 PM\n"
            "  No pneumonia. Small hiatal hernia.\n"
            " WET READ VERSION #1\n"
            "  No pneumonia."
        ),
        [
            ("PREAMBLE", "CHEST RADIOGRAPH PERFORMED ON ___"),
            ("COMPARISON", "Prior study from ___."),
            ("HISTORY", "Cough, question pneumonia."),
            ("FINDINGS", "PA and lateral views of the chest were provided.  No effusion."),
            ("IMPRESSION", "No acute findings."),
            ("IMPRESSION", ("___ ___ ___ 9:12 PM\n  No pneumonia. Small hiatal hernia.")),
            ("IMPRESSION", "No pneumonia."),
        ],
    ),
    "wet read first": (
        (
            " WET READ: ___ 6:12 AM\n"
            " Right pneumothorax, small.\n"
            " ______________________________________________________________________________\n"
            "                                 FINAL REPORT\n"
            " INDICATION:  Chest pain.\n"
            " \n"
            " CHEST, TWO VIEWS:  The heart is enlarged. There is no effusion.\n"
            " \n"
            " IMPRESSION:  Cardiomegaly."
        ),
        [
            (
                "IMPRESSION",
                (
                    "___ 6:12 AM\n"
                    " Right pneumothorax, small.\n"
                    " ______________________________________________________________________________"
                ),
            ),
            ("INDICATION", "Chest pain."),
            ("FINDINGS", "CHEST, TWO VIEWS:  The heart is enlarged. There is no effusion."),
            ("IMPRESSION", "Cardiomegaly."),
        ],
    ),
    "findings after a blank line, no heading": (
        (
            "                                 FINAL REPORT\n"
            " REASON FOR EXAMINATION:  Pulmonary edema.\n"
            " \n"
            " Portable AP radiograph of the chest was reviewed in comparison to ___.\n"
            " \n"
            " Heart size is enlarged. Bilateral effusions are small."
        ),
        [
            ("INDICATION", "Pulmonary edema."),
            (
                "FINDINGS",
                (
                    "Portable AP radiograph of the chest was reviewed in comparison to ___.\n"
                    " \n"
                    " Heart size is enlarged. Bilateral effusions are small."
                ),
            ),
        ],
    ),
    "recommendation(s)": (
        (
            "FINDINGS:\n"
            "Nodule in the right upper lobe.\n"
            "IMPRESSION:\n"
            "Right upper lobe nodule.\n"
            "RECOMMENDATION(S):  CT chest for further evaluation of the nodule."
        ),
        [
            ("FINDINGS", "Nodule in the right upper lobe."),
            ("IMPRESSION", "Right upper lobe nodule."),
            ("RECOMMENDATION", "CT chest for further evaluation of the nodule."),
        ],
    ),
    "dash that touches": (
        ("Clinical History- cough\nFindings- The lungs are clear.\nImpression- Normal."),
        [("HISTORY", "cough"), ("FINDINGS", "The lungs are clear."), ("IMPRESSION", "Normal.")],
    ),
    "long dash": (
        ("Findings—The lungs are clear.\nImpression—Normal."),
        [("FINDINGS", "The lungs are clear."), ("IMPRESSION", "Normal.")],
    ),
    "numbered headings": (
        ("1. FINDINGS: No effusion.\n2. IMPRESSION: Normal."),
        [("FINDINGS", "No effusion."), ("IMPRESSION", "Normal.")],
    ),
    "findings before all headings": (
        ("AP chest.\n\nHeart is enlarged. No effusion.\n\nOpinion: cardiomegaly"),
        [("PREAMBLE", "AP chest."), ("FINDINGS", "Heart is enlarged. No effusion."), ("IMPRESSION", "cardiomegaly")],
    ),
    "numbered addenda": (
        (
            "FINDINGS: Clear lungs.\n"
            "IMPRESSION: Normal.\n"
            "ADDENDUM\n"
            "On review there is a rib fracture.\n"
            "ADDENDUM 2: Rib fracture is old.\n"
            "END OF ADDENDUM"
        ),
        [
            ("FINDINGS", "Clear lungs."),
            ("IMPRESSION", "Normal."),
            ("ADDENDUM", "On review there is a rib fracture."),
            ("ADDENDUM", "Rib fracture is old."),
        ],
    ),
    "starred addendum before": (
        ("*** ADDENDUM ***\nSmall nodule is seen.\n*** END OF ADDENDUM ***\n\nFINDINGS: Clear."),
        [("ADDENDUM", "Small nodule is seen."), ("FINDINGS", "Clear.")],
    ),
    "dated addendum, original report": (
        ("ADDENDUM: 3/4/2019 10:22 AM\nNodule is stable.\n\nORIGINAL REPORT:\nFINDINGS: Nodule.\nIMPRESSION: Nodule."),
        [("ADDENDUM", ("3/4/2019 10:22 AM\nNodule is stable.")), ("FINDINGS", "Nodule."), ("IMPRESSION", "Nodule.")],
    ),
    "capitals without any mark": (
        ("EXAM CHEST PA\nHISTORY COUGH\nFINDINGS THE LUNGS ARE CLEAR\nIMPRESSION NORMAL CHEST"),
        [
            ("EXAMINATION", "CHEST PA"),
            ("HISTORY", "COUGH"),
            ("FINDINGS", "THE LUNGS ARE CLEAR"),
            ("IMPRESSION", "NORMAL CHEST"),
        ],
    ),
    "equals sign": (
        ("FINDINGS = Clear.\nIMPRESSION = Normal."),
        [("FINDINGS", "Clear."), ("IMPRESSION", "Normal.")],
    ),
    "organs before the impression": (
        (
            "CHEST: PA AND LATERAL\n"
            "LUNGS AND PLEURA: No effusion.\n"
            "HEART AND MEDIASTINUM: Heart is enlarged.\n"
            "BONES: Old rib fracture.\n"
            "IMPRESSION: Cardiomegaly."
        ),
        [
            (
                "FINDINGS",
                (
                    "CHEST: PA AND LATERAL\n"
                    "LUNGS AND PLEURA: No effusion.\n"
                    "HEART AND MEDIASTINUM: Heart is enlarged.\n"
                    "BONES: Old rib fracture."
                ),
            ),
            ("IMPRESSION", "Cardiomegaly."),
        ],
    ),
    "examination on its own line": (
        (
            "Clinical details: SOB ? effusion\n"
            "XR Chest\n"
            "There is a small right effusion.\n"
            "Conclusion\n"
            "Small effusion.\n"
            "Dr A Smith\n"
            "Consultant Radiologist"
        ),
        [
            ("HISTORY", "SOB ? effusion"),
            ("EXAMINATION", "XR Chest"),
            ("FINDINGS", "There is a small right effusion."),
            ("IMPRESSION", ("Small effusion.\nDr A Smith\nConsultant Radiologist")),
        ],
    ),
    "brackets": (
        ("[FINDINGS]\nClear.\n[IMPRESSION]\nNormal."),
        [("FINDINGS", "Clear."), ("IMPRESSION", "Normal.")],
    ),
    "underscores as mark-up": (
        ("__FINDINGS__\nClear.\n__IMPRESSION__\nNormal."),
        [("FINDINGS", "Clear."), ("IMPRESSION", "Normal.")],
    ),
    "preliminary and final": (
        ("PRELIMINARY REPORT\nFINDINGS: Clear.\nFINAL REPORT\nFINDINGS: Small effusion.\nIMPRESSION: Small effusion."),
        [("FINDINGS", "Clear."), ("FINDINGS", "Small effusion."), ("IMPRESSION", "Small effusion.")],
    ),
    "attending addendum": (
        "ATTENDING ADDENDUM: There is a nodule.",
        [("ADDENDUM", "There is a nodule.")],
    ),
    "tabs": (
        ("FINDINGS:	Clear.\nIMPRESSION:	Normal."),
        [("FINDINGS", "Clear."), ("IMPRESSION", "Normal.")],
    ),
    "spaced out": (
        ("F I N D I N G S : Clear.\nI M P R E S S I O N : Normal."),
        [("FINDINGS", "Clear."), ("IMPRESSION", "Normal.")],
    ),
    "one line, masks": (
        "COMPARISON: XXXX, XXXX INDICATION: XXXX-year-old with XXXX. FINDINGS: The heart is XXXX. IMPRESSION: Normal.",
        [
            ("COMPARISON", "XXXX, XXXX"),
            ("INDICATION", "XXXX-year-old with XXXX."),
            ("FINDINGS", "The heart is XXXX."),
            ("IMPRESSION", "Normal."),
        ],
    ),
    "underlined": (
        ("FINDINGS\n--------\nClear.\nIMPRESSION\n==========\nNormal."),
        [("FINDINGS", "Clear."), ("IMPRESSION", "Normal.")],
    ),
    "title, history, findings": (
        (
            "CHEST, SINGLE AP VIEW\n"
            "\n"
            "HISTORY: Fever.\n"
            "\n"
            "Single AP view. The heart is enlarged.\n"
            "\n"
            "IMPRESSION:  Cardiomegaly."
        ),
        [
            ("PREAMBLE", "CHEST, SINGLE AP VIEW"),
            ("HISTORY", "Fever."),
            ("FINDINGS", "Single AP view. The heart is enlarged."),
            ("IMPRESSION", "Cardiomegaly."),
        ],
    ),
    "small letters, own lines": (
        ("findings\nthe lungs are clear.\n\nimpression\nnormal chest."),
        [("FINDINGS", "the lungs are clear."), ("IMPRESSION", "normal chest.")],
    ),
    "recommendation in the line": (
        "Findings: Clear. Impression: Normal. Recommendation: CT for the nodule.",
        [("FINDINGS", "Clear."), ("IMPRESSION", "Normal."), ("RECOMMENDATION", "CT for the nodule.")],
    ),
}


@pytest.mark.parametrize(("text", "expected"), STYLES.values(), ids=STYLES.keys())
def test_cuts_the_style(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(section.name, text[section.start : section.end]) for section in find_sections(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "FINDINGS CONSISTENT WITH PNEUMONIA\nIMPRESSION OF A MASS IN THE LEFT LOBE",
        "Comparison with the prior study shows no change.\nHistory of cancer.",
        "There are new\nfindings\nin the right lung.",
        "Impression of the catheter on the skin.",
        "The exam: limited by motion.",
    ],
)
def test_a_sentence_is_no_heading(text: str) -> None:
    assert [(section.name, text[section.start : section.end]) for section in find_sections(text)] == [
        ("FINDINGS", text)
    ]
