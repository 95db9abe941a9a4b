"""Data of the equality table: public cohorts, each split into sites; imports nothing of the package.

`breast_cancer`: scikit-learn's 569 tumours with 30 features, in four sites of different size and case mix (by rank of a
noisy radius, and the third site measures on a shifted scale). `diabetes`: its 442 patients, in four sites. `rossi`,
`gbsg2`, `lung`: survival cohorts of lifelines; `lung` keeps its real institutions, the small ones together. `uci_heart`
(four real hospitals) and `tcga_brca` (regions) are read where the reference data is present. What is made of them here
(features, gaps, repeated measurements, scores) follows from fixed seeds.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines.datasets import load_gbsg2, load_lung, load_rossi
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.preprocessing import PolynomialFeatures

CHECKOUT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("COHORTIUM_REFERENCE_DATA", CHECKOUT.parent / "shared" / "reference"))


def without_reference() -> str:
    """Why items on the reference data cannot run here."""
    return "" if REFERENCE.is_dir() else "the reference data is absent; set COHORTIUM_REFERENCE_DATA"


@cache
def uci_heart() -> pd.DataFrame:
    """920 patients of four hospitals with their gaps; y: heart disease."""
    frame = pd.read_csv(REFERENCE / "uci_heart" / "patients.csv").rename(columns={"hospital": "site", "disease": "y"})
    return frame.assign(pain=(frame["cp"] == 4).astype(float)).sort_values("site", kind="stable", ignore_index=True)


@cache
def tcga_brca() -> pd.DataFrame:
    """1,096 patients by region (eight of none in one); age, three stages, time in days, event."""
    frame = pd.read_csv(REFERENCE / "tcga_brca" / "patients.csv").rename(columns={"time_days": "time"})
    frame = frame.rename(columns={f"ajcc_pathologic_t_{size}": size for size in ("T2", "T3")})
    frame = frame.rename(columns={"age_at_index": "age", "ajcc_pathologic_stage_Stage IIIA": "IIIA"})
    kept = ["site", "time", "event", "age", "T2", "T3", "IIIA"]
    return frame[kept].sort_values("site", kind="stable", ignore_index=True)


@cache
def breast_cancer() -> pd.DataFrame:
    """Columns x00..x29, y (malignant), site."""
    x, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(2)
    rank = np.argsort(np.argsort(x[:, 0] + 2 * rng.standard_normal(len(x)))) / len(x)
    frame = pd.DataFrame(x, columns=[f"x{i:02d}" for i in range(x.shape[1])])
    frame["site"] = np.digitize(rank, [0.15, 0.5, 0.8])
    frame.loc[frame.site == 2, ["x01", "x11", "x21"]] *= 1.1
    return frame.assign(y=1 - y).sort_values("site", kind="stable", ignore_index=True)


@cache
def diabetes() -> pd.DataFrame:
    """Columns of scikit-learn, y (progression), site (by age)."""
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "y"})
    return _by_rank(frame.astype(float), "age")


@cache
def rossi() -> pd.DataFrame:
    """Columns of lifelines, site (by age), time, event."""
    frame = load_rossi().rename(columns={"week": "time", "arrest": "event"}).astype(float)
    return _by_rank(frame, "age")


@cache
def gbsg2() -> pd.DataFrame:
    """Numeric columns of lifelines, site (by age), time in days, event."""
    frame = load_gbsg2().rename(columns={"cens": "event"})
    frame["horTh"] = (frame["horTh"] == "yes").astype(float)
    frame["menostat"] = (frame["menostat"] == "Post").astype(float)
    frame["tgrade"] = frame["tgrade"].map({"I": 1.0, "II": 2.0, "III": 3.0})
    return _by_rank(frame.astype(float), "age")


@cache
def lung() -> pd.DataFrame:
    """age, sex, ph.ecog, wt.loss of complete patients; site = institution, those under 12 patients together."""
    frame = load_lung().dropna(subset=["inst", "age", "sex", "ph.ecog", "wt.loss"])
    frame = frame.rename(columns={"status": "event"})[["inst", "time", "event", "age", "sex", "ph.ecog", "wt.loss"]]
    sizes = frame["inst"].value_counts()
    large = sorted(sizes.index[sizes >= 12])
    frame["site"] = frame["inst"].map({inst: i for i, inst in enumerate(large)}).fillna(len(large)).astype(int)
    frame["event"] = (frame["event"] > frame["event"].min()).astype(float)
    return frame.drop(columns="inst").astype({"time": float}).sort_values("site", kind="stable", ignore_index=True)


def _by_rank(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Four sites of different size by rank of a column with noise."""
    rng = np.random.default_rng(3)
    noisy = frame[column] + frame[column].std() * rng.standard_normal(len(frame))
    rank = np.argsort(np.argsort(noisy.to_numpy())) / len(frame)
    return frame.assign(site=np.digitize(rank, [0.1, 0.4, 0.75])).sort_values("site", kind="stable", ignore_index=True)


def standardised(frame: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Pooled z-scores, divisor n - 1."""
    x = frame[columns].to_numpy(float)
    return (x - x.mean(0)) / x.std(0, ddof=1)


def score(frame: pd.DataFrame, columns: list[str], noise: float, seed: int) -> np.ndarray:
    """A risk on the grid of 1e-4, of no model: a noisy logistic of some columns; what is validated in the table."""
    z = standardised(frame, columns).sum(1) + noise * np.random.default_rng(seed).standard_normal(len(frame))
    return np.clip(np.rint(1e4 / (1 + np.exp(-z))), 1, 9999) / 1e4


@cache
def many_features() -> pd.DataFrame:
    """breast_cancer with 600 correlated, heavy-tailed features f000..f599; some rounded, some with ties, one binary."""
    frame = breast_cancer()
    rng = np.random.default_rng(9)
    columns = [f"x{i:02d}" for i in range(30)]
    x = PolynomialFeatures(3, include_bias=False).fit_transform(standardised(frame, columns))[:, :1500][:, ::5][:, :300]
    x = np.hstack([x, rng.standard_normal((len(frame), 300)) + 0.25 * frame[["y"]].to_numpy()])
    x = x + 0.1 * x.std(0) * rng.standard_normal(x.shape)
    x[:, ::50] = np.round(x[:, ::50] * 2) / 2
    x[:, 7] = rng.random(len(frame)) < 0.3
    return pd.DataFrame(x, columns=[f"f{i:03d}" for i in range(600)]).assign(site=frame["site"], y=frame["y"])


@cache
def with_gaps() -> pd.DataFrame:
    """Ten columns of breast_cancer with gaps in five, and `grade`, of levels 0 to 3, with gaps."""
    frame = breast_cancer()[[f"x{i:02d}" for i in range(10)] + ["site", "y"]].copy()
    rng = np.random.default_rng(5)
    frame["grade"] = np.digitize(frame["x00"] + rng.standard_normal(len(frame)), [11.7, 13.4, 15.8]).astype(float)
    for column, share in zip(
        ["x01", "x05", "x06", "x08", "x09", "grade"], (0.1, 0.3, 0.05, 0.2, 0.2, 0.1), strict=True
    ):
        frame.loc[rng.random(len(frame)) < share, column] = np.nan
    return frame


@cache
def repeated() -> tuple[pd.DataFrame, np.ndarray]:
    """Every sixth tumour, and four features measured three times, (n, 4, 3), with noise and a shift."""
    frame = breast_cancer().iloc[::6].reset_index(drop=True)
    x = frame[["x00", "x03", "x17", "x29"]].to_numpy()
    noise = 0.4 * np.random.default_rng(4).standard_normal((*x.shape, 3)) + [0, 0.1, 0.3]
    return frame, x[:, :, None] + x.std(0)[:, None] * noise
