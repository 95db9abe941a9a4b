"""Federations of the equality table: rows of several sites, added as floats or under real masks, costs counted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cohortium.common.codec import pack
from cohortium.common.errors import Overflow
from cohortium.common.federation import DEFAULT_BOUND, Statistic
from cohortium.common.rounds import Rounds
from cohortium.common.secure_sum import SiteSums
from cohortium.common.sum_layout import Layout
from cohortium.common.sum_server import ServerSum
from cohortium.common.sum_setup import roster_of
from cohortium.common.sum_store import MemoryStore
from cohortium.server.question import Question

WIDER = 2.0**8


def at_sites(kind: Any, frame: Any, **fields: np.ndarray) -> list[Any]:
    """Rows of each site: `fields` are arrays with an entry a patient of `frame`, whose column `site` splits them."""
    places = [np.flatnonzero(frame["site"] == site) for site in sorted(frame["site"].unique())]
    return [kind(**{name: values[at] for name, values in fields.items()}) for at in places]


class CountedSites:
    """Rows of some sites as a `Federation`; questions of one moment share a round, as they do in a run.

    Parameters
    ----------
    sites : sequence
        One object of rows a site; three at least where sums are masked.
    masked : bool
        Add by the product's secure sum, fixed point and masks included; otherwise add float64 arrays.
    """

    def __init__(self, sites: Sequence[Any], *, masked: bool) -> None:
        self.sites = list(sites)
        self.rounds = 0
        self.bytes_up = 0  # of one site
        self._masked = _Masks(len(self.sites)) if masked else None
        self._rounds = Rounds[Question, Any](self._send)

    def sum(self, what: Statistic, *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Any:
        return self.ask(what, {}, bound, parameters)

    def ask(self, what: Statistic, view: dict[str, Any], bound: float, parameters: dict[str, Any]) -> Any:
        """A sum over the rows that `view` leaves: ``columns`` of x or score, patients of no fold in ``without``."""
        nobody = type(self.sites[0])(*(np.asarray(field)[:0] for field in self.sites[0]))
        zero = what.local(_seen(nobody, view), **parameters)
        return self._rounds.ask(Question(what, view, parameters, bound, zero))

    def together(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        return self._rounds.together(tasks)

    def _send(self, questions: list[Question]) -> list[Any]:
        self.rounds += 1
        shares = [[q.statistic.local(_seen(rows, q.view), **q.parameters) for q in questions] for rows in self.sites]
        flat = [[np.asarray(field) for share in of_site for field in share] for of_site in shares]
        if self._masked is None:
            self.bytes_up += sum(8 * array.size for array in flat[0])
            totals = [np.sum(fields, axis=0) for fields in zip(*flat, strict=True)]
        else:
            totals, sent = self._masked.add(questions, flat)
            self.bytes_up += sent
        found = iter(totals)
        return [type(q.shape)(*(next(found).reshape(np.shape(zero)) for zero in q.shape)) for q in questions]


class Part:
    """A federation that sees some columns, or the patients outside some folds, of another, whose rounds it shares."""

    def __init__(self, sites: CountedSites, columns: Sequence[int] | None = None, without: Sequence[int] = ()) -> None:
        self._sites, self._view = sites, {"without": list(without)}
        self._view |= {} if columns is None else {"columns": list(columns)}

    def sum(self, what: Statistic, *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Any:
        return self._sites.ask(what, self._view, bound, parameters)

    def together(self, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        return self._sites.together(tasks)


def _seen(rows: Any, view: Mapping[str, Any]) -> Any:
    if view.get("without"):
        kept = ~np.isin(rows.fold, view["without"])
        rows = type(rows)(*(field[kept] for field in rows))
    if "columns" in view:
        name = "x" if "x" in rows._fields else "score"
        rows = rows._replace(**{name: getattr(rows, name)[:, view["columns"]]})
    return rows


class _Masks:
    """The secure sum of the product over sites in this process."""

    def __init__(self, sites: int) -> None:
        names = [f"site{i:02d}" for i in range(sites)]
        identities = {name: Ed25519PrivateKey.generate() for name in names}
        pins = {name: key.public_key().public_bytes_raw() for name, key in identities.items()}
        self._sites = {
            name: SiteSums(site=name, identity=identities[name], pins=pins, minimum_sites=3, store=MemoryStore())
            for name in names
        }
        self._roster = roster_of(site.hello("equality", "run", patients=0) for site in self._sites.values())
        self._t = 0

    def add(self, questions: list[Question], flat: list[list[np.ndarray]]) -> tuple[list[np.ndarray], int]:
        """Totals of all arrays, and the bytes that one site sent; a bound that is too small is widened, as in a run."""
        self._t += 1
        layout = Layout(tuple(entry for q in questions for entry in q.entries(len(self._sites))))
        one = ServerSum(
            study="equality", run="run", mode="whole", t=self._t, roster=self._roster, slot=("train",),
            statistic=" ".join(sorted({q.statistic.name for q in questions})), parameters=b"", layout=layout,
            minimum_sites=3,
        )  # fmt: skip
        reply: dict[str, Any] = {}
        try:
            for (name, site), arrays in zip(self._sites.items(), flat, strict=True):
                reply = site.masked(one.request, lambda arrays=arrays: [array.reshape(-1) for array in arrays])
                one.receive(name, reply)
        except Overflow as overflow:
            owners = [q for q in questions for _ in q.shape]
            owners[overflow.array].bound *= WIDER
            return self.add(questions, flat)
        return list(one.total()), len(pack(reply))
