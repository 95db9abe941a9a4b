"""Noise: a site's share of a sum under differential privacy, noised, charged and kept (common/privacy_plan.py).

Only questions that see a patient's own record and nothing of other patients are answered: no folds (they rank
patients), no harmonisation, no filling in from sums. What one patient can change is then what the statistic declares.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common import privacy_plan
from cohortium.common.codec import pack
from cohortium.common.discrete_gaussian import LARGEST_SIGMA, Keystream, discrete_gaussian
from cohortium.common.errors import SumRefused
from cohortium.common.federation import Statistic
from cohortium.common.privacy_accountant import Accountant, affordable
from cohortium.common.table import Table
from cohortium.sites.site_file import Site
from cohortium.strategies import views

ROW_KEYS = {"part", "endpoint", "without", "patients"}
VIEW_KEYS = {"kind", "rows", "endpoint", "group", "blocks", "centre", "scale", "fill", "of", "models"}


def account_of(site: Site) -> Accountant:
    """The privacy account in a site's workspace, with the limit over all studies that its site file sets."""
    limit = site.site.epsilon
    return Accountant(site.workspace, None if limit is None else affordable(limit, site.site.delta))


def noised_share(
    statistic: Statistic,
    item: Mapping[str, Any],
    context: views.Context,
    *,
    accountant: Accountant,
    roster: Sequence[str],
) -> list[NDArray[np.int64]]:
    """A site's arrays with its noise; charged to the site's budget, or kept ones of the same question.

    Parameters
    ----------
    item : mapping
        ``{"statistic", "view", "parameters"}``, as asked.
    roster : sequence of str
        Sites of the sum.

    Raises
    ------
    SumRefused
        The statistic or the view cannot be noised, sites are missing that must add noise, or the budget is spent.
    """
    study, view, parameters = context.study, item["view"], item["parameters"]
    rho = privacy_plan.rho_each(study, statistic.name)
    if statistic.sensitivity is None:
        raise SumRefused(statistic.name, "what one patient can change in it is not bounded, so no noise can hide it")
    if sorted(roster) != list(study.sites):
        raise SumRefused("privacy", "every site of the study must add its noise to the sum; ask all of them")
    _own_record_only(statistic.name, view, context)
    if statistic.name == "levels.level_counts":
        _level_codes(view, parameters["levels"], context)
    nobody = views.Context(Table.empty(list(context.table.columns)), study, context.site, context.objects)
    shape = statistic.local(views.build(view, nobody), **parameters)
    sensitivity = statistic.sensitivity(shape, **parameters)
    sigma = privacy_plan.noise_of_a_site(study, statistic.name, sensitivity)
    if sigma > LARGEST_SIGMA:
        raise SumRefused(statistic.name, "needs more noise than its grid holds; raise epsilon or lower clip")

    def make() -> list[NDArray[np.int64]]:
        stream = Keystream()
        share = statistic.local(views.build(view, context), **parameters)
        return [field + discrete_gaussian(sigma, field.size, stream).reshape(field.shape) for field in share]

    return accountant.answer(
        _digest(study.hash, sigma, roster, item, context),
        study=study.hash,
        part=view["rows"]["part"],
        statistic=statistic.name,
        rho=min(rho, privacy_plan.charged(study, sensitivity, sigma)),
        budget=privacy_plan.budget(study),
        make=make,
    )


def _own_record_only(statistic: str, view: Mapping[str, Any], context: views.Context) -> None:
    """Refuse a view in which a patient's row depends on other patients of the site."""
    rows, blocks = view["rows"], list(view.get("blocks", ()))
    plain = set(view) <= VIEW_KEYS and set(rows) <= ROW_KEYS and not rows.get("without")
    plain &= view["kind"] in ("matrix", "labelled", "scored") and view.get("of", "final") == "final"
    for digest in view.get("models", ()):
        blocks += context.objects[digest]["replicates"][""]["blocks"]
    if not (plain and all(set(block) == {"terms"} for block in blocks)):
        raise SumRefused(
            statistic,
            "under [privacy.dp] only questions about patients' own variables are answered: no folds, subgroups, "
            "feature sets, harmonisation or out-of-fold scores",
        )


def _level_codes(view: Mapping[str, Any], levels: int, context: views.Context) -> None:
    """Refuse by what the study says, before a value that is no code could: that refusal would tell of a patient."""
    for term in (term for block in view["blocks"] for term in block["terms"]):
        variable = context.study.variables.get(term)
        if variable is None or variable.kind == "continuous" or len(variable.levels) > levels:
            raise SumRefused(
                "levels.level_counts", "asks for a variable without levels, or for fewer levels than it has"
            )


def _digest(study: str, sigma: int, roster: Sequence[str], item: Mapping[str, Any], context: views.Context) -> bytes:
    """Everything that the answer depends on: the question, the study, the sites and this site's patients."""
    table = context.table
    state = hashlib.sha256(pack({"study": study, "sigma": sigma, "roster": list(roster), "item": dict(item)}))
    state.update(pack({"site": context.site, "patients": [str(name) for name in table.patient_id]}))
    for name in sorted(table.columns):
        state.update(name.encode() + np.ascontiguousarray(table.columns[name]).tobytes())
    return state.digest()
