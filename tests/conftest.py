"""Small studies on made-up rows, written as a researcher would write them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SITES = {"north": 90, "east": 70, "south": 60, "west": 50}


def patients(rng: np.random.Generator, n: int, site: str) -> pd.DataFrame:
    """Rows with a known logistic and exponential model, some gaps, a site shift."""
    shift = 0.2 * len(site)
    age = rng.normal(60 + shift, 9, n).round()
    stage = rng.choice([1, 2, 3], n, p=[0.5, 0.3, 0.2])
    marker = np.exp(rng.normal(1, 0.6, n)).round(2)
    noise = rng.standard_normal((n, 6)).round(3)
    lp = -0.4 + 0.06 * (age - 60) + 0.7 * (stage - 2) + 0.35 * (marker - 3)
    event = (rng.random(n) < 1 / (1 + np.exp(-lp))).astype(int)
    time = np.ceil(rng.exponential(900 * np.exp(-0.6 * lp)))
    end = rng.integers(200, 1500, n)
    frame = pd.DataFrame(
        {
            "patient_id": [f"{site}-{i:03d}" for i in range(n)],
            "age": age,
            "stage": stage,
            "marker": np.where(rng.random(n) < 0.08, np.nan, marker),
            "outcome": event,
            "time": np.minimum(time, end),
            "death": (time <= end).astype(int),
        }
    )
    for k in range(noise.shape[1]):
        frame[f"noise{k}"] = noise[:, k]
    return frame


HEAD = """
[study]
name = "small"
primary = "{primary}"
seed = 3

[endpoint.outcome]
kind = "binary"
column = "outcome"

[endpoint.os]
kind = "survival"
time = "time"
event = "death"
unit = "days"
horizon = 365

[[variable]]
name = "age"
kind = "continuous"
unit = "years"

[[variable]]
name = "stage"
kind = "categorical"
levels = [1, 2, 3]

[[variable]]
name = "marker"
kind = "continuous"
missing = "median"

[split]
train = ["north", "east", "south"]
external = ["west"]
"""


def write(
    folder: Path, tables: str, *, primary: str = "outcome", seed: int = 0, sizes: dict[str, int] | None = None
) -> Path:
    """Write a study folder; gives it back."""
    rng = np.random.default_rng(seed)
    for site, n in (sizes or SITES).items():
        (folder / "sites" / site).mkdir(parents=True)
        patients(rng, n, site).to_csv(folder / "sites" / site / "patients.csv", index=False)
        (folder / "sites" / site / "site.toml").write_text(
            f'[site]\nname = "{site}"\n[data]\npatients = "patients.csv"\n'
        )
    (folder / "study.toml").write_text(HEAD.format(primary=primary) + tables)
    return folder


@pytest.fixture(scope="session")
def write_study():
    """``write_study(folder, tables, primary=..., sizes=...)`` writes a study folder."""
    return write


@pytest.fixture(scope="session")
def pooled():
    """All sites' tables and predictions of a run side by side: what nobody sees in a real federation."""

    def read(out: Path, folder: Path | None = None) -> pd.DataFrame:
        frames = []
        for path in sorted(out.glob("sites/*/predictions.csv")):
            frame = pd.read_csv(path).assign(site=path.parent.name)
            if folder is not None:
                rows = pd.read_csv(folder / "sites" / path.parent.name / "patients.csv")
                extra = rows[["patient_id", *rows.columns.difference(frame.columns)]]
                frame = frame.merge(extra, on="patient_id", validate="one_to_one")
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    return read
