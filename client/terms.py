"""Terms: which columns of a study's variables a question may be about, so that no other way leads around Table 1.

A sum of 0/1 terms by outcome is a column of Table 1, whatever the statistic is called: a mean of terms in a group, a
gradient, the histogram of a score that is one term. What a model is fitted on cannot be held back from whoever fits it
(the score equations of logistic regression are these sums). What no model uses leaves in Table 1 only, where the rules
on its cells hold.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cohortium.common.errors import SumRefused
from cohortium.common.study import Study
from cohortium.strategies import views

COUNTED = ("levels.level_counts",)
"""Statistics that count whole variables for Table 1, which the guard's rules on cells look at."""
DESCRIBING = ("moments.power_sums", "quantiles.top_bytes", "quantiles.next_bytes")
"""Statistics of Table 1 about continuous variables."""


def check_terms(
    study: Study, statistic: str, view: Mapping[str, Any], objects: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse a question about columns that neither Table 1 nor a model of the study has.

    Raises
    ------
    SumRefused
        Names the rule and the variable.
    """
    modelled = {name for model in study.model.values() for name in model.variables}
    if study.harmonise is not None:
        modelled |= set(study.harmonise.protect)
    for term in _terms(view, objects):
        name, missing = _variable(term), term.endswith(":missing")
        variable = study.variables.get(name)
        if variable is None:
            continue  # of which no view makes a column
        if missing and variable.missing != "indicator":
            raise SumRefused(f"{name}:missing", 'which values are missing is a column only where missing = "indicator"')
        described = statistic in (DESCRIBING if variable.kind == "continuous" else COUNTED) and term == name
        if name not in modelled and not described:
            raise SumRefused(
                statistic,
                f"no model of the study uses {name}, so it leaves in Table 1 only; ask for what the sites approved",
            )


def _terms(view: Mapping[str, Any], objects: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Every term of a view: of its own blocks, and of the models and harmonisations that they stand on."""
    blocks = list(view.get("blocks", ()))
    waiting = [str(digest) for digest in view.get("models", ())]
    seen: set[str] = set()
    while blocks or waiting:
        if blocks:
            block = blocks.pop()
            yield from (term for term in block.get("terms", ()) if term != views.CONSTANT)
            waiting += [digest for key in ("model", "harmonise", "chain") if (digest := block.get(key))]
        elif (digest := waiting.pop()) not in seen:
            seen.add(digest)
            published = objects[digest]
            blocks.append({"terms": [*published.get("protect", ()), *published.get("terms", ())]})
            blocks += [block for fit in published.get("replicates", {}).values() for block in fit["blocks"]]


def _variable(term: str) -> str:
    return term.partition("=")[0].partition(":")[0]
