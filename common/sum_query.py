"""Query: the public terms of one sum, and the transcript that all its masks are bound to.

Each site computes the transcript from the bytes that it received. A site that was given another statistic, other
parameters, another roster or another count of the sum therefore has other masks, and nobody can read the total.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cohortium.common import masks
from cohortium.common.errors import WireError
from cohortium.common.sum_layout import Layout
from cohortium.common.sum_setup import Hello, is_name, read_roster


@dataclass(frozen=True, kw_only=True, slots=True)
class SumQuery:
    """The public terms of one sum.

    Parameters
    ----------
    study, run : str
    mode : {"whole", "survivors"}
        ``whole``: all sites of the roster or nothing, one message. ``survivors``: goes on without sites that drop out,
        two messages.
    t : int
        Number of the sum in its run, rising; a number is never used twice.
    roster : tuple of Hello
    slot : tuple of str and int
        What may be summed over one set of sites only, e.g. ``("train",)`` or ``("train", "heads", 3)``.
    statistic : str
        Public name.
    parameters_digest : bytes
        `masks.digest` of the raw bytes of the statistic's parameters.
    layout : Layout
    """

    study: str
    run: str
    mode: Literal["whole", "survivors"]
    t: int
    roster: tuple[Hello, ...]
    slot: tuple[str | int, ...]
    statistic: str
    parameters_digest: bytes
    layout: Layout

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> "SumQuery":
        """Terms out of a request, which holds the raw parameters or, once a site has seen them, their digest.

        Raises
        ------
        WireError
            A field is missing or malformed.
        """
        raw, slot = request.get("parameters"), request.get("slot")
        return cls(
            **{name: request.get(name) for name in ("study", "run", "mode", "t", "statistic")},  # type: ignore[arg-type]
            roster=read_roster(request.get("roster")),
            slot=tuple(slot) if isinstance(slot, list) else (None,),  # type: ignore[arg-type]
            parameters_digest=parameters_digest(raw) if isinstance(raw, bytes) else request.get("parameters_digest"),  # type: ignore[arg-type]
            layout=Layout.read(request.get("layout")),
        )

    def __post_init__(self) -> None:
        well_formed = {
            "study": is_name(self.study),
            "run": is_name(self.run),
            "mode": isinstance(self.mode, str) and self.mode in ("whole", "survivors"),
            "t": type(self.t) is int and 0 < self.t < 1 << 62,
            "slot": all(is_name(part) or (type(part) is int and abs(part) < 1 << 62) for part in self.slot),
            "statistic": isinstance(self.statistic, str) and self.statistic.isprintable(),
            "parameters": isinstance(self.parameters_digest, bytes) and len(self.parameters_digest) == 32,
        }
        for field, right in well_formed.items():
            if not right:
                raise WireError(f"the request of a sum has no valid {field}")

    def plain(self) -> dict[str, Any]:
        """Fields of a request, without the parameters."""
        return {
            "study": self.study,
            "run": self.run,
            "mode": self.mode,
            "t": self.t,
            "roster": [entry._asdict() for entry in self.roster],
            "slot": list(self.slot),
            "statistic": self.statistic,
            "layout": self.layout.plain(),
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Sites of the roster, sorted."""
        return tuple(entry.site for entry in self.roster)

    def transcript(self, threshold: int) -> bytes:
        """32 bytes that stand for all terms, and for the number of sites that a total must cover."""
        terms = (self.study, self.run, self.roster, self.mode, self.t, self.slot, self.statistic)
        return masks.digest("sum", *terms, self.parameters_digest, self.layout.entries, threshold)


def parameters_digest(parameters: bytes) -> bytes:
    """Digest of raw parameters, which may be as large as a network."""
    return masks.digest("parameters", parameters)
