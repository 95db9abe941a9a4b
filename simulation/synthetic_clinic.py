"""Clinic: the rows of synthetic gastric-cancer patients and what becomes of them, from a known model.

Marginals follow table 1 of Cao et al., Int J Surg 2024;110:7598 (radical gastrectomy, two centres). Recurrence is
logistic in a clinical and an imaging part, the time to death Weibull with proportional hazards. The paper's recurrence
rate is 15 %; here it is about 37 %, so that a few hundred patients hold enough events. The constants below are printed
by simulation/studies/gastric/calibrate.py and frozen: changing one changes every cohort.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from cohortium.simulation.synthetic_plan import CaseMix, Risk

AGE_MEAN, AGE_SD = 61.0, 10.5
MALE = 0.72
LENGTH_MEDIAN_CM, LENGTH_LOG_SD = 4.4, 0.34
LENGTH_RANGE_CM = (2.4, 9.0)
CEA_MEDIAN, CEA_LOG_SD = 2.4, 0.88
CEA_MISSING = 0.04
LOCATIONS = {"lower": 0.52, "middle": 0.23, "upper": 0.25}
NODE_CUTS = {"N1": -0.45, "N2": 0.0, "N3": 0.58}
"""Where the nodal liability passes from one stage to the next: 33, 17, 22 and 28 % of the patients."""

COEFFICIENTS = {
    "age": 0.012,  # a year
    "tumour_length": 0.12,  # a centimetre
    "pt": 0.80,  # T3-4 against T1-2
    "pn=N1": 0.45,
    "pn=N2": 0.90,
    "pn=N3": 1.60,
    "differentiation": 0.45,  # low against medium or high
    "log_cea": 0.30,
    "vascular_invasion": 0.35,
    "nerve_invasion": 0.35,
}
"""Clinical part of the risk, before it is centred and scaled to unit variance."""
CLINICAL_MEAN, CLINICAL_SD = 3.375, 1.147

DEATH_SHAPE, DEATH_SCALE_DAYS = 1.3, 5200.0
"""Weibull of a patient of average risk without recurrence."""
DEATH_LOG_HAZARD = {"recurrence": 1.5, "risk": 0.35, "age": 0.02}
"""Log hazard ratios of recurrence, of one SD of the combined risk, and of a year of age."""
FOLLOW_UP_DAYS = (1100.0, 2900.0)
"""Administrative censoring, uniform."""


class Person(NamedTuple):
    """A patient before imaging: the row of patients.csv, and the latent part that the image shows."""

    row: Mapping[str, str | int | float]
    aggressiveness: float


def person(case_mix: CaseMix, risk: Risk, rng: np.random.Generator) -> Person:
    """Draw a patient; an empty text is a missing value."""
    spread = rng.normal() + case_mix.spread
    aggressiveness = rng.normal()
    liability = iter(rng.normal(size=6))
    age = int(np.clip(np.rint(rng.normal(AGE_MEAN + case_mix.age_years, AGE_SD)), 25, 90))
    length = np.clip(
        np.exp(np.log(LENGTH_MEDIAN_CM) + LENGTH_LOG_SD * _mixed(spread, 0.35, next(liability))), *LENGTH_RANGE_CM
    )
    nodal = _mixed(spread, 0.6, next(liability))
    cea = np.exp(np.log(CEA_MEDIAN) + CEA_LOG_SD * _mixed(spread, 0.3, next(liability)))
    row: dict[str, str | int | float] = {
        "age": age,
        "sex": "male" if rng.random() < MALE else "female",
        "location": str(rng.choice(list(LOCATIONS), p=list(LOCATIONS.values()))),
        "tumour_length": round(float(length), 1),
        "differentiation": "low" if _mixed(spread, 0.3, rng.normal()) > 0 else "medium or high",
        "pt": "T3-4" if _mixed(spread, 0.6, next(liability)) > -0.5 else "T1-2",
        "pn": max((stage for stage, cut in NODE_CUTS.items() if nodal > cut), default="N0"),
        "cea": round(float(cea), 2),
        "vascular_invasion": int(_mixed(spread, 0.5, next(liability)) > 0.1),
        "nerve_invasion": int(_mixed(spread, 0.5, next(liability)) > 0.1),
    }
    row |= _outcome(row, aggressiveness, case_mix, risk, rng)
    if rng.random() < CEA_MISSING:
        row["cea"] = ""
    return Person(row=row, aggressiveness=aggressiveness)


def clinical_risk(row: Mapping[str, str | int | float]) -> float:
    """Clinical part of the risk: mean 0 and variance 1 over patients of a site without case mix."""
    values = {
        "age": row["age"],
        "tumour_length": row["tumour_length"],
        "pt": row["pt"] == "T3-4",
        "differentiation": row["differentiation"] == "low",
        "log_cea": np.log(row["cea"]),
        "vascular_invasion": row["vascular_invasion"],
        "nerve_invasion": row["nerve_invasion"],
        f"pn={row['pn']}": 1,
    }
    raw = sum(weight * float(values.get(term, 0)) for term, weight in COEFFICIENTS.items())
    return (raw - CLINICAL_MEAN) / CLINICAL_SD


def _mixed(spread: float, loading: float, own: float) -> float:
    """A liability with unit variance of which `loading` squared comes from the spread of the disease."""
    return loading * spread + np.sqrt(1 - loading**2) * own


def _outcome(
    row: Mapping[str, str | int | float],
    aggressiveness: float,
    case_mix: CaseMix,
    risk: Risk,
    rng: np.random.Generator,
) -> dict[str, int]:
    """Recurrence, and overall survival in days with its event indicator."""
    share = risk.image_share
    combined = np.sqrt(share) * aggressiveness + np.sqrt(1 - share) * clinical_risk(row)
    recurrence = int(rng.random() < expit(risk.intercept + case_mix.risk_logit + risk.strength * combined))
    log_hazard = (
        DEATH_LOG_HAZARD["recurrence"] * recurrence
        + DEATH_LOG_HAZARD["risk"] * combined
        + DEATH_LOG_HAZARD["age"] * (float(row["age"]) - AGE_MEAN)
    )
    # inverse of S(t) = exp(-exp(log_hazard) (t / scale)^shape)
    death = DEATH_SCALE_DAYS * (rng.exponential() * np.exp(-log_hazard)) ** (1 / DEATH_SHAPE)
    censoring = rng.uniform(*FOLLOW_UP_DAYS)
    # the paper keeps patients who neither recurred nor died within two months of surgery
    time = max(int(np.rint(min(death, censoring))), 61)
    return {"recurrence": recurrence, "os_days": time, "death": int(death <= censoring)}
