"""What constructed sentences say of their mentions."""

from __future__ import annotations

import pytest

from medsearch_desktop.records import Assertion, Section
from medsearch_desktop.report.entities import EntityExtractor

P, A, U = "present", "absent", "uncertain"
HIST, FAM, HYP = "historical", "family", "hypothetical"


@pytest.fixture(scope="module")
def extractor() -> EntityExtractor:
    return EntityExtractor()


def said(extractor: EntityExtractor, text: str, section: str = "FINDINGS") -> dict[str, str]:
    """Return the assertion of each finding or other mention, the strongest where there are several."""
    rank = {name: place for place, name in enumerate((P, U, HYP, FAM, HIST, A))}
    result: dict[str, str] = {}
    for entity in extractor.extract(text, (Section(section, 0, len(text)),)):
        if entity.category == "Anatomy":
            continue
        key = entity.finding or entity.text.lower()
        if key not in result or rank[entity.assertion] < rank[result[key]]:
            result[key] = str(entity.assertion)
    return result


CASES: list[tuple[str, dict[str, str]]] = [
    # A differential runs through its commas, whether or not an "or" closes it.
    ("The differential includes atelectasis, pneumonia, edema.", {"Atelectasis": U, "Pneumonia": U, "Edema": U}),
    (
        "Left basal opacity, differential diagnosis including small nodule, pneumonia, fibrosis; there is an effusion.",
        {"opacity": P, "Nodule": U, "Pneumonia": U, "Fibrosis": U, "Effusion": P},
    ),
    ("Differential: pneumonia, edema. Cardiomegaly.", {"Pneumonia": U, "Edema": U, "Cardiomegaly": P}),
    # What only the clinic can tell.
    ("In the appropriate clinical setting, this is consistent with pneumonia.", {"Pneumonia": U}),
    ("Consistent with pneumonia in the right clinical context.", {"Pneumonia": U}),
    ("Cardiomegaly, and in the proper clinical setting edema.", {"Cardiomegaly": P, "Edema": P}),
    ("Correlate clinically for pneumonia.", {"Pneumonia": HYP}),
    ("Findings are most suggestive of pulmonary edema.", {"Edema": P}),
    ("Findings are suggestive of pulmonary edema.", {"Edema": U}),
    ("Small effusions suspected on the lateral view.", {"Effusion": U}),
    ("Suspected nodule in the right apex.", {"Nodule": U}),
    ("The lungs are otherwise clear of consolidation, nodule, or mass.", {"Consolidation": A, "Nodule": A, "Mass": A}),
    # A shadow that is none.
    ("The nodular density represents a nipple shadow.", {"Nodule": A, "nipple shadow": P}),
    ("Nodule at the left base may represent summation of shadows.", {"Nodule": U}),
    ("Nodule due to metastasis.", {"Nodule": P, "metastasis": P}),
    # Plainly said.
    ("There is a small left pleural effusion.", {"Effusion": P}),
    ("Mild cardiomegaly with bibasilar atelectasis.", {"Cardiomegaly": P, "Atelectasis": P}),
    ("The heart is moderately enlarged.", {"Cardiomegaly": P}),
    ("Enlargement of the cardiac silhouette.", {"Cardiomegaly": P}),
    ("Right upper lobe consolidation.", {"Consolidation": P}),
    ("Large hiatus hernia behind the heart.", {"Hernia": P}),
    ("Biapical pleural thickening.", {"Pleural_Thickening": P}),
    ("Hydropneumothorax on the right.", {"Effusion": P, "Pneumothorax": P}),
    ("Pulmonary oedema has developed.", {"Edema": P}),
    ("A 12 mm nodule in the lingula.", {"Nodule": P}),
    # Denied.
    ("No pleural effusion.", {"Effusion": A}),
    ("No effusion, pneumothorax or consolidation.", {"Effusion": A, "Pneumothorax": A, "Consolidation": A}),
    (
        "No focal consolidation, pleural effusion, or pneumothorax is seen.",
        {"Consolidation": A, "Effusion": A, "Pneumothorax": A},
    ),
    ("There is no evidence of pneumothorax or pleural effusion.", {"Pneumothorax": A, "Effusion": A}),
    ("Without pneumothorax.", {"Pneumothorax": A}),
    ("Negative for pneumonia.", {"Pneumonia": A}),
    ("The lungs are free of consolidation and effusion.", {"Consolidation": A, "Effusion": A}),
    ("Lungs clear of infiltrate.", {"Infiltration": A}),
    ("Neither effusion nor pneumothorax is present.", {"Effusion": A, "Pneumothorax": A}),
    ("Absence of pneumothorax.", {"Pneumothorax": A}),
    ("Pneumothorax is not seen.", {"Pneumothorax": A}),
    ("Pleural effusion or pneumothorax is not identified.", {"Effusion": A, "Pneumothorax": A}),
    ("Consolidation, effusion, or pneumothorax is not seen.", {"Consolidation": A, "Effusion": A, "Pneumothorax": A}),
    ("Pneumothorax: none.", {"Pneumothorax": A}),
    (
        "Pleural effusion: No\nPneumothorax: No\nCardiomegaly: Yes",
        {"Effusion": A, "Pneumothorax": A, "Cardiomegaly": P},
    ),
    ("Pneumothorax - none", {"Pneumothorax": A}),
    ("The heart is not enlarged.", {"Cardiomegaly": A}),
    ("Heart size is not significantly enlarged.", {"Cardiomegaly": A}),
    ("Pneumonia is unlikely.", {"Pneumonia": A}),
    ("Pneumonia has been ruled out.", {"Pneumonia": A}),
    ("No findings suspicious for pneumonia.", {"Pneumonia": A}),
    ("No opacity to suggest pneumonia.", {"opacity": A, "Pneumonia": A}),
    ("No consolidation concerning for pneumonia.", {"Consolidation": A, "Pneumonia": A}),
    ("No definite pneumothorax.", {"Pneumothorax": A}),
    (
        "Lungs are well expanded without consolidation, effusion or pneumothorax.",
        {"Consolidation": A, "Effusion": A, "Pneumothorax": A},
    ),
    ("The patient denies fever.", {"fever": A}),
    ("This does not represent pneumonia.", {"Pneumonia": A}),
    # A denied list ends where something new is said.
    ("No effusion, stable cardiomegaly.", {"Effusion": A, "Cardiomegaly": P}),
    ("No pneumothorax and small right effusion.", {"Pneumothorax": A, "Effusion": P}),
    ("No pneumothorax, but there is a moderate effusion.", {"Pneumothorax": A, "Effusion": P}),
    ("No pneumothorax; mild cardiomegaly.", {"Pneumothorax": A, "Cardiomegaly": P}),
    ("No pneumothorax is seen, bibasilar atelectasis.", {"Pneumothorax": A, "Atelectasis": P}),
    ("No consolidation, the heart is enlarged.", {"Consolidation": A, "Cardiomegaly": P}),
    ("No acute abnormality except mild atelectasis.", {"acute abnormality": A, "Atelectasis": P}),
    ("No effusion although cardiomegaly persists.", {"Effusion": A, "Cardiomegaly": P}),
    ("Cardiomegaly without edema.", {"Cardiomegaly": P, "Edema": A}),
    ("Cardiomegaly is present and effusion is not seen.", {"Cardiomegaly": P, "Effusion": A}),
    ("There is mild cardiomegaly, pneumothorax is not seen.", {"Cardiomegaly": P, "Pneumothorax": A}),
    ("No pneumothorax, possible small effusion.", {"Pneumothorax": A, "Effusion": U}),
    ("Atelectasis (no pneumothorax) and an effusion.", {"Atelectasis": P, "Pneumothorax": A, "Effusion": P}),
    ("No small effusion, tiny nodule, or edema.", {"Effusion": A, "Nodule": A, "Edema": A}),
    # Looks like a denial, is none.
    ("No change in the cardiomegaly.", {"Cardiomegaly": P}),
    ("No significant interval change in left pleural effusion.", {"Effusion": P}),
    ("Effusion has not significantly changed.", {"Effusion": P}),
    ("No interval increase in the pneumothorax.", {"Pneumothorax": P}),
    ("Pneumonia has not resolved.", {"Pneumonia": P}),
    ("Near complete resolution of the effusion.", {"Effusion": P}),
    ("Not only atelectasis but also effusion.", {"Atelectasis": P, "Effusion": P}),
    ("No prior studies. Mild edema.", {"Edema": P}),
    ("Nodule not seen on the prior exam.", {"Nodule": P}),
    ("Recommend CT to further evaluate the nodule.", {"ct": P, "Nodule": P}),
    # Gone.
    ("The previously seen pneumothorax has resolved.", {"Pneumothorax": A}),
    ("Interval resolution of the right effusion.", {"Effusion": A}),
    ("Left pneumothorax is no longer seen.", {"Pneumothorax": A}),
    ("Resolved pneumonia.", {"Pneumonia": A}),
    ("The chest tube has been removed.", {"chest tube": A}),
    # Likely counts as said.
    ("Likely left basilar atelectasis.", {"Atelectasis": P}),
    ("Findings consistent with pulmonary edema.", {"Edema": P}),
    ("Probable small effusion.", {"Effusion": P}),
    ("Opacity most likely represents atelectasis.", {"opacity": P, "Atelectasis": P}),
    ("Opacity compatible with pneumonia.", {"opacity": P, "Pneumonia": P}),
    ("No consolidation, likely atelectasis.", {"Consolidation": A, "Atelectasis": P}),
    ("Scarring or atelectasis at the left base.", {"scarring": P, "Atelectasis": P}),
    # Possible does not.
    ("Possible pneumonia.", {"Pneumonia": U}),
    ("Opacity may represent atelectasis.", {"opacity": P, "Atelectasis": U}),
    (
        "Opacity could represent atelectasis, infiltrate, or pneumonia.",
        {"opacity": P, "Atelectasis": U, "Infiltration": U, "Pneumonia": U},
    ),
    ("Pneumonia cannot be excluded.", {"Pneumonia": U}),
    ("Cannot exclude a small pneumothorax.", {"Pneumothorax": U}),
    ("Underlying pneumonia is not excluded.", {"Pneumonia": U}),
    ("Atelectasis versus infiltrate at the right base.", {"Atelectasis": U, "Infiltration": U}),
    ("Suspicious for a mass.", {"Mass": U}),
    ("Questionable nodule.", {"Nodule": U}),
    ("Pneumonia?", {"Pneumonia": U}),
    ("? pneumonia", {"Pneumonia": U}),
    ("Pneumonia is possible.", {"Pneumonia": U}),
    ("Atelectasis, less likely pneumonia.", {"Atelectasis": P, "Pneumonia": U}),
    ("Pneumonia should be considered.", {"Pneumonia": U}),
    ("Findings suggest edema.", {"Edema": U}),
    ("Borderline cardiac enlargement.", {"Cardiomegaly": U}),
    ("Heart size is at the upper limits of normal.", {"Cardiomegaly": U}),
    ("The heart may be enlarged.", {"Cardiomegaly": U}),
    ("Left base opacity, atelectasis vs. pneumonia.", {"opacity": P, "Atelectasis": U, "Pneumonia": U}),
    ("Doubt pneumonia.", {"Pneumonia": U}),
    ("Heart is top normal in size.", {"Cardiomegaly": U}),
    # Once, someone else's, only thought of.
    ("History of pneumonia.", {"Pneumonia": HIST}),
    ("History of emphysema and now has consolidation.", {"Emphysema": HIST, "Consolidation": P}),
    ("No history of pneumothorax.", {"Pneumothorax": A}),
    ("Prior pneumonia.", {"Pneumonia": HIST}),
    ("Compared to the prior study the effusion is larger.", {"Effusion": P}),
    ("Family history of lung cancer.", {"lung cancer": FAM}),
    ("Mother had emphysema.", {"Emphysema": FAM}),
    ("Rule out pneumothorax.", {"Pneumothorax": HYP}),
    ("Evaluate for pneumonia or effusion.", {"Pneumonia": HYP, "Effusion": HYP}),
    ("Return if fever develops.", {"fever": HYP}),
    ("CT is advised if pneumonia is suspected.", {"ct": P, "Pneumonia": HYP}),
    # Normal organs.
    ("Heart size is normal.", {"Cardiomegaly": A}),
    ("Normal heart size.", {"Cardiomegaly": A}),
    ("The heart, hila and mediastinum are within normal limits.", {"Cardiomegaly": A}),
    ("Cardiomediastinal silhouette is unremarkable.", {"Cardiomegaly": A}),
    ("Costophrenic angles are sharp.", {"Effusion": A}),
    ("Heart size normal and aorta enlarged.", {"Cardiomegaly": A}),
    # Traps: what sounds like a finding and is none.
    ("Subcutaneous emphysema in the neck.", {"subcutaneous emphysema": P}),
    ("Known cystic fibrosis.", {"cystic fibrosis": P}),
    ("Small pericardial effusion.", {"pericardial effusion": P}),
    ("Pedal edema.", {"pedal edema": P}),
    ("Inguinal hernia.", {"inguinal hernia": P}),
    ("No mass effect.", {"mass effect": A}),
    # Capitals, no punctuation, masks, wrapped lines, hyphens.
    (
        "NO PLEURAL EFFUSION OR PNEUMOTHORAX THE HEART IS ENLARGED",
        {"Effusion": A, "Pneumothorax": A, "Cardiomegaly": P},
    ),
    ("NO ACUTE INFILTRATE. STABLE CARDIOMEGALY.", {"Infiltration": A, "Cardiomegaly": P}),
    ("No pneumothorax\nMild cardiomegaly\nSmall effusion", {"Pneumothorax": A, "Cardiomegaly": P, "Effusion": P}),
    ("No XXXX pleural effusion.", {"Effusion": A}),
    ("No ___ pneumothorax. Small ___ effusion.", {"Pneumothorax": A, "Effusion": P}),
    (
        "There is no focal air-space consolidation, pleural\neffusion or pneumothorax.",
        {"Consolidation": A, "Effusion": A, "Pneumothorax": A},
    ),
    ("No consolidation.Small effusion.", {"Consolidation": A, "Effusion": P}),
    ("1. No pneumothorax. 2. Small effusion.", {"Pneumothorax": A, "Effusion": P}),
    ("- No pneumothorax\n- Effusion\n", {"Pneumothorax": A, "Effusion": P}),
    ("Nodule measures 3.5 cm vs. 3.0 cm before, no effusion.", {"Nodule": P, "Effusion": A}),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[case[0][:60] for case in CASES])
def test_says(extractor: EntityExtractor, text: str, expected: dict[str, str]) -> None:
    assert said(extractor, text) == expected


def test_clear_lungs_rule_out_what_would_be_seen_in_them(extractor: EntityExtractor) -> None:
    found = said(extractor, "The lungs are clear bilaterally.")
    assert found == dict.fromkeys(
        ("Atelectasis", "Consolidation", "Edema", "Infiltration", "Mass", "Nodule", "Pneumonia"), A
    )


@pytest.mark.parametrize(
    "text", ["The lungs are otherwise clear.", "The left lung is clear.", "The lungs are not clear."]
)
def test_partly_clear_lungs_rule_out_nothing(extractor: EntityExtractor, text: str) -> None:
    assert said(extractor, text) == {}


def test_inference_shows_its_evidence(extractor: EntityExtractor) -> None:
    text = "Overall heart size is within normal limits."
    (entity,) = [e for e in extractor.extract(text, (Section("FINDINGS", 0, len(text)),)) if e.finding]
    assert (entity.finding, entity.assertion) == ("Cardiomegaly", Assertion.ABSENT)
    assert entity.text == text[entity.start : entity.end] == "Overall heart size"
    assert entity.cue == text[entity.cue_start : entity.cue_end] == "is within normal limits"


@pytest.mark.parametrize(
    ("section", "text", "expected"),
    [
        ("INDICATION", "Cough, rule out pneumonia.", {"cough": P, "Pneumonia": HYP}),
        ("INDICATION", "Pneumonia", {"Pneumonia": HYP}),
        ("HISTORY", "COPD, chest pain.", {"copd": HIST, "chest pain": P}),
        ("COMPARISON", "Radiograph that showed an effusion.", {"radiograph": P, "Effusion": HIST}),
        ("IMPRESSION", "Pneumonia", {"Pneumonia": P}),
    ],
)
def test_section_decides_where_nothing_else_does(
    extractor: EntityExtractor, section: str, text: str, expected: dict[str, str]
) -> None:
    assert said(extractor, text, section) == expected


def test_evidence_is_the_text_of_the_cue(extractor: EntityExtractor) -> None:
    text = "Heart normal.\nThere is no evidence of\npleural  effusion."
    effusion = next(e for e in extractor.extract(text, (Section("FINDINGS", 0, len(text)),)) if e.finding == "Effusion")
    assert effusion.text == "pleural  effusion"
    assert effusion.cue == text[effusion.cue_start : effusion.cue_end] == "no evidence of"
