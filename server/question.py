"""Question: what a server half wants to know, one statistic over one view, and how it travels."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cohortium.common.codec import pack
from cohortium.common.federation import DEFAULT_BOUND, Statistic
from cohortium.common.fixed_point import fraction_bits, weight_bits
from cohortium.common.sum_layout import Entry

Total = tuple[Any, ...]
"""A statistic's NamedTuple of totals."""


@dataclass
class Question:
    """One statistic over one view, and the public bound that sets its fixed-point step."""

    statistic: Statistic
    view: Mapping[str, Any]
    parameters: Mapping[str, Any]
    bound: float
    shape: Total  # the statistic of no patients: zeros of the right shapes

    @property
    def part(self) -> str:
        """The part of the study that is summed over."""
        return self.view["rows"]["part"]

    @cached_property
    def item(self) -> bytes:
        """As it travels; packed once, it may hold the weights of a network."""
        return pack({"statistic": self.statistic.name, "view": self.view, "parameters": self.parameters})

    @cached_property
    def digest(self) -> bytes:
        """Tells two different questions apart."""
        return hashlib.sha256(self.item).digest()

    def entries(self, sites: int) -> list[Entry]:
        """Layout of its arrays; the bound is that of the weights where the statistic has weights."""
        has_weights = any(np.asarray(field).dtype == np.float32 for field in self.shape)
        bound = DEFAULT_BOUND if has_weights else self.bound
        entries = []
        for field in map(np.asarray, self.shape):
            if field.dtype == np.int64:
                entries.append(Entry("i8", field.size, 0))
            elif field.dtype == np.float32:
                entries.append(Entry("w4", field.size, weight_bits(self.bound)))
            else:
                entries.append(Entry("f8", field.size, fraction_bits(bound, sites)))
        return entries
