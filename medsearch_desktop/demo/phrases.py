"""The words for each finding: noun phrases, sentences of presence, doubt, absence and the past."""

from __future__ import annotations

from collections.abc import Mapping

from medsearch_desktop.demo.truth import Finding

NODULE_MM = {"small": 15, "moderate": 23, "large": 30}
_LOBES = {
    ("right", "upper"): "right upper lobe",
    ("right", "middle"): "right middle lobe",
    ("right", "lower"): "right lower lobe",
    ("left", "upper"): "left upper lobe",
    ("left", "middle"): "lingula of the left lung",
    ("left", "lower"): "left lower lobe",
}
_ZONES = {"upper": "upper lung zone", "middle": "mid lung zone", "lower": "lower lung zone"}
_DEGREES = {"small": "mild", "moderate": "moderate", "large": "severe"}

NOUNS: Mapping[str, str] = {
    "Effusion": "pleural effusion",
    "Cardiomegaly": "cardiomegaly",
    "Pneumothorax": "pneumothorax",
    "Nodule": "pulmonary nodule",
    "Consolidation": "focal consolidation",
    "Edema": "pulmonary edema",
    "Pneumonia": "pneumonia",
    "Atelectasis": "atelectasis",
    "Mass": "pulmonary mass",
}
"""What a list of absent findings calls each."""

DETAILS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Effusion": {
        "small": ("{Side} costophrenic angle is blunted.", "It is seen as blunting of the {side} costophrenic angle."),
        "moderate": (
            "The {side} hemidiaphragm is obscured.",
            "A meniscus is seen along the {side} lateral chest wall.",
        ),
        "large": (
            "There is near complete opacification of the mid and lower {side} hemithorax.",
            "Only the {side} upper lung remains aerated.",
        ),
    },
    "Cardiomegaly": {
        "small": ("The cardiothoracic ratio is just above the normal limit.",),
        "moderate": ("The cardiothoracic ratio is clearly increased.", "The left heart border extends laterally."),
        "large": ("The left heart border nearly reaches the lateral chest wall.",),
    },
    "Pneumothorax": {
        "small": ("A thin visceral pleural line is seen at the {side} apex.", "There is no mediastinal shift."),
        "moderate": (
            "The visceral pleural line is seen along the {side} upper and lateral chest wall.",
            "There is no mediastinal shift.",
        ),
        "large": (
            "The {side} lung has collapsed towards the hilum, without mediastinal shift.",
            "No lung markings are seen in the {side} lateral hemithorax.",
        ),
    },
    "Nodule": {
        "small": ("CT is recommended for characterisation.", "It has smooth margins."),
        "moderate": ("CT of the chest is recommended.", "Its margins are well defined."),
        "large": ("Further evaluation by contrast-enhanced CT is recommended.",),
    },
    "Consolidation": {
        "small": ("Follow-up to clearance is advised.",),
        "moderate": ("Air bronchograms are seen within it.", "Follow-up radiograph in six weeks is advised."),
        "large": ("Air bronchograms are prominent.", "Follow-up to resolution is recommended."),
    },
    "Edema": {
        "small": ("The upper lobe vessels are distended.", "There is cephalisation of the pulmonary vessels."),
        "moderate": (
            "There are perihilar opacities and Kerley B lines at both bases.",
            "Septal lines are seen at the lung bases.",
        ),
        "large": (
            "Perihilar opacities have a bat-wing distribution.",
            "There is extensive perihilar airspace opacity.",
        ),
    },
}

UNCERTAIN: Mapping[str, tuple[str, ...]] = {
    "Effusion": (
        "A trace {side} pleural effusion cannot be excluded.",
        "Possible tiny {side} pleural effusion.",
        "There may be a minimal {side} pleural effusion.",
    ),
    "Pneumothorax": (
        "A tiny {side} apical pneumothorax cannot be excluded.",
        "Questionable small {side} apical pneumothorax, which may be a skin fold.",
    ),
    "Nodule": (
        "Possible small nodule projecting over the {side} lung, which may represent a nipple shadow.",
        "A subtle {side} lung nodule cannot be excluded; overlapping rib and vessel are more likely.",
    ),
    "Consolidation": (
        "Early consolidation at the {side} base cannot be excluded.",
        "Possible developing consolidation in the {side} lower lung.",
    ),
    "Edema": (
        "Mild interstitial edema cannot be excluded.",
        "Findings may represent minimal interstitial pulmonary edema.",
    ),
    "Cardiomegaly": (
        "Heart size is at the upper limit of normal; borderline cardiomegaly cannot be excluded.",
        "Possible mild cardiomegaly, accentuated by technique.",
    ),
    "Atelectasis": (
        "There may be minor {side} basal atelectasis.",
        "Possible subsegmental atelectasis at the {side} base.",
    ),
}

NORMAL_HEART = (
    "The heart size is normal.",
    "The cardiac silhouette is normal in size.",
    "No cardiomegaly.",
    "The heart is not enlarged.",
    "Heart size within normal limits.",
)
FILLERS = (
    "The mediastinal contours are unremarkable.",
    "The osseous structures are intact.",
    "No acute osseous abnormality.",
    "The trachea is midline.",
    "No free air below the diaphragm.",
    "Hilar contours are normal.",
)
AGED_FILLERS = (*FILLERS, "Mild degenerative changes of the thoracic spine.", "The thoracic aorta is tortuous.")
AGED = 58
"""From this age on a report may remark on wear, or wonder about the heart."""
FOLLOW_UPS = ("Follow-up of {noun}.", "Interval follow-up, prior {noun}.", "Assess for resolution of {noun}.")
INDICATIONS: Mapping[str, tuple[str, ...]] = {
    "": ("Cough.", "Chest pain.", "Preoperative evaluation.", "Annual check-up.", "Fever, rule out pneumonia."),
    "Effusion": ("Shortness of breath, evaluate for effusion.", "Dyspnea and reduced breath sounds."),
    "Cardiomegaly": ("Hypertension.", "Dyspnea on exertion."),
    "Pneumothorax": ("Sudden chest pain, rule out pneumothorax.", "Pleuritic chest pain after a fall."),
    "Nodule": ("Weight loss, smoker.", "Family history of lung cancer, persistent cough."),
    "Consolidation": ("Fever and productive cough.", "Suspected pneumonia."),
    "Edema": ("Acute dyspnea, evaluate for heart failure.", "Hypoxia and leg swelling."),
}


def noun_phrase(finding: Finding) -> str:
    """Return the finding with its size and side, without an article: "small left pleural effusion"."""
    side, size = finding.side, finding.size
    lobe = _LOBES.get((side, finding.place), "")
    degree = _DEGREES[size]
    if finding.name == "Effusion":
        return f"{size} {side} pleural effusions" if side == "bilateral" else f"{size} {side} pleural effusion"
    if finding.name == "Cardiomegaly":
        return f"{'marked' if size == 'large' else degree} cardiomegaly"
    if finding.name == "Pneumothorax":
        return f"{size} {side} {'apical ' if size == 'small' else ''}pneumothorax"
    if finding.name == "Nodule":
        return f"{NODULE_MM[size]} mm nodule in the {side} {_ZONES[finding.place]}"
    if finding.name == "Consolidation":
        kind = {"small": "patchy", "moderate": "focal", "large": "dense"}[size]
        return f"{kind} consolidation in the {lobe}"
    return f"{degree} pulmonary edema"


def with_article(finding: Finding) -> str:
    """Return the noun phrase as a sentence needs it: "a 15 mm nodule", but "mild cardiomegaly"."""
    phrase = noun_phrase(finding)
    if finding.name in ("Cardiomegaly", "Edema", "Consolidation") or finding.side == "bilateral":
        return phrase
    return f"a {phrase}"


def details(finding: Finding) -> tuple[str, ...]:
    """Return sentences that describe the finding further without naming another."""
    both = finding.side == "bilateral"
    if both and finding.name == "Effusion":
        return ("Both costophrenic angles are blunted.",)
    return tuple(
        text.format(side=finding.side, Side=f"The {finding.side}") for text in DETAILS[finding.name][finding.size]
    )


def listed(words: list[str], last: str) -> str:
    """Return words joined by commas, and the last by `last`: "a, b or c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
