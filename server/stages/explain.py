"""Explain: what the variables of each model do: mean |SHAP|, permutation importance, nomogram.

Asked for by ``[validation] explain``; on the training part, of the final fit. Of a score that is not linear in the
model's columns there are SHAP values by sampled permutations (strategies/shapley.py) and permutation importance
(strategies/permutation.py), both against the same public marginals, and no nomogram.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cohortium.common.errors import SumRefused, Undefined
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.fitted import FittedModel
from cohortium.server.stages.marginals import Marginals, is_level
from cohortium.strategies import explanation, nomogram, permutation, quantiles, score_bins, shapley
from cohortium.strategies.rows import Array, Counts
from cohortium.strategies.validation_settings import undefined

NOT_LINEAR = "the score is not a linear function of the model's columns"
IMPUTED = "several imputed data sets: a gap has another value, and a column another scale, in each of them"
SHARES = tuple((k + 0.5) / explanation.VALUES for k in range(explanation.VALUES))
RECIPE = ("blocks", "centre", "scale", "fill")
DRAWN = "variable by variable from the marginals over the training patients, as if independent; no patient's row"


def explain(federation: StudyFederation, fitted: Mapping[str, FittedModel]) -> dict[str, dict[str, Any]]:
    """What ``explanation`` of each model holds in results.json; empty where the study asks for nothing."""
    asked = federation.study.validation.explain
    if not asked:
        return {}
    with federation.progress.stage("explain", total=len(fitted)) as step:

        def run(name: str) -> dict[str, Any]:
            found = _Explained(federation, name, fitted[name]).figures(asked)
            step.advance()
            return found

        found = federation.together([lambda name=name: run(name) for name in fitted])
    return dict(zip(fitted, found, strict=True))


class _Explained:
    """One model on the training patients."""

    def __init__(self, federation: StudyFederation, name: str, model: FittedModel) -> None:
        self.federation = federation
        self.study = federation.study
        self.name, self.digest, self.fit = name, model.digest, model.final
        columns = self.fit.columns.columns
        self.variables = list(dict.fromkeys(column.variable for column in columns))
        self.group = np.array([self.variables.index(column.variable) for column in columns], dtype=np.int64)
        self.level = np.array([is_level(self.study, column) for column in columns], dtype=bool)
        self.rows = {"part": "train", "endpoint": self.study.model[name].endpoint}

    def figures(self, asked: tuple[str, ...]) -> dict[str, Any]:
        published = self.fit.published
        if not len(self.group):
            return dict.fromkeys(asked, undefined("the model has no columns"))
        if "coefficients" not in published or "kernel" in published:
            found = dict.fromkeys(asked, undefined(NOT_LINEAR))
            return found | self._of_any_score([key for key in ("shap", "permutation") if key in asked])
        if len(published["coefficients"]) != len(self.group) + 1:
            return dict.fromkeys(asked, undefined(IMPUTED))
        beta = np.asarray(published["coefficients"], float)
        try:
            shap, sums = explanation.mean_absolute_shap(self._design(), beta[1:], self.group)
        except SumRefused as refusal:
            return {key: {"withheld": str(refusal)} for key in asked}
        patients = int(sums.patients)
        ends = nomogram.percentiles(patients, self.study.privacy.minimum_count)
        wanted = [*ends, *SHARES]
        found: dict[str, Any] = {}
        if "shap" in asked:
            found["shap"] = [
                {"variable": v, "mean_absolute": float(s)} for v, s in zip(self.variables, shap, strict=True)
            ]
        if {"nomogram", "permutation"} & set(asked):
            try:
                marginal = self._quantiles(wanted)
                if "permutation" in asked:
                    found["permutation"] = self._permutation(beta, sums.total / max(patients, 1), marginal[:, 2:])
                if "nomogram" in asked:
                    found["nomogram"] = self._nomogram(beta, marginal[:, :2], ends)
            except SumRefused as refusal:
                found |= {key: {"withheld": str(refusal)} for key in asked if key not in found}
        return found

    def _of_any_score(self, asked: list[str]) -> dict[str, Any]:
        """SHAP values and permutation importance against public marginals; their sums share messages."""
        if not asked:
            return {}
        if len(self.variables) > shapley.MOST_VARIABLES:
            many = f"{len(self.variables)} variables are too many to explain a score that is not linear"
            return dict.fromkeys(asked, undefined(f"{many}; at most {shapley.MOST_VARIABLES}: select some first"))
        nothing = np.zeros(len(self.group))
        try:
            sums = self._design().sum(explanation.contributions, coefficients=nothing, centre=nothing, group=self.group)
            patients = int(sums.patients)
            # the background is published with the model: as the axes of a nomogram, it ends before single patients
            ends = nomogram.percentiles(patients, self.study.privacy.minimum_count)
            part = permutation.halvings(patients, len(self.variables))
            first: list[Callable[[], Any]] = [lambda: self._quantiles(np.clip(SHARES, *ends).tolist())]
            if "permutation" in asked:
                first.append(lambda: self._edges(per_bin=score_bins.PER_BIN << part))
            marginal, *edges = self.federation.together(first)
        except SumRefused as refusal:
            return {key: {"withheld": str(refusal)} for key in asked}
        known = self._marginals(sums.total / max(patients, 1), marginal)
        marginals = [known.whole(v) for v in range(len(self.variables))]
        tasks: dict[str, Callable[[], dict[str, Any]]] = {
            "shap": lambda: self._sampled(marginals, patients),
            "permutation": lambda: self._drawn_anew(marginals, patients, edges[0]),
        }
        parts = self.federation.together([tasks[key] for key in asked])
        return {key: value for part in parts for key, value in part.items()}

    def _keyed(self, patients: int, **more: str) -> tuple[Any, dict[str, Any]]:
        """The training patients with keys that choose a part of them, and what scores them."""
        published = self.fit.published
        rows = {**self.rows, "patients": patients}
        view = {"kind": "keyed", "rows": rows, **more, **{key: published[key] for key in RECIPE}}
        return self.federation.rows(view), {key: value for key, value in published.items() if key not in RECIPE}

    def _drawn_anew(self, marginals: list[explanation.Replacement], patients: int, edges: Counts) -> dict[str, Any]:
        """Permutation importance of a score of any kind."""
        rows, fit = self._keyed(patients, group=self.rows["endpoint"])
        try:
            found = permutation.importance(rows, fit, edges, marginals, patients)
        except SumRefused as refusal:
            return {"permutation": {"withheld": str(refusal)}}
        except Undefined as why:
            return {"permutation": undefined(why)}
        return {"permutation": {"patients": found.patients, **self._falls(found.auc, found.falls)}}

    def _sampled(self, marginals: list[explanation.Replacement], patients: int) -> dict[str, Any]:
        """SHAP values of a score of any kind, and what they were sampled with."""
        seed = self.study.study.seed
        background = shapley.draw(marginals, self.group, np.random.default_rng(seed))
        rows, fit = self._keyed(patients)
        try:
            found = shapley.sampled(rows, fit, background, patients)
        except SumRefused as refusal:
            return {"shap": {"withheld": str(refusal)}}
        digest = self.federation.publish({"variables": self.variables, **background._asdict()})
        entries = zip(self.variables, found.mean_absolute.tolist(), found.mean.tolist(), strict=True)
        ordered = sorted(entries, key=lambda entry: -entry[1])
        return {
            "shap": [{"variable": v, "mean_absolute": absolute, "mean": mean} for v, absolute, mean in ordered],
            "shap_sampling": {
                "patients": found.patients,
                "permutations": 2 * shapley.BACKGROUND,
                "background": {"rows": shapley.BACKGROUND, "how": DRAWN, "seed": seed, "object": digest},
                "expected": found.expected,
                "score": found.score,
            },
        }

    def _design(self, **raw: Array) -> Any:
        """The model's columns, standardised; with another `centre` and `scale` on another scale."""
        recipe = {key: self.fit.published[key] for key in RECIPE}
        return self.federation.rows(
            {"kind": "matrix", "rows": self.rows, "group": self.rows["endpoint"], **recipe, **raw}
        )

    def _quantiles(self, shares: list[float]) -> Array:
        """Quantiles of the filled columns that are measured, raw, (p, shares); zeros for those of 0 and 1."""
        columns, measured = len(self.group), ~self.level
        values = np.zeros((columns, len(shares)))
        if measured.any():
            raw = self._design(centre=np.zeros(columns), scale=np.ones(columns))
            values[measured] = quantiles.fit(raw, shares)[measured]
        return values

    def _marginals(self, mean: Array, values: Array) -> Marginals:
        return Marginals(columns=self.fit.columns, group=self.group, level=self.level, mean=mean, quantiles=values)

    def _permutation(self, beta: Array, mean: Array, marginal: Array) -> Any:
        if self.study.endpoint_of(self.name).kind != "binary":
            return undefined("permutation importance is the fall of an AUC, of binary models")
        edges = self._edges()
        marginals = self._marginals(mean, marginal)
        replacements = [marginals.measured(v) for v in range(len(self.variables))]
        try:
            auc, falls = explanation.permutation_importance(self._design(), beta, edges, replacements)
        except Undefined as why:
            return undefined(why)
        return self._falls(auc, falls)

    def _falls(self, auc: float, falls: Array) -> dict[str, Any]:
        fallen = zip(self.variables, falls.tolist(), strict=True)
        return {"auc": auc, "variables": [{"variable": v, "fall": fall} for v, fall in fallen]}

    def _edges(self, per_bin: int = score_bins.PER_BIN) -> Counts:
        """Cells of the training patients' risks."""
        scored = {"kind": "scored", "rows": self.rows, "endpoint": self.rows["endpoint"], "of": "final"}
        view = self.federation.rows({**scored, "models": [self.digest]})
        resolution = self.study.privacy.score_resolution
        return score_bins.edges(view, 1, scale="probability", resolution=resolution, per_bin=per_bin)[0]

    def _nomogram(self, beta: Array, ends: Array, shares: tuple[float, float]) -> Any:
        if len(self.variables) > nomogram.MOST_AXES:
            many = f"{len(self.variables)} variables are too many for a nomogram"
            return undefined(f"{many}; at most {nomogram.MOST_AXES}")
        columns = self.fit.columns
        slope = beta[1:] / columns.scale
        axes: dict[str, list[tuple[Any, float]]] = {}
        for i, column in enumerate(columns.columns):
            if not self.level[i]:
                axes[column.name] = [(float(value), float(value * slope[i])) for value in ends[i]]
            elif "=" in column.name:
                axes.setdefault(column.variable, [(self._reference(column.variable), 0.0)])
                axes[column.variable].append((column.name.partition("=")[2], float(slope[i])))
            else:
                axes[column.name] = [(0, 0.0), (1, float(slope[i]))]
        binary = self.study.endpoint_of(self.name).kind == "binary"
        intercept = float(beta[0] - columns.centre @ slope)
        found = nomogram.nomogram(intercept, axes, risks=nomogram.RISKS if binary else ())
        return found | {"percentiles": list(shares)}

    def _reference(self, variable: str) -> str:
        return next(iter(self.study.variables[variable].level_index))
