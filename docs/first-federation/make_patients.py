"""Invented patients of three hospitals, for docs/first-federation.md; writes NORTH/patients.csv and so on.

The hazard of recurrence rises with stage and marker; each hospital writes its columns in its own way.
"""

import csv
from pathlib import Path

import numpy as np

HEADERS = {
    "north": ("patient_id", "age", "female", "stage", "marker", "days", "recurrence"),
    "east": ("patient_id", "alter", "geschlecht", "stage", "marker", "days", "recurrence"),
    "south": ("patient_id", "age", "female", "tnm", "marker", "days", "recurrence"),
}


def main() -> None:
    """Write the three tables here; the same numbers every time."""
    for number, (hospital, header) in enumerate(HEADERS.items()):
        rng = np.random.default_rng([2024, number])
        n = 240 + 40 * number
        age = rng.normal(62 + number, 10, n).clip(30, 90).round()
        female = rng.random(n) < 0.45
        stage = rng.choice([1, 2, 3], n, p=[0.35, 0.4, 0.25])
        marker = rng.lognormal(1.0 + 0.2 * stage, 0.5).round(2)
        hazard = np.exp(0.02 * (age - 62) + 0.5 * stage + 0.08 * marker) / 6000
        relapse, end = rng.exponential(1 / hazard), rng.uniform(400, 2200, n)  # the end of follow-up differs
        recurrence = (relapse <= end).astype(int)
        days = np.ceil(np.minimum(relapse, end)).astype(int)
        sex = [("f" if woman else "m") if hospital == "east" else int(woman) for woman in female]
        names = [f"{hospital[0].upper()}{i:03d}" for i in range(n)]
        rows = zip(names, age, sex, stage, marker, days, recurrence, strict=True)
        with (Path(hospital) / "patients.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


main()
