"""Privacy labels: results of a study under differential privacy say so, beside every figure."""

from typing import Any

from cohortium.common import privacy_plan
from cohortium.common.study import Study
from cohortium.server.stages.private import NOT_NOISED


def labelled(content: dict[str, Any], study: Study) -> dict[str, Any]:
    """What results.json holds, with epsilon and delta at the top and beside every figure that is given."""
    dp = study.privacy.dp
    if dp is None:
        return content
    label = {"epsilon": dp.epsilon, "delta": dp.delta}
    whole = label | {
        "mode": "differential privacy",
        "neighbours": "one patient of one site replaced by any other",
        "rho": privacy_plan.budget(study),
        "clip": dp.clip,
        "accomplices": dp.accomplices,
        "statistics": list(privacy_plan.available(study)),
        "outside": "the flow of patients that each site declares, and the number of patients",
    }
    models = {}
    for name, model in content["models"].items():
        cohorts = {cohort: _marked(figures, label) for cohort, figures in model["cohorts"].items()}
        terms = [_marked(_without_errors(term), label) for term in model["coefficients"]]
        models[name] = model | {"coefficients": terms, "cohorts": cohorts}
    table = [_marked(entry, label) for entry in content["table_one"]]
    head = {key: content[key] for key in ("format", "study")}
    return {**head, "privacy": whole, **content, "table_one": table, "models": models}


def _marked(figures: dict[str, Any], label: dict[str, float]) -> dict[str, Any]:
    return figures if "withheld" in figures else figures | {"privacy": label}


def _without_errors(term: dict[str, Any]) -> dict[str, Any]:
    return term | {key: {"withheld": NOT_NOISED} for key in ("se", "ci", "p", "ratio_ci") if key in term}
