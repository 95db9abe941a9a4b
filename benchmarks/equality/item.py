"""Item: one line of the equality table, computed by our sums and by pooled software, and how far they lie apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from federations import CountedSites

Figures = Mapping[str, Any]
Federate = Callable[[Sequence[Any]], CountedSites]


@dataclass(frozen=True, kw_only=True)
class Item:
    """What is compared.

    Parameters
    ----------
    name, data, reference : str
        As printed.
    ours : callable
        ``ours(federate)`` gives named numbers or arrays; ``federate(sites)`` makes a federation whose costs count.
    theirs : callable
        ``theirs(ours)`` gives the same names from pooled rows with other software. It is handed our figures for public
        choices alone (the penalties of a path, say); a figure that it does not return is not compared.
    target : float
        Largest difference allowed: |ours - theirs| / max(1, |theirs|).
    absent : callable
        Why the item cannot run here (data or software that is not there), or nothing.
    """

    name: str
    data: str
    ours: Callable[[Federate], Figures]
    theirs: Callable[[Figures], Figures]
    reference: str
    target: float = 1e-9
    absent: Callable[[], str] = str


def compare(item: Item, sums: str) -> dict[str, Any]:
    """One row of the table; `sums` is ``"float"`` or ``"masked"``."""
    used: list[CountedSites] = []

    def federate(sites: Sequence[Any]) -> CountedSites:
        used.append(CountedSites(sites, masked=sums == "masked"))
        return used[-1]

    found = item.ours(federate)
    expected = item.theirs(found)
    differences = {name: _apart(found[name], expected[name]) for name in expected}
    worst = max(differences, key=lambda name: differences[name])
    return {
        "item": item.name,
        "data": item.data,
        "sums": sums,
        "rounds": sum(sites.rounds for sites in used),
        "bytes": sum(sites.bytes_up for sites in used),
        "difference": differences[worst],
        "largest_in": worst,
        "target": item.target,
        "reached": bool(differences[worst] <= item.target),
        "reference": item.reference,
    }


def _apart(ours: Any, theirs: Any) -> float:
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} numbers of ours against {b.shape} of the reference")
    both_absent = np.isnan(a) & np.isnan(b)
    apart = np.where(both_absent, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(b)))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
