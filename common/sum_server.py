"""Sum server: the server's half of a secure sum; it asks, adds, and takes out what did not cancel.

States of one sum: asking -> total or void, in a whole-roster sum; asking -> signing, if a site is missing -> unmasking
-> total or void, in a survivor sum. See secure_sum for the protocol and its sources.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cohortium.common import masks, shamir, sum_setup
from cohortium.common.errors import SumVoid
from cohortium.common.sum_graph import Graph
from cohortium.common.sum_layout import Layout
from cohortium.common.sum_query import SumQuery, parameters_digest


class ServerSum:
    """The server's half of one sum; a sum that came to nothing is asked again with a higher t.

    Parameters
    ----------
    study, run, mode, t, roster, slot, statistic, layout
        As in `SumQuery`; the roster comes from `sum_setup.roster_of`.
    parameters : bytes
        Of the statistic; every site gets these bytes.
    minimum_sites : int
    among : collection of str, optional
        The survivors that the same round was named before, when it is asked again: no site beyond them is read.

    Attributes
    ----------
    request : dict
        The message to every site of the roster.
    rejected : dict of site to str
        Sites whose answer was unusable, and why; they count as missing.
    """

    def __init__(
        self,
        *,
        study: str,
        run: str,
        mode: Literal["whole", "survivors"],
        t: int,
        roster: tuple[sum_setup.Hello, ...],
        slot: tuple[str | int, ...],
        statistic: str,
        parameters: bytes,
        layout: Layout,
        minimum_sites: int,
        among: Collection[str] | None = None,
    ) -> None:
        self.query = SumQuery(
            study=study,
            run=run,
            mode=mode,
            t=t,
            roster=roster,
            slot=slot,
            statistic=statistic,
            parameters_digest=parameters_digest(parameters),
            layout=layout,
        )
        self.request = {**self.query.plain(), "parameters": parameters}
        self.rejected: dict[str, str] = {}
        self._threshold = sum_setup.threshold(len(self.query.names), minimum_sites)
        self._tid = self.query.transcript(self._threshold)
        self._sum = np.zeros(layout.nbytes, np.uint8)
        self._graph = Graph(self.query.names, sum_setup.roster_digest(study, run, roster), self._threshold)
        self._among = frozenset(self.query.names if among is None else among)
        self._blobs: dict[str, Mapping[str, bytes]] = {}  # by who answered; empty ones in whole mode
        self._survivors: tuple[str, ...] | None = None
        self._signatures: dict[str, bytes] = {}
        self._shares: dict[str, Mapping[str, Any]] = {}

    @property
    def contributors(self) -> tuple[str, ...]:
        """Sites whose numbers are in the sum, so far."""
        return tuple(sorted(self._blobs)) if self._survivors is None else self._survivors

    @property
    def missing(self) -> tuple[str, ...]:
        """Sites whose numbers are not."""
        return tuple(name for name in self.query.names if name not in self.contributors)

    def receive(self, site: str, reply: Mapping[str, Any]) -> None:
        """Add a site's masked arrays. Its first answer counts; after the survivors were named none is read."""
        if self._survivors is not None or site in self._blobs or site not in self._among:
            return
        reason = self._fault(site, reply)
        if reason:
            self.rejected[site] = reason
            return
        for total, lane in zip(self.query.layout.lanes(self._sum), self.query.layout.lanes(reply["y"]), strict=True):
            np.add(total, lane, out=total)
        self._blobs[site] = reply.get("blobs", {})

    def _fault(self, site: str, reply: Mapping[str, Any]) -> str:
        y, blobs = reply.get("y"), reply.get("blobs", {})
        if reply.get("site") != site:
            return "answered for another site"
        if reply.get("tid") != self._tid:
            return "answered another request: its statistic, parameters, roster or minimum of sites differ"
        if not isinstance(y, np.ndarray) or y.dtype != np.uint8 or y.shape != self._sum.shape:
            return "answered with arrays of another size"
        holders = set(self._graph.holders(site)) if self.query.mode == "survivors" else set()
        if not (isinstance(blobs, Mapping) and (not holders or set(blobs) == holders)):
            return "answered without shares for every site"
        return ""

    def sign_requests(self) -> dict[str, dict[str, Any]]:
        """Name those who answered as the survivors, for good, and ask each to sign that; nobody if no site is missing.

        Raises
        ------
        SumVoid
            Too few answered.
        """
        self._name_survivors()
        if not self.missing:
            return {}
        return {v: self._terms() for v in self.contributors}

    def receive_signature(self, site: str, reply: Mapping[str, Any]) -> None:
        """Take a survivor's signature; whether it is one, each site judges."""
        if site in self.contributors and reply.get("site") == site and isinstance(reply.get("sig"), bytes):
            self._signatures.setdefault(site, reply["sig"])

    def unmask_requests(self) -> dict[str, dict[str, Any]]:
        """Ask each survivor for its shares; asks the same again.

        Raises
        ------
        SumVoid
            Too few answered or, where a site is missing, signed.
        """
        self._name_survivors()
        terms = self._terms()
        if self.missing:
            if len(self._signatures) < self._threshold:
                signed = f"{len(self._signatures)} survivors signed, {self._threshold} are needed"
                raise SumVoid(f"{signed}; {self._absent()}")
            terms["signatures"] = dict(self._signatures)
        there = set(self.contributors)
        return {
            v: {**terms, "blobs": {u: self._blobs[u][v] for u in self._graph.holders(v) if u in there}}
            for v in self.contributors
        }

    def _name_survivors(self) -> None:
        if self._survivors is None:
            if len(self._blobs) < self._threshold:
                raise SumVoid(f"{len(self._blobs)} sites answered, {self._threshold} are needed; {self._absent()}")
            self._survivors = tuple(sorted(self._blobs))

    def _terms(self) -> dict[str, Any]:
        digest = self.query.parameters_digest
        return {**self.query.plain(), "parameters_digest": digest, "survivors": list(self.contributors)}

    def receive_unmask(self, site: str, reply: Mapping[str, Any]) -> None:
        """Take a survivor's shares."""
        if site in self.contributors and reply.get("site") == site:
            self._shares.setdefault(site, reply)

    def total(self) -> list[NDArray[Any]]:
        """Totals over the contributors: flat arrays, in the order and of the kinds of the layout.

        Raises
        ------
        SumVoid
            Sites or shares are missing, or the total is not what it must be. Nothing was learned.
        """
        result = self._sum
        if self.query.mode == "survivors":
            if self._survivors is None:
                raise SumVoid("the survivors of the sum have not been asked for their shares")
            result = self._sum.copy()  # more shares may still come if these do not suffice
            self._take_out(result)
        elif self.missing:
            raise SumVoid(self._absent())
        return self.query.layout.decode(result, sites=len(self.contributors))

    def _take_out(self, buffer: NDArray[np.uint8]) -> None:
        """Remove the survivors' own masks, and those between them and the missing."""
        gone = set(self.missing)
        plus, minus = [], []
        for u in self.contributors:
            holders = self._graph.holders(u)
            missing = [d for d in holders if d in gone]
            try:
                columns = {
                    place: [self._shares[v]["b"][u], *(self._shares[v]["s"][u][d] for d in missing)]
                    for place, v in enumerate(holders)
                    if v in self._shares
                }
                own, *between = shamir.join(columns, self._graph.shares)
            except (KeyError, TypeError) as broken:
                raise SumVoid("a site's shares are not complete; the sum is discarded") from broken
            minus.append(own)
            for d, seed in zip(missing, between, strict=True):
                (plus if u > d else minus).append(seed)
        masks.apply(self.query.layout.lanes(buffer), plus=plus, minus=minus)

    def _absent(self) -> str:
        reasons = [f"{v}: {self.rejected.get(v, 'no answer')}" for v in self.missing]
        return f"sites are missing from the sum ({'; '.join(reasons)}); nothing was learned, ask again"
