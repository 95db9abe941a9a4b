"""Privacy checks: what a study under [privacy.dp] may hold: only what noise can hide a patient in."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cohortium.common.declared_files import Mistake, shown

if TYPE_CHECKING:
    from cohortium.common.study import Study


def noised_mistakes(study: "Study") -> Iterator[Mistake]:
    """Mistakes of a study that asks for differential privacy."""
    dp = study.privacy.dp
    if dp is None:
        return
    available = f"under [privacy.dp] there are {', '.join(dp.statistics)}"
    if not study.privacy.secure_aggregation:
        yield Mistake("[privacy]", "secure_aggregation = false", "a site's share alone has too little noise; use true")
    if len(study.sites) - dp.accomplices < 2:
        problem = f"must leave two of the {len(study.sites)} sites to hide each other; lower it"
        yield Mistake("[privacy.dp]", f"accomplices = {dp.accomplices}", problem)
    if "noisy_logistic.gradient" not in dp.statistics:
        problem = "a study has a model, and noisy_logistic.gradient fits it; add it"
        yield Mistake("[privacy.dp]", f"statistics = {shown(dp.statistics)}", problem)
    unhidden = (
        ("[harmonise]", study.harmonise is not None),
        ("[split] folds", study.split.folds is not None),
        ("[validation] compare", bool(study.validation.compare)),
        ("[validation] bootstrap", bool(study.validation.bootstrap)),
        ("[validation] explain", bool(study.validation.explain)),
        ("[validation] subgroups", bool(study.validation.subgroups)),
        ("[validation] survival", study.validation.survival is not None),
        ("[validation] leave_one_site_out", study.validation.leave_one_site_out),
        ("[validation] by_site", study.validation.by_site),
        ("[[validation.analysis]]", bool(study.validation.analysis)),
    )
    for table, asked in unhidden:
        if asked:
            yield Mistake("[privacy.dp]", table, f"cannot be noised by this version; leave it out: {available}")
    yield from _models(study, available)


PLAIN = {"penalty": "none", "aggregation": "exact", "tests": "wald", "site_effects": "none"}
"""Keys of a logistic model, and the values that its noised fit knows."""


def _models(study: "Study", available: str) -> Iterator[Mistake]:
    for name, model in study.model.items():
        table = f"[model.{name}]"
        if model.kind != "logistic" or model.selection:
            problem = f"only logistic models without selection can be fitted with noise; {available}"
            yield Mistake(table, f"kind = {shown(model.kind)}", problem)
        for key, usual in PLAIN.items():
            if (value := getattr(model, key, usual)) != usual:
                problem = f"cannot be fitted with noise; leave it out: {available}"
                yield Mistake(table, f"{key} = {shown(value)}", problem)
        for predictor in model.predictors:
            variable = study.variables.get(predictor)
            if variable is None:
                problem = f"only the study's variables can enter a noised model; {available}"
            elif variable.kind == "continuous" and variable.range is None:
                problem = "a noised model scales it by its range, which is public; give the variable a range"
            elif variable.missing != "refuse":
                problem = 'filling in needs sums of their own; use missing = "refuse" under [privacy.dp]'
            else:
                continue
            yield Mistake(table, f"predictors = {shown(predictor)}", problem)
