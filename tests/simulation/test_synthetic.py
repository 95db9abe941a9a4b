"""Synthetic patients: same seed, same cohort, whatever the order; and the truth is where the model says it is."""

from pathlib import Path

import numpy as np
import pytest
from lifelines import CoxPHFitter
from scipy import ndimage, stats
from sklearn.linear_model import LogisticRegression

from cohortium.common.errors import StudyError
from cohortium.simulation import studies, synthetic, synthetic_clinic
from cohortium.simulation.synthetic_plan import CaseMix, GridPlan, Plan, Risk, Scanner, read_plan

GASTRIC = Path(studies.__path__[0]) / "gastric"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(GASTRIC)


def test_two_runs_and_any_order_of_sites_are_identical(plan):
    site = plan.site[1]
    reversed_plan = plan.model_copy(update={"site": plan.site[::-1]})
    for number in (0, 57):
        ours = synthetic.imaging(plan, site, number, seed=7)
        synthetic.imaging(plan, plan.site[0], 3, seed=7)  # another patient in between changes nothing
        again = synthetic.imaging(reversed_plan, site, number, seed=7)
        np.testing.assert_array_equal(ours.image, again.image)
        np.testing.assert_array_equal(ours.mask, again.mask)
        who, same = (synthetic.patient(p, site, number, seed=7) for p in (plan, reversed_plan))
        assert who == same
    other = synthetic.imaging(plan, site, 0, seed=8)
    assert (other.image != synthetic.imaging(plan, site, 0, seed=7).image).any()


@pytest.mark.parametrize("grid", [None, GridPlan()])
def test_an_image_is_a_body_with_one_tumour_of_the_stated_length(plan, grid):
    plan = plan if grid is None else plan.model_copy(update={"grid": grid})
    ratios = []
    for number in range(12):
        site = plan.site[number % 4]
        image, mask = synthetic.imaging(plan, site, number, seed=3)
        assert image.shape == mask.shape == plan.grid.shape[::-1]
        assert image.dtype == np.int16
        assert set(np.unique(mask)) == {0, 1}
        assert ndimage.label(mask)[1] == 1
        assert image[mask == 1].mean() == pytest.approx(90, abs=60)  # soft tissue that enhances
        assert np.abs(image[:, 0, 0] + 1000).max() < 150  # air outside
        points = np.argwhere(mask) * plan.grid.spacing_mm[::-1]
        longest = np.linalg.norm(points.max(0) - points.min(0)) / np.sqrt(3)
        ratios.append(longest / 10 / float(synthetic.patient(plan, site, number, seed=3).row["tumour_length"]))
    assert 0.7 < np.median(ratios) < 1.3  # half-axes .65 to 1, a rough border, whole voxels


def test_texture_carries_the_imaging_risk_and_the_clinic_does_not(plan):
    site, n = plan.site[0], 80
    people = [synthetic.patient(plan, site, i, seed=5) for i in range(n)]
    aggressiveness = [who.aggressiveness for who in people]
    spread = []
    for i in range(n):
        image, mask = synthetic.imaging(plan, site, i, seed=5)
        spread.append(image[mask == 1].std())
    assert stats.spearmanr(aggressiveness, spread).statistic > 0.6
    many = [synthetic.patient(plan, site, i, seed=5) for i in range(2000)]
    many = [who for who in many if who.row["cea"] != ""]
    clinical = [synthetic_clinic.clinical_risk(who.row) for who in many]
    assert abs(stats.pearsonr([who.aggressiveness for who in many], clinical).statistic) < 0.07  # 3 standard errors


@pytest.fixture(scope="module")
def people(plan):
    site = plan.site[0].model_copy(update={"case_mix": CaseMix()})
    drawn = [synthetic.patient(plan, site, i, seed=11) for i in range(12000)]
    return [who for who in drawn if who.row["cea"] != ""]


def test_recurrence_follows_the_stated_logistic_model(plan, people):
    clinical = np.array([synthetic_clinic.clinical_risk(who.row) for who in people])
    image = np.array([who.aggressiveness for who in people])
    assert clinical.mean() == pytest.approx(0, abs=0.03)
    assert clinical.std() == pytest.approx(1, abs=0.03)
    recurrence = [who.row["recurrence"] for who in people]
    fit = LogisticRegression(C=np.inf, tol=1e-8).fit(np.column_stack([image, clinical]), recurrence)
    share = plan.risk.image_share
    expected = plan.risk.strength * np.sqrt([share, 1 - share])
    np.testing.assert_allclose(fit.coef_[0], expected, atol=0.12)  # 3 standard errors at 12,000 patients
    assert fit.intercept_[0] == pytest.approx(plan.risk.intercept, abs=0.09)


def test_death_follows_the_stated_hazards(plan, people):
    import pandas as pd

    table = pd.DataFrame([dict(who.row) for who in people])
    clinical = np.array([synthetic_clinic.clinical_risk(who.row) for who in people])
    image = np.array([who.aggressiveness for who in people])
    share = plan.risk.image_share
    design = table[["recurrence", "age", "os_days", "death"]].assign(
        risk=np.sqrt(share) * image + np.sqrt(1 - share) * clinical
    )
    fit = CoxPHFitter().fit(design[table.os_days > 61], "os_days", "death")
    for term, expected in synthetic_clinic.DEATH_LOG_HAZARD.items():
        assert fit.params_[term] == pytest.approx(expected, abs=4 * fit.standard_errors_[term])


def test_marginals_are_those_of_the_publication(people):
    """Cao et al. 2024, table 1, training set: medians and shares, both groups together."""
    row = {key: [who.row[key] for who in people] for key in people[0].row}
    assert np.median(row["age"]) == pytest.approx(61, abs=1)
    assert np.mean(np.array(row["sex"]) == "male") == pytest.approx(0.728, abs=0.02)
    assert np.median(row["tumour_length"]) == pytest.approx(4.2, abs=0.4)
    assert np.median(row["cea"]) == pytest.approx(2.4, abs=0.2)
    assert np.mean(np.array(row["pt"]) == "T3-4") == pytest.approx(0.713, abs=0.03)
    shares = [np.mean(np.array(row["pn"]) == stage) for stage in ("N0", "N1", "N2", "N3")]
    np.testing.assert_allclose(shares, [0.322, 0.171, 0.216, 0.291], atol=0.02)


def test_scanners_differ_as_stated(plan):
    def scanned(**changes: float) -> np.ndarray:
        site = plan.site[0].model_copy(update={"scanner": Scanner(**changes)})
        return synthetic.imaging(plan, site, 0, seed=2).image.astype(float)

    plain = scanned(noise_hu=0.0)
    liver = (slice(14, 18), slice(28, 34), slice(16, 22))
    assert np.mean(scanned(noise_hu=0.0, shift_hu=12.0)[liver] - plain[liver]) == pytest.approx(12, abs=0.01)
    assert np.mean(scanned(noise_hu=0.0, phase_hu=20.0)[liver] - plain[liver]) == pytest.approx(20, abs=0.5)
    assert np.std(scanned(noise_hu=15.0) - plain) == pytest.approx(15, rel=0.05)
    assert np.std(scanned(noise_hu=15.0, blur_mm=2.0) - scanned(noise_hu=0.0, blur_mm=2.0)) == pytest.approx(
        15, rel=0.1
    )
    edges = [np.abs(np.diff(scanned(noise_hu=0.0, blur_mm=blur), axis=2)).max() for blur in (0.0, 2.0, 4.0)]
    assert edges[0] > edges[1] > edges[2]


def test_training_sites_can_be_taken_away_and_added(plan):
    assert plan.train == ("harbour", "lakeside", "valley")
    assert plan.external == ("highland",)
    assert plan.with_training_sites(2).train == ("harbour", "lakeside")
    more = plan.with_training_sites(5)
    assert more.train == ("harbour", "lakeside", "valley", "site_004", "site_005")
    assert more.external == ("highland",)
    assert more.site[3] == plan.with_training_sites(9).site[3]
    with pytest.raises(StudyError, match="at least 1"):
        plan.with_training_sites(0)


def test_patients_are_shared_out_to_the_last(plan):
    assert plan.patients_by_site() == {"harbour": 140, "lakeside": 100, "valley": 80, "highland": 80}
    for patients in (1, 7, 401):
        assert sum(plan.patients_by_site(patients).values()) == patients


def test_mistakes_of_the_plan_are_named(tmp_path):
    with pytest.raises(StudyError, match="plan of the simulation"):
        read_plan(tmp_path)
    text = (GASTRIC / "simulation.toml").read_text()
    for wrong, message in (
        (text.replace("strength", "strenght"), "strength"),
        (text.replace('"lakeside"', '"harbour"'), "twice"),
        (text.replace("image_share = 0.5", "image_share = 1.5"), r"\[risk\] image_share = 1.5"),
    ):
        (tmp_path / "simulation.toml").write_text(wrong)
        with pytest.raises(StudyError, match=message):
            read_plan(tmp_path)


def test_share_zero_leaves_nothing_to_the_image(plan):
    people = [
        synthetic_clinic.person(CaseMix(), Risk(image_share=0.0), np.random.default_rng([4, i])) for i in range(3000)
    ]
    test = stats.ttest_ind(
        [who.aggressiveness for who in people if who.row["recurrence"]],
        [who.aggressiveness for who in people if not who.row["recurrence"]],
    )
    assert abs(test.statistic) < 3
