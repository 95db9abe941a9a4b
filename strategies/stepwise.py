"""Stepwise selection: by AIC or by p, all candidate models of a step side by side in the same sums.

The server halves below know no data: `fit` is handed sets of variables and gives a log-likelihood and a number of
parameters for each, or None where a set has no finite maximum (such a candidate cannot be taken). What they choose is
what the same search over pooled patients chooses, since the likelihoods are equal. AIC as R's ``step``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cohortium.common.errors import NotIdentifiable
from cohortium.strategies import likelihood

Variables = frozenset[str]
DIRECTION = {"add": "forward", "remove": "backward"}
TIE = 1e-7
"""Criteria that are closer than this are equal: sums are rounded at about 1e-10, and a circle would never end."""


class Fitted(NamedTuple):
    """What a search needs of a model."""

    log_likelihood: float
    parameters: int


Fits = Callable[[Sequence[Variables]], Sequence[Fitted | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Variables that stay, in the order of the study, and the way there.

    `steps` are ``{"add" | "remove": variable, "aic" or "p": value}``; `unfit` names variables whose candidates had no
    finite maximum.
    """

    variables: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]
    unfit: tuple[str, ...]


class _Move(NamedTuple):
    """One variable in or out, and the model that this makes."""

    name: str
    variables: Variables
    way: Literal["add", "remove"]


def by_aic(fit: Fits, names: Sequence[str], direction: Literal["both", "forward", "backward"] = "both") -> Chosen:
    """Take the step that lowers AIC most until none does.

    Starts with all variables, ``"forward"`` with none.

    Raises
    ------
    NotIdentifiable
        The starting model has no finite maximum.
    """
    current = Variables() if direction == "forward" else Variables(names)
    search = _Search(fit, names)
    best = search.aic(search.start(current))
    steps = []
    while True:
        moves = [move for move in _moves(names, current) if direction in ("both", DIRECTION[move.way])]
        tried = [(search.aic(model), move) for move, model in search.try_all(moves)]
        lowest = min((criterion for criterion, _ in tried), default=best)
        if lowest >= best - TIE:
            return search.chosen(current, steps)
        # among equals the first in the order of the study
        best, move = next((criterion, move) for criterion, move in tried if criterion <= lowest + TIE)
        current = move.variables
        steps.append({move.way: move.name, "aic": best})


def by_p(fit: Fits, names: Sequence[str], *, enter: float, remove: float) -> Chosen:
    """From no variable: drop the least significant one above `remove`, else add the most significant one below `enter`.

    p is that of the likelihood-ratio test of the whole variable. `remove` must not be below `enter`.
    """
    current = Variables()
    search = _Search(fit, names)
    here = search.start(current)
    steps: list[dict[str, Any]] = []
    seen = {current}
    while True:
        tried = search.try_all(_moves(names, current))
        tests = [
            (likelihood.ratio_test(*_larger_first(here, model)).p, index, move, model)
            for index, (move, model) in enumerate(tried)
        ]
        out = [test for test in tests if test[2].way == "remove" and test[0] > remove]
        into = [test for test in tests if test[2].way == "add" and test[0] < enter]
        if out:
            p, _, move, model = max(out, key=lambda test: (test[0], -test[1]))
        elif into:
            p, _, move, model = min(into, key=lambda test: test[:2])
        else:
            return search.chosen(current, steps)
        if move.variables in seen:  # a circle: the model that it comes back to was left for this one
            return search.chosen(current, steps)
        current, here = move.variables, model
        seen.add(current)
        steps.append({move.way: move.name, "p": p})


class _Search:
    """The candidates of a search, none fitted twice."""

    def __init__(self, fit: Fits, names: Sequence[str]) -> None:
        self._fit = fit
        self._names = names
        self._known: dict[Variables, Fitted | None] = {}
        self._unfit: dict[str, None] = {}

    def start(self, variables: Variables) -> Fitted:
        (model,) = self._fit([variables])
        if model is None:
            raise NotIdentifiable(
                "stepwise selection starts with all candidates, and that model has no finite maximum; use "
                'direction = "forward", or name fewer candidates'
            )
        self._known[variables] = model
        return model

    def try_all(self, moves: Sequence[_Move]) -> list[tuple[_Move, Fitted]]:
        unknown = [move.variables for move in moves if move.variables not in self._known]
        if unknown:
            self._known |= zip(unknown, self._fit(unknown), strict=True)
        found = []
        for move in moves:
            if (model := self._known[move.variables]) is None:
                self._unfit[move.name] = None
            else:
                found.append((move, model))
        return found

    def aic(self, model: Fitted) -> float:
        return likelihood.aic(*model)

    def chosen(self, current: Variables, steps: Sequence[dict[str, Any]]) -> Chosen:
        kept = tuple(name for name in self._names if name in current)
        return Chosen(variables=kept, steps=tuple(steps), unfit=tuple(self._unfit))


def _moves(names: Sequence[str], current: Variables) -> list[_Move]:
    return [
        _Move(name, current - {name}, "remove") if name in current else _Move(name, current | {name}, "add")
        for name in names
    ]


def _larger_first(one: Fitted, other: Fitted) -> tuple[float, float, int]:
    larger, smaller = (one, other) if one.parameters > other.parameters else (other, one)
    return larger.log_likelihood, smaller.log_likelihood, larger.parameters - smaller.parameters
