"""Federation: what an algorithm sees of the sites, which is sums and nothing else.

An algorithm is two halves. Its local half is a `Statistic`: a pure function of a site's rows and of public
parameters, whose results may be added. Its server half is an ordinary loop that calls `Federation.sum`.
The engines (in-process, Flower on Ray, Flower deployed) differ only in the `Federation` behind that call.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np

Sums = TypeVar("Sums", bound=NamedTuple)
Result = TypeVar("Result")

DEFAULT_BOUND = 2.0**20
"""Largest absolute value of a site's element that a sum takes without saying otherwise; leaves f near 40 bits."""


@dataclass(frozen=True, slots=True)
class Statistic(Generic[Sums]):
    """The local half of an algorithm.

    Parameters
    ----------
    name : str
        Public name, as in a study's allow list: ``"logistic.terms"`` is `terms` in strategies/logistic.py.
    local : callable
        ``local(rows, **parameters)`` gives a NamedTuple of arrays. Shapes depend on the parameters and on the
        number of columns, never on the rows (no rows at all gives zeros of the same shapes); integer fields travel
        as exact counts, float64 fields as fixed point.
    adds_over : {"rows", "sites"}
        ``"rows"``: the statistic of a union of rows is the sum of their statistics. ``"sites"``: only whole
        sites add (a site-centred term, say).
    mode : {"whole", "survivors"}
        ``"whole"``: every site of the roster answers, one message. ``"survivors"``: a round of network training that
        goes on when a site drops out, two messages; float32 fields then travel 4 bytes an element.
    sensitivity : callable, optional
        ``sensitivity(shape, **parameters)``: how far (Euclidean, over all fields) replacing one patient by any other
        can move a result of this shape, whose fields are all integers. Unset: not bounded, so that no noise hides a
        patient and the statistic cannot leave under differential privacy.
    """

    name: str
    local: Callable[..., Sums]
    adds_over: Literal["rows", "sites"]
    mode: Literal["whole", "survivors"] = "whole"
    sensitivity: Callable[..., float] | None = None


def statistic(
    name: str,
    *,
    adds_over: Literal["rows", "sites"],
    mode: Literal["whole", "survivors"] = "whole",
    sensitivity: Callable[..., float] | None = None,
) -> Callable[[Callable[..., Sums]], Statistic[Sums]]:
    """Turn a local half into a `Statistic`."""
    return lambda local: Statistic(name=name, local=local, adds_over=adds_over, mode=mode, sensitivity=sensitivity)


class Federation(Protocol):
    """The sites of one part (train, internal, external) of a study, seen through one kind of rows."""

    def sum(self, what: Statistic[Sums], *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Sums:
        """Total of a statistic over the sites; one round.

        Parameters
        ----------
        what : Statistic
        bound : float
            Public bound on the absolute value of any float element of one site's answer; sets the fixed-point step.
            Too small a bound is no catastrophe: the sites refuse, and the sum is asked again with a wider one.
        **parameters
            Public; None, bool, int, float, str, lists and dicts of them, numpy arrays.

        Raises
        ------
        SumRefused
            A site's guard withheld its share; the message says which rule, and what would satisfy it.
        SumVoid
            A site did not answer in time. Nothing was learned; the same sum can be asked again.
        """
        ...

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run server halves side by side; the sums they wait for at the same time travel in one message.

        The first exception of a task (in the order of `tasks`) is raised after all have ended.
        """
        ...


class PooledSites:
    """A federation of arrays in this process, unmasked: for finished figures at one site, for tests, for method work.

    Parameters
    ----------
    sites : iterable
        One object of rows a site, as the statistics in use expect them.
    fraction_bits : int, optional
        Round every float element to this many fraction bits before adding, as masked sums do.
    """

    def __init__(self, sites: Iterable[Any], *, fraction_bits: int | None = None) -> None:
        self.sites = list(sites)
        self.fraction_bits = fraction_bits
        self.rounds = 0
        self.numbers = 0

    def sum(self, what: Statistic[Sums], *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Sums:  # noqa: ARG002
        self.rounds += 1
        shares = [what.local(rows, **parameters) for rows in self.sites]
        fields = [[self._rounded(np.asarray(field)) for field in share] for share in shares]
        self.numbers += sum(field.size for field in fields[0])
        totals: Any = type(shares[0])
        return totals(*(np.sum(field, axis=0) for field in zip(*fields, strict=True)))

    def _rounded(self, field: np.ndarray) -> np.ndarray:
        if self.fraction_bits is None or field.dtype.kind != "f":
            return field
        return np.rint(np.ldexp(field, self.fraction_bits)) * 2.0**-self.fraction_bits

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        return [task() for task in tasks]
