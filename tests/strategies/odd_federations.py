"""Odd federations: patients dealt to sites as no study should have them, each with what it lacks."""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, log2
from typing import Any

import numpy as np
from scipy import special

from cohortium.common.federation import DEFAULT_BOUND, PooledSites, Statistic


class WideningSites(PooledSites):
    """Sites whose floats are rounded as in a masked sum; a bound that is too small is widened and asked again."""

    def sum(self, what: Statistic, *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Any:
        shares = [np.asarray(field) for rows in self.sites for field in what.local(rows, **parameters)]
        largest = max(
            float(np.abs(field).max(initial=0.0)) for field in [np.zeros(1), *shares] if field.dtype.kind == "f"
        )
        while largest > bound:
            bound *= 2.0**8
        self.fraction_bits = min(40, floor(61 - log2(len(self.sites)) - log2(bound)))
        return super().sum(what, bound=bound, **parameters)


@dataclass(frozen=True, kw_only=True)
class Odd:
    """Rows of all patients in the order of the sites, and the sites' sizes.

    `raw` (n, p) may have gaps; `x` is it filled with 0 and standardised. `group` is an outcome, `time` and `event` a
    second one, `score` a reported risk.
    """

    raw: np.ndarray
    group: np.ndarray
    time: np.ndarray
    event: np.ndarray
    score: np.ndarray
    sizes: tuple[int, ...]

    @property
    def n(self) -> int:
        return len(self.group)

    @property
    def x(self) -> np.ndarray:
        filled = np.nan_to_num(self.raw)
        spread = filled.std(0, ddof=1)
        return (filled - filled.mean(0)) / np.where(spread > 0, spread, 1.0)

    @property
    def site(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def sites(self, kind: Callable, **fields: np.ndarray) -> PooledSites:
        """Rows of each site, added as masked sums add."""
        ends = np.cumsum(self.sizes)
        rows = [
            kind(**{name: values[end - size : end] for name, values in fields.items()})
            for size, end in zip(self.sizes, ends, strict=True)
        ]
        return WideningSites(rows) if self.n < 10_000 else PooledSites(rows, fraction_bits=30)  # looked at once


def dealt(sizes: tuple[int, ...], p: int = 3, seed: int = 0, **changed: np.ndarray) -> Odd:
    """Patients with a known model, dealt to sites of these sizes; some fields may be given."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    raw = rng.standard_normal((n, p)) * 3 + 5
    signal = (raw[:, 0] - 5) / 3 - 0.5 * (raw[:, 1] - 5) / 3
    end = rng.integers(5, 40, n)
    time = np.ceil(rng.exponential(20 * np.exp(-0.5 * signal)))
    fields = {
        "raw": raw,
        "group": (rng.random(n) < special.expit(signal - 0.3)).astype(np.int64),
        "time": np.minimum(time, end).astype(float),
        "event": (time <= end).astype(float),
        "score": np.clip(np.round(special.expit(0.8 * signal + rng.standard_normal(n)), 2), 0.01, 0.99),
    }
    return Odd(**(fields | changed), sizes=sizes)


def _with(sizes: tuple[int, ...], change: Callable[[dict], None], **how: int) -> Odd:
    plain = dealt(sizes, **how)
    fields = {name: getattr(plain, name).copy() for name in ("raw", "group", "time", "event", "score")}
    change(fields)
    return Odd(**fields, sizes=sizes)


def _one_class(fields: dict) -> None:
    fields["group"][:30] = 0
    fields["event"][:30] = 0


def _nobody(fields: dict) -> None:
    fields["group"][:] = 0
    fields["event"][:] = 0


def _gaps(fields: dict) -> None:
    fields["raw"][:60, 1] = np.nan


def _all_gaps(fields: dict) -> None:
    fields["raw"][:, 1] = np.nan


def _constant(fields: dict) -> None:
    fields["raw"][:, 1] = 7.3


def _constant_at_a_site(fields: dict) -> None:
    fields["raw"][:60, 1] = 7.3


def _separated(fields: dict) -> None:
    """A column that tells the class, and puts everybody in the order of their times."""
    fields["raw"][:, 1] = fields["group"] * 2.0 - 1
    fields["score"][:] = np.where(fields["group"] == 1, 0.8, 0.3)
    fields["raw"][:, 2] = -fields["time"]


def _ties(fields: dict) -> None:
    fields["raw"][:] = np.round(fields["raw"] / 4) * 4
    fields["time"][:] = np.ceil(fields["time"] / 15)
    fields["score"][:] = np.round(fields["score"], 0) * 0.4 + 0.3


FEDERATIONS = {
    "one patient at a site": lambda: dealt((1, 90, 70, 0)),
    "one class at a site": lambda: _with((30, 80, 60), _one_class),
    "one class, no events": lambda: _with((50, 60, 40), _nobody),
    "all values missing at a site": lambda: _with((60, 50, 70), _gaps),
    "all values missing": lambda: _with((60, 50, 70), _all_gaps),
    "a constant column": lambda: _with((60, 50, 70), _constant),
    "a constant column at a site": lambda: _with((60, 50, 70), _constant_at_a_site),
    "separation": lambda: _with((60, 50, 70), _separated),
    "ties everywhere": lambda: _with((60, 50, 70), _ties),
    "fifty sites": lambda: dealt(tuple(i % 9 for i in range(50))),
    "more columns than patients": lambda: dealt((20, 15, 10), p=60),
    "a million at one site, ten at another": lambda: dealt((1_000_000, 10)),
}
