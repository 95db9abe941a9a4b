"""Calibrate: the constants of the synthetic clinic, and what models that know the truth reach.

Run it after changing a coefficient of simulation/synthetic_clinic.py and copy what it prints there.
"""

# ruff: noqa: T201 -- a script whose result is what it prints

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from cohortium.simulation import synthetic, synthetic_clinic
from cohortium.simulation.synthetic_plan import read_plan

SEED = 991  # of no cohort that is analysed


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--patients", type=int, default=40000)
    patients = options.parse_args().patients
    plan = read_plan(Path(__file__).parent)
    average = plan.site[0].model_copy(update={"case_mix": type(plan.site[0].case_mix)()})
    people = [synthetic.patient(plan, average, i, seed=SEED) for i in range(patients)]
    people = [who for who in people if who.row["cea"] != ""]
    clinical = np.array([synthetic_clinic.clinical_risk(who.row) for who in people])
    raw = clinical * synthetic_clinic.CLINICAL_SD + synthetic_clinic.CLINICAL_MEAN
    print(f"CLINICAL_MEAN, CLINICAL_SD = {raw.mean():.3f}, {raw.std():.3f}")
    image = np.array([who.aggressiveness for who in people])
    recurrence = np.array([who.row["recurrence"] for who in people])
    death = np.array([who.row["death"] for who in people])
    share = plan.risk.image_share
    both = np.sqrt(share) * image + np.sqrt(1 - share) * clinical
    print(f"recurrence {recurrence.mean():.3f}, deaths {death.mean():.3f}")
    for name, score in (("clinical", clinical), ("image", image), ("both", both)):
        print(f"AUC of the true {name} risk: {roc_auc_score(recurrence, score):.3f}")


if __name__ == "__main__":
    main()
