"""Left out: questions about sums without a site, and figures of one site, which a study must have asked for.

A sum over all sites less the sum over all but one is that one's own. So only a study whose sites agreed to
leave-one-site-out validation may name a site among what a fit leaves out, and one site at a time.
"""

from collections.abc import Mapping
from typing import Any

from cohortium.common.errors import SumRefused
from cohortium.common.study import Study
from cohortium.strategies import views
from cohortium.strategies.view_patients import fold_numbers, outcome_class, repeat_of

COHORT = "figures.cohort"
"""Name of the finished figures of a cohort on an allow list."""


def check_left_out(study: Study, statistic: str, view: Mapping[str, Any]) -> None:
    """Refuse what leaves a site out, or sums the sites' own figures, in a study that does not.

    Raises
    ------
    SumRefused
        Names the rule.
    """
    folds, sites = fold_numbers(study, study.split.repeats).start, len(study.split.train)
    without = list(view["rows"].get("without") or ())
    asked = study.validation.leave_one_site_out
    left_out = [number for number in without if type(number) is not int or not 0 <= number < folds]
    known = all(type(number) is int and folds <= number < folds + sites for number in left_out)
    if left_out and not (asked and known and len(left_out) == 1):
        raise SumRefused(
            statistic,
            "it is to leave out what is no fold of this study; a site may be left out, one at a time, where the study "
            "has leave_one_site_out, an opt-in of every site",
        )
    if len(without) - len(left_out) > (most := most_folds(study)):
        raise SumRefused(
            statistic,
            f"it is to leave out more than {most} folds; no fit of the study does, and few patients were left",
        )
    repeats = {repeat_of(study, [number]) for number in without if number not in left_out}
    if len(repeats) > 1 or (left_out and repeats - {0}):
        raise SumRefused(
            statistic,
            "it is to leave out folds of two repeats of cross-validation, or of a further one beside a site; no fit of "
            "the study does",
        )
    own_scores = view.get("of") == "left_out_site" and view["rows"]["part"] == "train" and not view["rows"].get("where")
    if statistic.startswith("heterogeneity.") and not (asked and own_scores):
        raise SumRefused(
            statistic, "sums of the sites' own figures are for the study's leave_one_site_out validation; it has none"
        )


def most_folds(study: Study) -> int:
    """Folds that a fit leaves out at most: two, or as many as models are stacked on each other's unseen values."""
    folds = dict.fromkeys(study.model, int(study.split.folds is not None))
    for name in reversed(study.model_order):
        model = study.model[name]
        for below in model.models_below:
            folds[below] = max(folds[below], folds[name] + (model.stack == "out_of_fold"))
    return max(2, *folds.values())


def check_minimum(study: Study, statistic: str, parameters: Mapping[str, Any]) -> None:
    """Refuse a site's own figure among sums where it would be of fewer events than approved."""
    least = study.privacy.minimum_count
    if statistic.startswith("heterogeneity.") and parameters.get("minimum_count") != least:
        raise SumRefused(
            statistic, f"a site's figure is of minimum_count = {least} events or more; ask with that number"
        )


def check_events(study: Study, what: str, rows: Mapping[str, Any], context: views.Context) -> None:
    """Refuse one site's figures of a cohort with too few events (of a binary endpoint, or too few others).

    Raises
    ------
    SumRefused
        Names the rule; holds no count.
    """
    endpoint, least = rows["endpoint"], study.privacy.minimum_count
    if study.endpoint[endpoint].kind == "continuous":
        return  # a number is no event; the guard counts the patients
    events = outcome_class(context, endpoint)[views.selected(context, rows)]
    if events.sum() < least:
        raise SumRefused(what, f"fewer than minimum_count = {least} patients at this site have the event")
    if study.endpoint[endpoint].kind == "binary" and len(events) - events.sum() < least:
        raise SumRefused(what, f"fewer than minimum_count = {least} patients at this site are without the event")
