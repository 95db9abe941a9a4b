"""Estimands: what each model's numbers mean, in sentences that follow from the study file."""

from collections.abc import Mapping
from typing import Any

from cohortium.server.report.agreement import agreement_notes
from cohortium.server.report.coefficients import term_label
from cohortium.server.report.inference import fitted_note
from cohortium.server.report.penalised import NUMBER, penalised_note
from cohortium.server.report.text import words

Record = Mapping[str, Any]
MOST_NAMED = 8  # candidates that a sentence names; the rest is in results.json


def model_notes(kind: str, model: Record, study: Record) -> list[str]:
    """Say how a model was fitted and what its estimates compare.

    Parameters
    ----------
    kind : str
    model : mapping
        The model's table in study.toml, as run.
    study : mapping
        All of study.toml, as run.
    """
    notes = [note for note in (_fit(kind, model, study), _inputs(model), _selection(model)) if note]
    harmonise = study.get("harmonise") or {}
    if sets := [name for name in harmonise.get("features", ()) if f"features.{name}" in model.get("predictors", ())]:
        method = {"combat": "ComBat"}.get(harmonise["method"], harmonise["method"])
        notes.append(
            f"Features ({', '.join(map(words, sets))}) are harmonised between sites by {method} before anything is "
            "selected or fitted."
        )
    return notes


def left_out_note(found: Record) -> list[str]:
    """Say which candidates could carry no coefficient: constant, or unknown for most training patients."""
    names = [str(name) for name in found.get("left_out", ())]
    if not names:
        return []
    listed = ", ".join(map(term_label, names[:MOST_NAMED])) + (" and others" if len(names) > MOST_NAMED else "")
    one = "candidate was" if len(names) == 1 else "candidates were"
    return [f"{len(names)} {one} left out as constant, or unknown for most training patients: {listed}."]


def _fit(kind: str, model: Record, study: Record) -> str:
    if study.get("privacy", {}).get("dp"):
        return (
            "Fitted by sums of patients' clipped gradients under noise (differential privacy), with one intercept for "
            "all sites: clipping and noise move it away from the pooled fit, and no standard errors are given."
        )
    if model.get("aggregation") == "fedavg":
        return (
            "Coefficients are the mean of locally fitted ones, weighted by patients: a published baseline, "
            "not equal to the pooled fit."
        )
    if kind in ("lasso", "lasso_cox", "lasso_linear"):
        return penalised_note(kind, model)
    if said := fitted_note(kind, model):
        return said
    if kind == "cox":
        ties = {"efron": "Efron", "breslow": "Breslow"}.get(model.get("ties", "efron"), model.get("ties"))
        baseline = (
            "Stratified by site: every site has a baseline hazard of its own, and hazard ratios compare patients "
            "of one site."
            if model.get("strata") == "site"
            else "One baseline hazard for all sites."
        )
        return f"Partial likelihood over all training patients, {ties} ties. {baseline}"
    return {
        "linear": "Ordinary least squares over all training patients with one intercept for all sites, equal to the "
        f"pooled fit; intervals and p are Student's. {NUMBER}",
        "logistic": "Maximum likelihood over all training patients with one intercept for all sites, "
        "equal to the pooled fit.",
        "network": "Weights are averaged over the sites' local training; this approaches pooled training "
        "and does not equal it.",
        "mlp": "Full-batch gradients are summed over sites, which equals pooled training.",
        "linear_svm": "Squared hinge over all training patients, the pooled solution; probabilities by Platt scaling "
        "of out-of-fold decision values.",
        "rff_svm": "A support vector machine on public random Fourier features, which approximate an RBF kernel; "
        "probabilities by Platt scaling of out-of-fold decision values.",
        "gradient_boosting": "Trees grown on sums of gradients by bins over all training patients, as pooled training "
        "on the same bins would grow them.",
        "staging": "A score that existed before: the study gives its points, nothing is fitted. For a binary endpoint "
        "its linear predictor goes through the logistic function; without a calibrated intercept that is an order of "
        "patients, not a risk.",
    }.get(kind, "")


def _inputs(model: Record) -> str:
    stacked = [p.removeprefix("model.") for p in model.get("predictors", ()) if p.startswith("model.")]
    if not stacked:
        return ""
    how = (
        "fitted on their own training predictions, as published studies do, which is optimistic"
        if model.get("stack") == "apparent"
        else "fitted on out-of-fold predictions, so that no patient's own outcome speaks for it twice"
    )
    return f"Takes the linear predictors of {' and '.join(words(name) for name in stacked)}, {how}."


def _selection(model: Record) -> str:
    steps = [_step({"method": step} if isinstance(step, str) else step) for step in model.get("selection", ())]
    return f"Selection, in order: {', '.join(steps)}." if steps else ""


def _step(step: Record) -> str:
    method: str = step.get("method", "")
    if method == "screen":
        tests = {"mann_whitney": "Mann-Whitney test", "auc": "univariate AUC", "t": "t test"}
        tests["cox"] = "score test of a Cox model within sites"
        return f"univariate screening ({tests[step.get('test', 't')]})"
    if method == "correlation":
        spearman = " (Spearman, on binned ranks)" if step.get("coefficient") == "spearman" else ""
        return f"correlation pruning{spearman}"
    if method == "icc":
        return f"ICC({step.get('form', '1,1')}) of perturbed contours, {step.get('minimum', 0.75):g} or more"
    names = {"lasso": "LASSO", "mrmr": f"mRMR ({step.get('keep', 20)} features)"}
    if method == "stepwise_p":
        enter, remove = step.get("enter", 0.05), step.get("remove", 0.1)
        return f"stepwise likelihood-ratio tests (in below {enter}, out above {remove})"
    return names.get(method, method.replace("_", " ").replace("aic", "AIC"))


def imputation_note(found: Record) -> list[str]:
    """Say that several imputed data sets were pooled."""
    if "imputation" not in found:
        return []
    m, most = found["imputation"]["imputations"], max(found["imputation"]["missing_information"])
    return [
        f"Gaps were filled {m} times by chained equations; estimates are pooled by Rubin's rules, with Student "
        "intervals (degrees of freedom by Barnard and Rubin). Missing values account for up to "
        f"{most:.0%} of a variance."
    ]


def selection_note(found: Record) -> list[str]:
    """Say how many columns each step of the selection kept."""
    steps = found.get("selection", ())
    if not steps:
        return []
    counts = " to ".join(f"{count:,}" for count in [steps[0]["from"], *(step["kept"] for step in steps)])
    return [f"The steps left {counts} columns in the final model's patients.", *agreement_notes(steps)]


def study_notes(study: Record, cohort_names: set[str]) -> list[str]:
    """Say what holds for the figures of every model."""
    privacy, validation = study.get("privacy", {}), study.get("validation", {})
    notes = []
    if "cross_validated" in cohort_names:
        folds = study.get("split", {}).get("folds")
        notes.append(
            f"Cross-validated figures use each patient's score from the {f'{folds}-fold ' if folds else ''}model that "
            "had not seen that patient; harmonisation, selection and training were repeated inside every fold."
        )
    if "leave_one_site_out" in cohort_names:
        notes.append(
            "Leave-one-site-out figures use each training patient's score from the model that had not seen any patient "
            "of that site: preprocessing, selection and training were repeated without it (internal-external "
            "validation)."
        )
    if "train" in cohort_names:
        notes.append("Training figures are apparent: the model has seen these patients. Do not quote them alone.")
    if "internal" in cohort_names:
        notes.append("Internal validation patients come from the training sites and took no part in fitting.")
    if "external" in cohort_names:
        notes.append("External validation patients come from sites that took no part in fitting.")
    if privacy.get("dp"):
        notes.append(
            "Counts carry noise (differential privacy), and ranks are taken over 20 even cells of the predicted risk; "
            "the interval of an AUC allows for the noise, the largest error of the cells is printed below it."
        )
    elif privacy.get("score_resolution", "binned") == "binned":
        notes.append(
            "Ranks are taken over binned scores (about ten patients a bin); the largest error this can cause is "
            "printed below the AUC it belongs to."
        )
    coarse = privacy.get("event_time_days", 30)
    survival = any(e.get("kind") == "survival" for e in study.get("endpoint", {}).values())
    if survival and coarse != 1:
        notes.append(
            f"Event times are coarsened to {coarse:g} days for unstratified Cox models, Kaplan-Meier curves and "
            "C-index."
        )
    if validation.get("compare"):
        notes.append(
            "Paired areas under the curve are compared by DeLong's test; p values are two-sided and unadjusted."
        )
    return notes
