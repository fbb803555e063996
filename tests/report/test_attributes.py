"""Place, side, size and change of a finding, in the ways that reports put them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsearch_desktop.records import SEVERITIES, AttributeKind, Category, Certainty, Entity
from medsearch_desktop.report.reader import ReportReader
from medsearch_desktop.report.tables import read_table

READER = ReportReader()
# sentence; then a line for each finding: its text | anatomy | laterality | severity | change; "" says nothing.
SENTENCES = """
Small left pleural effusion and moderate right pneumothorax.
    pleural effusion | | left | mild |
    pneumothorax | | right | moderate |
Bibasilar atelectasis, left greater than right.
    Bibasilar atelectasis | lung base | bilateral | |
Mild to moderate cardiomegaly.
    cardiomegaly | | | mild to moderate |
There is an opacity in the right lower lobe.
    opacity | right lower lobe | right | |
Effusion and atelectasis at the left base.
    Effusion | lung base | left | |
    atelectasis | lung base | left | |
The right pleural effusion is small and unchanged.
    pleural effusion | | right | mild | stable
Interval increase in the small left effusion.
    effusion | | left | mild | increased
No new infiltrate or effusion.
    infiltrate | | | |
    effusion | | | |
Left effusion unchanged, right effusion increased.
    effusion | | left | | stable
    effusion | | right | | increased
Right lung: consolidation and small nodule.
    consolidation | lung | right | |
    nodule | lung | right | mild |
In the left upper lobe there is a mass.
    mass | left upper lobe | left | |
Pneumothorax has resolved.
    Pneumothorax | | | | resolved
Heart is mildly enlarged, stable.
    Heart is mildly enlarged | heart | | mild | stable
Left PICC tip in the SVC.
    PICC | superior vena cava | left | |
Left basilar atelectasis or pneumonia.
    atelectasis | lung base | left | |
    pneumonia | lung base | left | |
Small effusions bilaterally.
    effusions | | bilateral | mild |
No effusion, the left lung is clear.
    effusion | | | |
Stable cardiomegaly with mild pulmonary edema.
    cardiomegaly | | | | stable
    pulmonary edema | | | mild |
The effusion, now moderate, has increased in size.
    effusion | | | moderate | increased
Cardiomegaly and small effusions are unchanged.
    Cardiomegaly | | | | stable
    effusions | | | mild | stable
Right and left pleural effusions.
    pleural effusions | | bilateral | |
Pleural effusion (large, right).
    Pleural effusion | | right | severe |
Opacities in the right upper lobe and lingula, new since the prior study.
    Opacities | right upper lobe, lingula | bilateral | | new
Decreased small right apical pneumothorax.
    apical pneumothorax | lung apex | right | mild | decreased
No significant interval change in the cardiomegaly.
    cardiomegaly | | | | stable
Heart size is normal without effusion.
    effusion | | | |
Trace right effusion.
    effusion | | right | trace |
A tiny nodule is seen in the lingula.
    nodule | lingula | left | trace |
Massive left hydrothorax with midline shift.
    hydrothorax | | left | massive |
Large hiatal hernia.
    hiatal hernia | | | severe |
Moderate to large right pleural effusion.
    pleural effusion | | right | moderate to severe |
Minimal left basal atelectasis.
    basal atelectasis | lung base | left | minimal |
Marked cardiomegaly.
    cardiomegaly | | | severe |
Severe bullous emphysema of the upper lobes.
    bullous emphysema | upper lobe | | severe |
Left-sided pneumothorax, small.
    pneumothorax | | left | mild |
LEFT LOWER LOBE CONSOLIDATION IS WORSE.
    CONSOLIDATION | left lower lobe | left | | increased
RLL pneumonia, improving.
    pneumonia | right lower lobe | right | | decreased
Resolving right middle lobe pneumonia.
    pneumonia | right middle lobe | right | | decreased
Worsening pulmonary edema and stable cardiomegaly.
    pulmonary edema | | | | increased
    cardiomegaly | | | | stable
Interval development of a small right pneumothorax.
    pneumothorax | | right | mild | new
Interval resolution of the left effusion.
    effusion | | left | | resolved
Interval decrease in size of the right effusion.
    effusion | | right | | decreased
The left effusion has decreased, while the right effusion has increased.
    effusion | | left | | decreased
    effusion | | right | | increased
Nodule in the left lung is stable.
    Nodule | lung | left | | stable
Small amount of fluid in the minor fissure.
    fluid in the minor fissure | fissure | | mild |
Small amount of pleural fluid on the right.
    pleural fluid | | right | mild |
Linear scarring in the left base.
    scarring | lung base | left | |
There is blunting of the left costophrenic angle.
    blunting of the left costophrenic angle | costophrenic angle | left | |
Pneumonia is present in the right upper and lower lobes.
    Pneumonia | lower lobe | right | |
Patchy opacities in both lungs.
    Patchy opacities | lung | bilateral | |
Both lungs show scattered nodules.
    nodules | lung | bilateral | |
The left lung demonstrates atelectasis and a small effusion.
    atelectasis | lung | left | |
    effusion | lung | left | mild |
At the right base, there is atelectasis.
    atelectasis | lung base | right | |
Right chest tube is unchanged with no pneumothorax.
    chest tube | thorax | right | | stable
    pneumothorax | | | |
Left subclavian catheter terminates in the right atrium.
    subclavian catheter | subclavian vein, right atrium | bilateral | |
Endotracheal tube tip is in the midline.
    Endotracheal tube | | midline | |
New left lower lobe consolidation but unchanged right effusion.
    consolidation | left lower lobe | left | | new
    effusion | | right | | stable
Cardiomegaly, moderate.
    Cardiomegaly | | | moderate |
Cardiomegaly is moderate and effusion is small.
    Cardiomegaly | | | moderate |
    effusion | | | mild |
Pneumothorax: small, right.
    Pneumothorax | | right | mild |
Effusion, larger on the left.
    Effusion | | left | | increased
Bilateral effusions, right larger than left.
    effusions | | bilateral | |
Bilateral moderate effusions with bibasilar atelectasis.
    effusions | | bilateral | moderate |
    bibasilar atelectasis | lung base | bilateral | |
Right greater than left effusions.
    effusions | | bilateral | |
Fracture of the left clavicle.
    Fracture of the left clavicle | clavicle | left | |
Old healed right rib fractures.
    rib fractures | rib | right | |
Scoliosis is mild.
    Scoliosis | | | mild |
Mild, diffuse interstitial edema.
    interstitial edema | | | mild |
Small, stable left apical pneumothorax.
    apical pneumothorax | lung apex | left | mild | stable
Unchanged severe emphysema.
    emphysema | | | severe | stable
Emphysema is severe and unchanged from the prior examination.
    Emphysema | | | severe | stable
Effusion with mild distention of the stomach.
    Effusion | | | |
Effusion on the left and pneumothorax on the right.
    Effusion | | left | |
    pneumothorax | | right | |
Atelectasis in the left base and pneumonia in the right upper lobe.
    Atelectasis | lung base | left | |
    pneumonia | right upper lobe | right | |
Opacity in the right lower lobe, left effusion.
    Opacity | right lower lobe | right | |
    effusion | | left | |
Consolidation in the right base; small left effusion.
    Consolidation | lung base | right | |
    effusion | | left | mild |
No pneumothorax or effusion on the left.
    pneumothorax | | left | |
    effusion | | left | |
Persistent left basilar consolidation.
    consolidation | lung base | left | | stable
Increased interstitial edema compared to the prior film.
    interstitial edema | | | |
Pulmonary edema has worsened.
    Pulmonary edema | | | | increased
Previously seen nodule is no longer seen.
    nodule | | | | resolved
Pneumothorax is slightly smaller.
    Pneumothorax | | | | decreased
Left upper lobe mass is slightly larger.
    mass | left upper lobe | left | | increased
Atelectasis is minimal.
    Atelectasis | | | minimal |
Slight prominence of the heart without effusion.
    effusion | | | |
Grossly unchanged cardiomegaly.
    cardiomegaly | | | | stable
Moderately enlarged heart.
    enlarged heart | heart | | moderate |
Mild-to-moderate right effusion.
    effusion | | right | mild to moderate |
Oedema, mild, has improved.
    Oedema | | | mild | decreased
Biapical pleural thickening, right more than left.
    pleural thickening | lung apex | bilateral | |
Small calcified granuloma in the left apex.
    calcified granuloma | lung apex | left | mild |
Cough and left chest pain.
    Cough | | | |
    chest pain | thorax | left | |
Left effusion XXXX unchanged.
    effusion | | left | | stable
small left effusion large right pneumothorax
    effusion | | left | mild |
    pneumothorax | | right | severe |
"""


def cases() -> list[tuple[str, list[str]]]:
    lines = [line for line in SENTENCES.splitlines() if line.strip()]
    heads = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    return [(lines[a], [line.strip() for line in lines[a + 1 : b]]) for a, b in pairwise([*heads, len(lines)])]


def said(entity: Entity) -> str:
    parts = (entity.text, ", ".join(entity.anatomy), entity.laterality, entity.severity, entity.change)
    return " | ".join(parts).replace(" |  ", " | ").strip()


def read(text: str) -> list[Entity]:
    found = READER.read(text, report_id="r").entities
    kept = [entity for entity in found if entity.category is not Category.ANATOMY and not entity.inferred]
    return list({(entity.start, entity.end): entity for entity in kept}.values())


@pytest.mark.parametrize(("sentence", "expected"), cases(), ids=lambda value: value if isinstance(value, str) else "")
def test_attributes_belong_to_their_finding(sentence: str, expected: list[str]) -> None:
    found = {(e.text, ", ".join(e.anatomy), e.laterality, e.severity, e.change) for e in read(sentence)}
    wanted = {tuple(part.strip() for part in line.split("|")) for line in expected}
    assert wanted <= found


def test_the_table_is_large_enough() -> None:
    assert len(cases()) >= 80


def test_a_range_of_severity_is_one_attribute_with_its_rank_between() -> None:
    entity = read("Mild to moderate cardiomegaly.")[0]
    assert [each.text for each in entity.attributes] == ["Mild to moderate"]
    assert entity.severity_rank == 3.5
    assert read("Cardiomegaly.")[0].severity_rank == 0


def test_certainty_is_kept_beside_the_assertion() -> None:
    def grades(text: str) -> list[tuple[str, Certainty]]:
        return [(str(entity.assertion), entity.certainty) for entity in read(text)]

    assert grades("Probable pneumonia.") == [("present", Certainty.PROBABLE)]
    assert grades("Possible pneumonia.") == [("uncertain", Certainty.POSSIBLE)]
    assert grades("Pneumonia.") == [("present", Certainty.CERTAIN)]
    assert grades("Pneumonia is unlikely.") == [("absent", Certainty.PROBABLE)]
    assert grades("Atelectasis versus pneumonia.") == [("uncertain", Certainty.POSSIBLE)] * 2


def test_a_finding_concluded_from_an_organ_is_marked() -> None:
    found = READER.read("The lungs are clear. No effusion.", report_id="r").entities
    inferred = [entity for entity in found if entity.inferred]
    assert {entity.text for entity in inferred} == {"The lungs"}
    assert all(entity.rule.startswith("normal/") for entity in inferred)
    assert [entity.rule for entity in found if entity.text == "effusion"] == ["signs/pleural effusion + cues/pre/no"]


def test_every_entity_knows_its_sentence() -> None:
    text = "FINDINGS: Small effusion. No nodule."
    sentences = {text[e.sentence_start : e.sentence_end] for e in READER.read(text, report_id="r").entities}
    assert sentences == {"Small effusion.", "No nodule."}


def test_the_table_names_only_known_values() -> None:
    rows = read_table("attributes.tsv")
    assert {row["value"] for row in rows if row["kind"] == "severity"} == set(SEVERITIES)
    assert {row["value"] for row in rows if row["kind"] == "change"} == {
        "new",
        "stable",
        "increased",
        "decreased",
        "resolved",
    }
    assert {row["side"] for row in rows} <= {"", "before", "after"}
    kinds = {str(kind) for kind in AttributeKind} | {"none", "boundary", "locative", "copula", "tail", "shows"}
    assert {row["kind"] for row in rows} <= kinds


_PIECES = "left right small moderate effusion opacity lower lobe in the at and or , . ; : ( ) is unchanged new no XXXX"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(_PIECES.split()), max_size=30).map(" ".join))
def test_attributes_are_slices_of_the_text_in_their_sentence(text: str) -> None:
    for entity in READER.read(text, report_id="r").entities:
        assert text[entity.start : entity.end] == entity.text
        assert entity.sentence_start <= entity.start < entity.end <= entity.sentence_end
        for each in entity.attributes:
            assert text[each.start : each.end] == each.text
            assert entity.sentence_start <= each.start < each.end <= entity.sentence_end
