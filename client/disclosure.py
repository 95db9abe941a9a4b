"""Disclosure: how fine a question may be before its sum tells of single patients, whatever it is added to.

A secure sum hides a site among sites; it does not hide a patient whom the question itself singles out. These rules look
at the question alone, and at the public number of patients that it names (``rows.patients``). That number is bound
into the masks of every site, so all sites are told the same; it cannot be smaller than what the site holds itself, nor
larger than what all sites that can hold the part signed that they use (`check_patients`).

Without secure aggregation there are no signed numbers: then it stays the coordinator's word how large it is. Every site
agreed to that with its opt-in, by which it sends its own sums in the clear.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cohortium.client import classifiers
from cohortium.common.errors import SumRefused
from cohortium.common.study import Study
from cohortium.common.study_analysis import Correlation, Icc, LassoModel, LassoSelection, NetworkModel, Screen
from cohortium.common.sum_setup import Hello
from cohortium.strategies.cohort_figures import time_step
from cohortium.strategies.cutoff import on_grid
from cohortium.strategies.local_fits import asked_of
from cohortium.strategies.view_patients import repeat_of, too_many_repeats

TIMED_VIEWS = ("survival", "scored_survival", "scored_competing")
OWN_TIMES = (
    *("firth_cox.stratum", "proportional_hazards.stratum"),
    *("cox.stratum", "cox_screen.score", "lasso_cox.start", "lasso_cox.terms"),
    *("local_fits.able", "local_fits.shares", "concordance.pairs_within_site"),
)
"""Statistics that compare a site's patients among themselves: no time of one leaves, so no common grid is needed."""
GRID_CELLS = 256
RANKS = ("rank_tests.occupancy", "rank_tests.histogram", "rank_tests.split")
"""Statistics that count patients in cells of features; `split` cuts cells of some features ever finer."""
SQUARES = (
    *("chained.products", "correlation.cross_products", "rank_correlation.products"),
    *("linear.cross_products", "logistic.terms", "lasso.terms", "lasso_cox.terms"),
    *("cox.risk_sets", "cox.stratum", "firth_cox.moments"),
    *("site_effects.profile", "site_effects.marginal"),
)
"""Statistics that hold second moments of their columns, weighted or not."""
PATIENTS_A_COLUMN = 4
CELLS = ("discrimination.histogram", "discrimination.placements", "concordance.joint", "survival_calibration.cell_sums",
         "explanation.replaced", "permutation.replaced", "concordance_pairs.products")  # fmt: skip
"""Statistics that count outcomes by cells of a score."""
NOISED = ("class_histogram.patients", "noisy_logistic.gradient")
"""What differential privacy counts: as many cells whatever the number of patients."""
PATIENTS_A_CELL = 5
NUMBERS = {
    "outcome": ("moments.power_sums",),
    "predicted": ("moments.power_sums", "heterogeneity.able", "heterogeneity.sums", "heterogeneity.restricted"),
    "labelled": ("linear.cross_products", "lasso.start", "lasso.terms"),
}
"""What may be asked of rows that hold an outcome which is a number, by kind of view: no rank, no order statistic."""
OWN_FITS = {"meta_analysis": ("aggregation", ("meta",)), "site_effects": ("site_effects", ("fixed", "random"))}
"""Algorithms that sum functions of the sites' own fits, and the models that are fitted so: their key and its values."""
TRAINING = ("hidden", "optimizer", "learning_rate", "local_epochs", "batch_size")


def check(study: Study, statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any], rows: Any) -> None:
    """Refuse a question that is finer than this study, as approved, allows.

    Parameters
    ----------
    rows : NamedTuple
        What the view makes of this site's table (strategies/rows.py).

    Raises
    ------
    SumRefused
        Names the rule; holds nothing of the rows.
    """
    _times(study, statistic, view)
    _numbers(statistic, view)
    _contours(study, statistic, view)
    _inner_folds(study, view)
    _scores(study, statistic, view, parameters)
    if statistic in SQUARES:
        _columns(study, statistic, view, parameters, rows)
    if statistic in ("shapley.values", "permutation.replaced"):
        patients = _public_number(statistic, view, len(rows.x))
        classifiers.check_explained(study, statistic, view, parameters, patients)
    if statistic in CELLS and study.privacy.score_resolution == "binned":
        _cells(statistic, view, parameters, rows)
    if statistic in RANKS:
        _ranks(study, statistic, view, parameters, rows)
    if statistic == "fedavg.update":
        _training(study, view, parameters)
    if statistic in classifiers.STATISTICS:
        classifiers.check(study, statistic, view, parameters, _public_number(statistic, view, len(rows.x)))
    _own_fits(study, statistic, view)
    if statistic == "meta_analysis.restricted" and "tau2" not in study.opt_ins:
        raise SumRefused(statistic, "the study has no meta-analysis by REML, an opt-in of every site")
    if statistic.startswith("local_fits."):
        _local_fits(study, statistic, view, parameters)


def check_patients(study: Study, views: Iterable[Mapping[str, Any]], roster: Iterable[Hello]) -> None:
    """Refuse questions about more patients than the sites have, or about more sets of them than they can bear.

    Parameters
    ----------
    roster : iterable of Hello
        Of this sum, its signatures verified. A site that lies about its own number raises it for all.

    Raises
    ------
    SumRefused
        Holds the number that was signed for, which is public.
    """
    signed = {entry.site: entry.patients for entry in roster}
    for view in views:
        named, part = view["rows"].get("patients", 0), view["rows"]["part"]
        most = sum(signed.get(site, 0) for site in study.sites_of(part))
        if type(named) is not int or named > most:
            raise SumRefused(
                "number of patients",
                f"the request is about more patients of the {part} part than the {most} that its sites signed for; "
                "name as many as there are",
            )
        again = repeat_of(study, view["rows"].get("without") or ())
        if again and (why := too_many_repeats(study, most)):
            raise SumRefused("repeats of cross-validation", why)


def width(statistic: str, parameters: Mapping[str, Any], rows: Any) -> int:
    """Columns whose second moments a question asks for; 0 where it asks for none."""
    if statistic not in SQUARES:
        return 0
    if statistic == "lasso.terms":  # its second moments are those of the working sets, the intercept apart
        return int(np.asarray(parameters["working"])[:, 1:].sum(axis=1).max(initial=0))
    if statistic == "lasso_cox.terms":  # which has no intercept
        return int(np.asarray(parameters["working"]).sum(axis=1).max(initial=0))
    # the outcome is a column of the cross products too
    return int(rows.x.shape[1]) + (statistic == "linear.cross_products")


def _times(study: Study, statistic: str, view: Mapping[str, Any]) -> None:
    """Only the study's grid of times: two grids that are coarse cross in cells that are fine."""
    if view["kind"] not in TIMED_VIEWS or statistic in OWN_TIMES:
        return
    if view.get("time_step") != time_step(study, view["endpoint"]):
        raise SumRefused(
            statistic,
            f"event times leave on the study's grid of event_time_days = {study.privacy.event_time_days} only; a finer "
            "one is an opt-in of every site",
        )


def _numbers(statistic: str, view: Mapping[str, Any]) -> None:
    """Of a continuous endpoint only means and products leave: an order statistic would be one patient's outcome."""
    if ("outcome" in view or view["kind"] in ("outcome", "predicted")) and statistic not in NUMBERS.get(
        view["kind"], ()
    ):
        raise SumRefused(statistic, "of an outcome that is a number only sums of values, squares and products leave")


def _contours(study: Study, statistic: str, view: Mapping[str, Any]) -> None:
    """What other contours measured is there for their agreement alone."""
    named = any(isinstance(step, Icc) for model in study.model.values() for step in model.selection)
    if (view["kind"] == "repeated") != (statistic == "icc.agreement") or (view["kind"] == "repeated" and not named):
        raise SumRefused(
            statistic, "perturbed contours are compared by a selection step icc that the study names, and no other way"
        )


def _inner_folds(study: Study, view: Mapping[str, Any]) -> None:
    """As many inner folds as patients would make every patient a fold of its own."""
    asked = view.get("inner_folds")
    steps = [step for model in study.model.values() for step in (model, *model.selection)]
    named = {step.folds for step in steps if isinstance(step, LassoModel | LassoSelection)}
    if asked and asked not in named | classifiers.inner_folds(study):
        raise SumRefused("inner folds", "the study names no LASSO with so many folds; ask for those the sites approved")


def _scores(study: Study, statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """No more scores of a patient than models, each cut once and at the study's thresholds: more cuts are a score."""
    if statistic in NOISED and study.privacy.dp is None:
        raise SumRefused(statistic, "it leaves with noise only, and the study has no [privacy.dp]")
    if len(view.get("models", ())) > len(study.model):
        raise SumRefused(statistic, "it is about more models than the study has; ask for each of them once")
    if statistic != "cutoff.above" or study.privacy.score_resolution != "binned":
        return
    shared = np.asarray(parameters["thresholds"])[:, 1:]
    approved = on_grid(np.array(study.validation.decision_thresholds))
    if shared.size and not (shared.shape[1] == len(approved) and (shared == approved).all()):
        raise SumRefused(
            statistic,
            "outcomes are counted at a model's cut-off and at the study's decision_thresholds only; score_resolution "
            "is binned, and exact is an opt-in of every site",
        )


def _columns(study: Study, statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any], rows: Any) -> None:
    """At most one column for every four patients: from N columns on, second moments fix the rows of N patients.

    The number that is named may be that of all parts; so they are of the training part, which is most of it, but for
    refits in the external one, whose sites hold no other.
    """
    refit = (statistic, view["rows"]["part"], study.validation.updating) == ("logistic.terms", "external", "refit")
    if view["rows"]["part"] != "train" and not refit:
        raise SumRefused(statistic, "second moments are of the training part; no figure of another one needs them")
    columns = width(statistic, parameters, rows)
    patients = _public_number(statistic, view, len(rows.x))
    if columns > patients // PATIENTS_A_COLUMN:
        raise SumRefused(
            statistic,
            f"second moments of {columns} columns over {patients} patients would give the rows away; at most one "
            f"column for every {PATIENTS_A_COLUMN} patients may be asked for: screen first, or name fewer predictors",
        )


def _cells(statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any], rows: Any) -> None:
    """So few cells that the patients cannot lie alone in them; honest bins hold about ten."""
    cells = max(len(edges) for edges in parameters["edges"])
    # about as many are in the part of them that a permutation is about
    patients = _public_number(statistic, view, len(rows[0])) >> parameters.get("halvings", 0)
    if cells > patients // PATIENTS_A_CELL + 2:
        raise SumRefused(
            statistic,
            f"{cells} cells for {patients} patients show single scores; score_resolution is binned, and exact is an "
            "opt-in of every site",
        )


def _ranks(study: Study, statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any], rows: Any) -> None:
    """Ranks only where the study asks for them; bins by outcome of five patients; few features cut finer at a time."""
    steps = [step for model in study.model.values() for step in model.selection]
    tests = any(isinstance(step, Screen) and step.test in ("mann_whitney", "auc") for step in steps)
    spearman = any(isinstance(step, Correlation) and step.coefficient == "spearman" for step in steps)
    table = study.ranks_table_one and statistic != "rank_tests.split"
    if not tests and not table and not (spearman and statistic == "rank_tests.occupancy"):
        raise SumRefused(statistic, "the study names no selection by ranks; ask for what the sites approved")
    patients = _public_number(statistic, view, len(rows.x))
    if statistic == "rank_tests.split":
        asked, most = len(set(np.asarray(parameters["columns"]).tolist())), max(patients // PATIENTS_A_COLUMN, 1)
        what = f"cells of {asked} features at a time for {patients} patients; at most {most} may be cut finer"
    else:
        asked = np.shape(parameters["grid" if statistic == "rank_tests.occupancy" else "edges"])[-1] - 1
        by_outcome = statistic == "rank_tests.histogram"
        most = patients // PATIENTS_A_CELL + 2 if by_outcome else GRID_CELLS
        what = f"{asked} cells of a feature for {patients} patients; at most {most}"
    if asked > most:
        raise SumRefused(statistic, what)


def _public_number(statistic: str, view: Mapping[str, Any], own: int) -> int:
    patients = view["rows"].get("patients")
    if type(patients) is not int or patients < own:
        raise SumRefused(statistic, "the request must name the number of patients it is about, of all sites together")
    return patients


def _own_fits(study: Study, statistic: str, view: Mapping[str, Any]) -> None:
    """Functions of a site's own fit only where the study names them: at enough parameters their sums tell each one."""
    key, values = OWN_FITS.get(statistic.partition(".")[0], ("", ()))
    if key and not any(
        getattr(model, key, None) in values and model.endpoint == view["endpoint"] for model in study.model.values()
    ):
        raise SumRefused(statistic, f"the study has no model of this endpoint with {key} = {' or '.join(values)}")


def _local_fits(study: Study, statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """A site fits on its own only what the study says."""
    for name, model in study.model.items():
        if getattr(model, "aggregation", "exact") == "fedavg" and model.endpoint == view["endpoint"]:
            asked = asked_of(model, study.endpoint_of(name).kind)
            if all(parameters.get(key) == value for key, value in asked.items()):
                return
    raise SumRefused(statistic, 'the study has no such model with aggregation = "fedavg"; ask for what was approved')


def _training(study: Study, view: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """A network is trained as approved: a batch of one patient would have that patient's gradient."""
    for model in study.model.values():
        if isinstance(model, NetworkModel) and model.endpoint == view["endpoint"]:
            approved = {"hidden": list(model.head), **{key: getattr(model, key) for key in TRAINING[1:]}}
            if all(parameters.get(key) == value for key, value in approved.items()):
                return
    raise SumRefused(
        "fedavg.update",
        "the study trains no network with this head, optimizer, learning rate, epochs and batch size; ask for what the "
        "sites approved",
    )
