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
from cohortium.common.sum_setup import Hello, read_roster

_TEXT = 200  # characters of a study, run or site name


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
        raw = request.get("parameters")
        query = cls(
            **{name: request.get(name) for name in ("study", "run", "mode", "t", "statistic")},  # type: ignore[arg-type]
            roster=read_roster(request.get("roster")),
            slot=tuple(request.get("slot") or ()),
            parameters_digest=parameters_digest(raw) if isinstance(raw, bytes) else request.get("parameters_digest"),  # type: ignore[arg-type]
            layout=Layout.read(request.get("layout")),
        )
        query._check()
        return query

    def _check(self) -> None:
        texts = (self.study, self.run, *self.names)
        well_formed = {
            "study, run and site names": all(isinstance(text, str) and 0 < len(text) <= _TEXT for text in texts),
            "mode": self.mode in ("whole", "survivors"),
            "t": type(self.t) is int and 0 < self.t < 1 << 62,
            "slot": all(
                type(part) in (str, int) and (isinstance(part, str) or abs(part) < 1 << 62) for part in self.slot
            ),
            "statistic": isinstance(self.statistic, str),
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
