"""Multiplicity: p values adjusted for how many were looked at.

Holm, Scand J Stat 1979 (the chance of any false finding) and Benjamini & Hochberg, JRSS B 1995 (the share of false ones
among the findings).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cohortium.strategies.rows import Array


def holm(p: Array) -> Array:
    """Holm's adjusted p values, (m,)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]).clip(max=1)
    return stepped[np.argsort(order)]


def benjamini_hochberg(p: Array) -> Array:
    """Benjamini & Hochberg's adjusted p values, (m,)."""
    order = np.argsort(p)[::-1]
    stepped = np.minimum.accumulate(len(p) / np.arange(len(p), 0, -1) * p[order]).clip(max=1)
    return stepped[np.argsort(order)]


def adjusted(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries with ``p_holm`` and ``p_bh`` beside every p that is a number; one family of tests."""
    known = [i for i, entry in enumerate(entries) if isinstance(entry.get("p"), float)]
    if not known:
        return list(entries)
    p = np.array([entries[i]["p"] for i in known])
    found = list(entries)
    for i, of_any, of_share in zip(known, holm(p).tolist(), benjamini_hochberg(p).tolist(), strict=True):
        found[i] = {**entries[i], "p_holm": of_any, "p_bh": of_share}
    return found
