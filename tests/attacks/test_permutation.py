"""Questions of permutation importance that single patients out: over a part of few patients, or in fine cells."""

import numpy as np
import pytest
from scipy import special

from cohortium.client.guard import Guard
from cohortium.common.errors import SumRefused
from cohortium.strategies import views
from cohortium.strategies.permutation import replaced
from cohortium.strategies.scoring import linear_predictor
from tests.strategies.additivity import concatenate

TRAIN = {"part": "train", "endpoint": "outcome", "patients": 180}
NET = {"head": [4], "weights": np.linspace(-1, 1, 17).astype(np.float32)}


@pytest.fixture(scope="module")
def asks(victims, raw_design):
    """What a site says of a question, where its study explains the network by permutation."""
    validation = victims.study.validation.model_copy(update={"explain": ("permutation",)})
    guard = Guard(victims.study.model_copy(update={"validation": validation}), "north", ("*",))

    def ask(*, rows=TRAIN, cells=20, guard=guard, group="outcome", **parameters):
        view = {"kind": "keyed", "rows": rows, "group": group, **raw_design}
        asked = {"fit": NET, "halvings": 0, "replacements": [], **parameters}
        asked["edges"] = [np.linspace(0, 10_000, cells).astype(np.int64)]
        try:
            guard.question(replaced.name, view, asked, views.build(view, victims.contexts["north"]))
        except SumRefused as refusal:
            return refusal.why
        return ""

    return ask


def test_scores_and_outcomes_of_a_part_of_a_few_patients(victims, raw_design, asks):
    """A table of one or two patients on the grid of scores holds the outcome and the score of each."""
    view = {"kind": "keyed", "rows": TRAIN, "group": "outcome", **raw_design}
    asked = {"fit": NET, "edges": [np.arange(10_001)], "replacements": []}
    tables = [victims.sums(view).sum(replaced, **asked, halvings=k).patients[0] for k in range(12)]
    few = max(k for k, table in enumerate(tables) if table.sum() > 0)
    rows = concatenate(victims.rows(view))
    at = rows.key % 2**few == 0
    assert at.sum() <= 2
    found = np.repeat(np.argwhere(tables[few]), tables[few][tables[few] > 0].astype(int), axis=0)
    risk = np.rint(1e4 * special.expit(linear_predictor(NET, rows.x[at])))
    assert sorted(map(tuple, found)) == sorted(zip(rows.outcome[at], risk, strict=True))
    assert asks() == ""
    for halvings in (1, few):
        assert "over other patients" in asks(halvings=halvings)


def test_cells_are_held_against_the_patients_of_the_part(asks):
    assert "show single scores" in asks(cells=180 // 5 + 3)
    assert asks(cells=180 // 5 + 2) == ""
    many = {**TRAIN, "patients": 4000}
    hundred = [{}] * 100
    part = 4000 >> 2  # 160,000 patients times variables at most
    assert asks(rows=many, halvings=2, replacements=hundred, cells=part // 5 + 2) == ""
    assert "show single scores" in asks(rows=many, halvings=2, replacements=hundred, cells=part // 5 + 3)
    assert "over other patients" in asks(rows=many, halvings=1, replacements=hundred)


def test_a_site_explains_no_other_outcome_and_no_other_study(victims, asks):
    assert "explains no such model" in asks(group="os")
    assert "explains no such model" in asks(fit={"coefficients": np.zeros(3)})
    assert "explains no such model" in asks(guard=Guard(victims.study, "north", ("*",)))
