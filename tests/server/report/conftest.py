"""Results of small real fits, in the schema of results.json: what the report is tested on."""

import copy

import numpy as np
import pytest
import statsmodels.api as sm
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import logrank_test
from lifelines.utils import concordance_index
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

TERMS = ("age", "sex", "stage=2", "stage=3", "log_cea", "model.deep_signature")
SITES = ("north", "harbour", "university")
SIZES = {"train": 540, "internal": 230, "external": 130}


def cohort_data(rng, n, shift=0.0):
    """Patients of one part: terms, recurrence and follow-up in days."""
    stage = rng.integers(1, 4, n)
    deep = rng.normal(shift, 1, n)
    x = np.column_stack(
        [rng.normal(62, 9, n), rng.integers(0, 2, n), stage == 2, stage == 3, rng.normal(1.2 + shift, 0.8, n), deep]
    ).astype(float)
    risk = 0.02 * (x[:, 0] - 62) + 0.15 * x[:, 1] + 0.7 * x[:, 2] + 1.5 * x[:, 3] + 0.3 * x[:, 4] + 0.9 * deep - 1.9
    y = (rng.random(n) < 1 / (1 + np.exp(-risk))).astype(int)
    death = rng.exponential(2600 * np.exp(-0.5 * risk))
    censored = rng.uniform(300, 2500, n)
    return x, y, np.ceil(np.minimum(death, censored)), (death <= censored).astype(int)


def with_ci(value, half):
    return {"estimate": float(value), "ci": [float(max(value - half, 0)), float(min(value + half, 1))]}


def binary_figures(y, score, cutoff):
    """Figures of one model in one cohort, by scikit-learn."""
    n, events = len(y), int(y.sum())
    auc = roc_auc_score(y, score)
    fpr, tpr, _ = roc_curve(y, score)
    observed, predicted = calibration_curve(y, score, n_bins=8, strategy="quantile")
    thresholds = np.round(np.arange(0.05, 0.85, 0.05), 2)
    odds = thresholds / (1 - thresholds)
    called = score[:, None] >= thresholds
    benefit = (called[y == 1].sum(0) - called[y == 0].sum(0) * odds) / n
    high = score >= cutoff
    tp, fp = int((high & (y == 1)).sum()), int((high & (y == 0)).sum())
    fn, tn = events - tp, n - events - fp
    return {
        "n": n,
        "events": events,
        "auc": with_ci(auc, 1.96 * np.sqrt(auc * (1 - auc) / min(events, n - events))) | {"bound": 0.0021},
        "roc": [[float(a), float(b)] for a, b in zip(fpr, tpr, strict=True)],
        "average_precision": float(average_precision_score(y, score)),
        "brier": float(brier_score_loss(y, score)),
        "calibration": {
            "intercept": -0.04,
            "intercept_ci": [-0.25, 0.17],
            "slope": 0.97,
            "slope_ci": [0.78, 1.16],
            "hosmer_lemeshow": {"chi2": 7.31, "df": 8, "p": 0.503},
            "ici": 0.021,
            "curve": [[float(p), float(o), n // 8] for p, o in zip(predicted, observed, strict=True)],
        },
        "decision_curve": {
            "thresholds": thresholds.tolist(),
            "net_benefit": benefit.tolist(),
            "treat_all": (events / n - (1 - events / n) * odds).tolist(),
        },
        "at_cutoff": {
            "cutoff": cutoff, "rule": "youden", "tp": tp, "fp": fp, "tn": tn, "fn": fn,
            "sensitivity": tp / events, "sensitivity_ci": [tp / events - 0.06, tp / events + 0.04],
            "specificity": tn / (tn + fp), "specificity_ci": {"undefined": "nobody of this class"},
            "ppv": tp / (tp + fp), "npv": tn / (tn + fn), "accuracy": (tp + tn) / n,
        },
    }  # fmt: skip


def survival_figures(time, event, score):
    """Figures of risk groups in one cohort, by lifelines."""
    high = score >= np.median(score)
    curves = {}
    for name, group in (("low", ~high), ("high", high)):
        fitted = KaplanMeierFitter().fit(time[group], event[group])
        table = fitted.event_table.iloc[1:]
        band = fitted.confidence_interval_.iloc[1:].to_numpy()
        survival = fitted.survival_function_.iloc[1:, 0].to_numpy()
        kept = table["at_risk"].to_numpy() >= 5
        curves[name] = [
            [float(t), float(s), float(lo), float(hi), int(at)]
            for t, s, (lo, hi), at in zip(table.index, survival, band, table["at_risk"], strict=True)
        ][: int(kept.sum())]
    test = logrank_test(time[high], time[~high], event[high], event[~high])
    return {
        "c_index": with_ci(concordance_index(time, -score, event), 0.04),
        "auc_at": {"1095": with_ci(0.74, 0.05), "1825": {"undefined": "nobody is followed for so long"}},
        "brier_at": {"1095": 0.181},
        "log_rank": {"chi2": float(test.test_statistic), "p": float(test.p_value)},
        "hazard_ratio": {"estimate": 2.36, "ci": [1.95, 2.85], "p": 3e-9},
        "kaplan_meier": curves,
    }


def coefficients(names, fit):
    rows = []
    for name, estimate, se, p, ci in zip(names, fit.params, fit.bse, fit.pvalues, fit.conf_int(), strict=True):
        row = {"term": name, "estimate": float(estimate), "se": float(se), "ci": [float(v) for v in ci], "p": float(p)}
        rows.append(row | {"ratio": float(np.exp(estimate)), "ratio_ci": [float(np.exp(v)) for v in ci]})
    return rows


def table_one(data):
    entries = []
    for cohort, (x, y, _, _) in data.items():
        of = [x[y == k] for k in (0, 1)]
        stage = [np.where(rows[:, 2] == 1, 2, np.where(rows[:, 3] == 1, 3, 1)) for rows in of]
        age, sex, stages = {}, {}, {}
        for k in (0, 1):
            q1, median, q3 = (float(q) for q in np.quantile(of[k][:, 0], [0.25, 0.5, 0.75]))
            mean, sd = float(of[k][:, 0].mean()), float(of[k][:, 0].std(ddof=1))
            men = int(of[k][:, 1].sum())
            known = {"n": len(of[k]) - 2 * k, "missing": 2 * k}
            age[str(k)] = known | {"mean": mean, "sd": sd, "q1": q1, "median": median, "q3": q3}
            sex[str(k)] = known | {"levels": {"0": len(of[k]) - men - 2 * k, "1": men}}
            stages[str(k)] = known | {"levels": {str(s): int((stage[k] == s).sum()) for s in (1, 2, 3)}}
        shared = {"unit": "", "cohort": cohort}
        entries += [
            {
                **shared,
                "variable": "age",
                "kind": "continuous",
                "unit": "years",
                "groups": age,
                "p": 0.021,
                "test": "t",
            },
            {**shared, "variable": "sex", "kind": "binary", "groups": sex, "p": 0.64, "test": "fisher"},
            {**shared, "variable": "stage", "kind": "categorical", "groups": stages, "p": 4e-9, "test": "chi2"},
        ]
    cell = {"withheld": "a cell holds fewer than 5 patients"}
    entries[-1] = {**entries[-1], "groups": {"0": cell, "1": entries[-1]["groups"]["1"]}}
    entries[-2] = {**entries[-2], "p": {"undefined": "the groups do not differ enough for a test"}}
    return entries


def frame(models, **more):
    """What results.json holds beside the models."""
    excluded = {"mask is empty": 6, "age missing": 5, "other": 3}
    return {
        "format": "cohortium-results/1",
        "study": {"name": "gastric-recurrence", "hash": "c0ffee" * 10 + "abcd", "seed": 7},
        "roster_hash": "feed" * 16,
        "engine": "in-process",
        "secure_aggregation": True,
        "versions": {"cohortium": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0"},
        "sites": [
            *({"name": s, "role": "train", "given": 261, "excluded": excluded, "used": 247} for s in SITES),
            {"name": "st_mary", "role": "external", "given": 130, "excluded": {}, "used": 130},
        ],
        "cost": {
            "secure_sums": 38, "messages": 212, "seconds": 41.7,
            "bytes_up_by_site": {s: 812_400 + 7_000 * i for i, s in enumerate((*SITES, "st_mary"))},
            "bytes_down_by_site": dict.fromkeys((*SITES, "st_mary"), 1_240_000),
        },
        "table_one": [], "models": models, "comparisons": [],
        "refused": [],
    } | more  # fmt: skip


@pytest.fixture(scope="session")
def _binary_results():
    rng = np.random.default_rng(11)
    data = {part: cohort_data(rng, n, 0.2 * (part == "external")) for part, n in SIZES.items()}
    models = {}
    for name, columns in (("clinical", [0, 1, 2, 3, 4]), ("deep_signature", [5]), ("fused", [0, 2, 3, 5])):
        x, y = data["train"][0][:, columns], data["train"][1]
        fit = sm.Logit(y, sm.add_constant(x)).fit(disp=0)
        cutoff = float(np.round(np.median(fit.predict(sm.add_constant(x))), 4))
        cohorts = {}
        for part, (xs, ys, time, event) in data.items():
            score = np.round(fit.predict(sm.add_constant(xs[:, columns])), 4)
            cohorts[part] = binary_figures(ys, score, cutoff) | {"survival": survival_figures(time, event, score)}
            if part == "internal":
                for site, rows in zip(SITES, np.array_split(np.arange(len(ys)), 3), strict=True):
                    auc = float(roc_auc_score(ys[rows], score[rows]))
                    cohorts[f"internal/site:{site}"] = {"n": len(rows), "events": int(ys[rows].sum())} | {
                        "auc": with_ci(auc, 0.09)
                    }
                cohorts["internal/subgroup:sex=1"] = {"n": 112, "events": 41, "auc": with_ci(0.81, 0.07)}
                cohorts["internal/subgroup:sex=0"] = {"withheld": "fewer than 5 patients in a cell"}
        terms = ["(Intercept)", *(TERMS[c] for c in columns)]
        kind = "network" if name == "deep_signature" else "logistic"
        models[name] = {
            "kind": kind,
            "selected": terms[1:],
            "coefficients": coefficients(terms, fit) if kind == "logistic" else [],
            "cohorts": cohorts,
        }
    models["clinical"]["cohorts"]["external"]["calibration"] = {"withheld": "fewer than 5 patients in a group"}
    models["clinical"]["cohorts"]["external"]["auc"]["ci"] = {"undefined": "one class has a single patient"}
    comparisons = [
        {"cohort": cohort, "a": "fused", "b": b, "test": "delong", "difference": d, "ci": [d - 0.03, d + 0.03],
         "z": d / 0.015, "p": p}
        for cohort in SIZES
        for b, d, p in (("clinical", 0.071, 2e-5), ("deep_signature", 0.024, 0.117))
    ]  # fmt: skip
    comparisons[-1] = {"cohort": "external", "a": "fused", "b": "deep_signature", "undefined": "they rank alike"}
    refused = [{"what": "subgroup sex=0 of internal", "why": "4 patients are fewer than minimum_count = 5"}]
    return frame(models, table_one=table_one(data), comparisons=comparisons, refused=refused)


@pytest.fixture
def binary_results(_binary_results):
    """Three models of a binary endpoint with survival by risk group; some figures withheld or undefined."""
    return copy.deepcopy(_binary_results)


@pytest.fixture(scope="session")
def _survival_results():
    rng = np.random.default_rng(12)
    data = {part: cohort_data(rng, n) for part, n in (("train", 400), ("internal", 180))}
    x, _, time, event = data["train"]
    import pandas as pd

    columns = ["age", "sex", "stage=2", "stage=3"]
    table = pd.DataFrame(x[:, :4], columns=columns).assign(time=time, event=event)
    fit = CoxPHFitter().fit(table, "time", "event")
    rows = []
    for term, row in fit.summary.iterrows():
        ci = [float(row["coef lower 95%"]), float(row["coef upper 95%"])]
        rows.append(
            {"term": term, "estimate": float(row["coef"]), "se": float(row["se(coef)"]), "ci": ci, "p": float(row["p"]),
             "ratio": float(row["exp(coef)"]), "ratio_ci": [float(np.exp(v)) for v in ci]}
        )  # fmt: skip
    cohorts = {}
    for part, (xs, _, times, events) in data.items():
        score = xs[:, :4] @ fit.params_.to_numpy()
        figures = survival_figures(times, events, score)
        cohorts[part] = {"n": len(times), "events": int(events.sum()), "survival": figures}
    cohorts["internal/site:north"] = {"n": 60, "events": 22, "survival": {"c_index": with_ci(0.66, 0.1)}}
    cohorts["internal/site:harbour"] = {"n": 4, "events": {"withheld": "n < 5"}, "survival": {"withheld": "n < 5"}}
    return frame({"cox": {"kind": "cox", "selected": columns, "coefficients": rows, "cohorts": cohorts}})


@pytest.fixture
def survival_results(_survival_results):
    """One Cox model: no figure of a binary endpoint at all."""
    return copy.deepcopy(_survival_results)


@pytest.fixture(scope="session")
def _study():
    return {
        "study": {"name": "gastric-recurrence", "title": "Recurrence after gastrectomy for gastric cancer",
                  "primary": "recurrence", "seed": 7},
        "variable": [{"name": "age", "kind": "continuous", "unit": "years"},
                     {"name": "sex", "kind": "binary", "missing": "mode"},
                     {"name": "stage", "kind": "categorical", "levels": [1, 2, 3]}],
        "endpoint": {"recurrence": {"kind": "binary", "column": "recurrence"},
                     "overall_survival": {"kind": "survival", "unit": "days", "horizon": [1095, 1825]}},
        "features": {"deep": {"kind": "deep"}},
        "split": {"train": list(SITES), "external": ["st_mary"], "internal_fraction": 0.3},
        "model": {
            "clinical": {"kind": "logistic", "predictors": ["age", "sex", "stage", "log_cea"], "selection": ["lasso"]},
            "deep_signature": {"kind": "network", "predictors": ["features.deep"]},
            "fused": {"kind": "logistic", "predictors": ["model.clinical", "model.deep_signature"]},
        },
        "validation": {"compare": [["fused", "clinical"]], "survival": "overall_survival", "subgroups": ["sex"]},
        "privacy": {"minimum_count": 5, "event_time_days": 30, "score_resolution": "binned"},
    }  # fmt: skip


@pytest.fixture
def study(_study):
    """The study file that goes with the results, as run."""
    return copy.deepcopy(_study)
