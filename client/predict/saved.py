"""Saved: a model's folder ready to score: what it needs of a patient, and proof that its parts fit together."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import ModelError
from cohortium.common.model_files import AGAIN, SavedModel, read_model
from cohortium.common.table import Table
from cohortium.strategies import views
from cohortium.strategies.shapley import Background

PLACE = "new-patients"
"""Site name of the patients that are scored: that of no hospital in training."""
FINAL = ""  # the replicate that has left out no fold
UNFIT = (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError)
"""What scoring raises where objects are not what a run writes: wrong names, shapes, sizes."""

Result = TypeVar("Result")


class Needs(NamedTuple):
    """What a model and the models below it look at."""

    models: dict[str, str]  # name -> digest, the model itself first
    variables: tuple[str, ...]
    features: dict[str, tuple[str, ...]]  # set -> columns that must be known
    harmonised: tuple[str, ...]  # sets


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that can score."""

    saved: SavedModel
    needs: Needs

    def fit(self, name: str) -> Mapping[str, Any]:
        """What a patient is scored with, of the model itself or one below."""
        return self.saved.objects[self.needs.models[name]]["replicates"][FINAL]

    def context(self, patient_id: list[str], columns: Mapping[str, NDArray[np.float64]]) -> views.Context:
        """Patients as a site sees them; columns that are not given are missing."""
        ids = np.array(patient_id, dtype=np.str_)
        names = [v.name for v in self.saved.study.variable]
        names += [column for found in self.saved.description.features.values() for column in found]
        gaps = np.full(len(ids), np.nan)
        table = Table(PLACE, ids, np.full(len(ids), "external"), {name: columns.get(name, gaps) for name in names})
        return views.Context(table=table, study=self.saved.study, site=PLACE, objects=self.saved.objects)

    def score(self, context: views.Context) -> NDArray[np.float64]:
        """Reported score of each patient on its grid, (n,)."""
        return self.computed(lambda: views.score(context, self.saved.description.model, "final"))

    def linear_predictor(self, context: views.Context) -> NDArray[np.float64]:
        """Linear predictor of each patient, (n,)."""
        return self.computed(lambda: views.linear_predictor(context, self.saved.description.model))

    def recorded(self, context: views.Context, name: str) -> NDArray[np.float64]:
        """Columns of a model in study units, NaN = missing, (n, p)."""
        return self.computed(lambda: views.raw_design(context, self.fit(name)["blocks"], (), "final"))

    def background(self) -> tuple[list[str], Background] | None:
        """Variables, and what a patient's contributions are against; None where the folder has none."""
        if self.saved.description.background is None:
            return None
        found = dict(self.saved.objects[self.saved.description.background])
        return found.pop("variables"), Background(**found)

    def computed(self, compute: Callable[[], Result]) -> Result:
        """What is computed from the folder; whatever shows that its parts do not fit is a ModelError."""
        try:
            return compute()
        except UNFIT as unfit:
            raise _broken(self.saved.folder, unfit) from unfit


def open_model(folder: Path) -> Model:
    """Read a model's folder and try it on patients whose values are all zero.

    Raises
    ------
    ModelError
        It is no model, damaged, or its parts do not fit together.
    """
    saved = read_model(folder)
    try:
        needs = _needs(saved)
    except UNFIT as unfit:
        raise _broken(folder, unfit) from unfit
    model = Model(saved=saved, needs=needs)
    columns = [*needs.variables, *(column for found in needs.features.values() for column in found)]
    with np.errstate(all="ignore"):
        context = model.context(["1", "2"], dict.fromkeys(columns, np.zeros(2)))
        if model.score(context).shape != (2,) or not model.computed(lambda: _comparable(model)):
            raise _broken(folder, None)
        for name in needs.models:
            width = model.recorded(context, name).shape[1]
            if width != len(model.fit(name)["fill"]) or (width and width % len(_columns(saved, name, width))):
                raise _broken(folder, None)
    return model


def _needs(saved: SavedModel) -> Needs:
    """Walk from the model to those below; digests make a circle impossible."""
    models: dict[str, str] = {}
    variables: dict[str, None] = {}
    columns: dict[str, set[int]] = {}
    harmonised: dict[str, None] = {}
    todo = [saved.description.model]
    while todo:
        digest = todo.pop(0)
        found = saved.objects[digest]
        if found["name"] in models:
            continue
        models[found["name"]] = digest
        fit = found["replicates"][FINAL]
        _check_sizes(fit)
        for block in fit["blocks"]:
            if "model" in block:
                todo.append(block["model"])
            elif "terms" in block:
                terms = saved.objects[block["chain"]]["terms"] if block.get("chain") else block["terms"]
                variables |= dict.fromkeys(_variable(term) for term in [*terms, *block["terms"]])
            else:
                name, names = block["features"], saved.description.features[block["features"]]
                everything = range(len(names))
                if block.get("harmonise"):  # a hospital's shift is learned from all features of the set
                    harmonised[name] = None
                    protect = saved.objects[block["harmonise"]]["protect"]
                    variables |= dict.fromkeys(_variable(term) for term in protect)
                    columns.setdefault(name, set()).update(everything)
                at = everything if block.get("at") is None else np.asarray(block["at"]).tolist()
                columns.setdefault(name, set()).update(at)
    if strangers := set(variables) - set(saved.study.variables) | set(columns) - set(saved.study.features):
        raise KeyError(sorted(strangers)[0])
    features = {s: tuple(saved.description.features[s][i] for i in sorted(at)) for s, at in columns.items()}
    return Needs(models, tuple(v for v in saved.study.variables if v in variables), features, tuple(harmonised))


def _comparable(model: Model) -> bool:
    """Whether the background, where there is one, is of the model's columns."""
    if (found := model.background()) is None:
        return True
    variables, (group, rows, orders) = found
    each = np.arange(len(variables))
    columns = len(model.fit(model.saved.description.name)["fill"])
    return (
        columns == len(model.saved.description.columns)
        and group.shape == (columns,)
        and set(group.tolist()) == set(each.tolist())
        and rows.shape == (len(orders), columns)
        and orders.shape == (len(rows), len(each))
        and bool((np.sort(orders, axis=1) == each).all())
    )


def _columns(saved: SavedModel, name: str, width: int) -> Sized:
    """What is known of the columns of a model; of several imputations those of the first."""
    description = saved.description
    if name == description.name:
        return description.columns
    return description.training[name].columns if name in description.training else range(width)


def _variable(term: str) -> str:
    return term.partition("=")[0].partition(":")[0]


def _check_sizes(fit: Mapping[str, Any]) -> None:
    """Lengths that numpy would stretch to fit, and numbers that say how much memory is taken."""
    columns = len(fit["fill"])
    asked = {len(fit["centre"]), len(fit["scale"])}
    if "coefficients" in fit:
        asked.add(columns if "kernel" in fit else len(fit["coefficients"]) - 1)
    if asked != {columns} or ("kernel" in fit and int(fit["kernel"][1]) != len(fit["coefficients"]) - 1):
        raise ValueError("sizes")


def _broken(folder: Path, why: Exception | None) -> ModelError:
    told = f" ({type(why).__name__})" if why else ""
    return ModelError(f"model {folder}: its parts do not fit together{told}; {AGAIN}")
