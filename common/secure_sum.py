"""Secure sum: the server learns the total over sites and nothing about one of them.

Two halves without files, clock or network. `SiteSums` answers at a site, `ServerSum` asks and adds. A whole-roster sum
is one message: every site adds a mask for each later site and subtracts one for each earlier, which cancel in the
total. A survivor sum is two: each site also adds a mask of its own, and hands out encrypted Shamir shares of all its
masks, so that any T survivors can take out what did not cancel after a site dropped out.

Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning, CCS 2017; one set-up for many
sums as in Ma et al., Flamingo, S&P 2023; transcript-bound masks against Pasquini et al., Eluding secure aggregation in
federated learning via model inconsistency, CCS 2022.

A survivor sum opens the sum over the survivors that the server names, the same to at least T sites. A site answers for
one set of survivors only; what a server could gain by naming different ones to different sites is bounded by T > 2n/3
alone, as the sites do not sign the set for each other.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from cohortium.common import masks, shamir, sum_setup, sum_shares
from cohortium.common.errors import SumRefused, SumVoid, WireError
from cohortium.common.sum_layout import Layout
from cohortium.common.sum_query import SumQuery, parameters_digest
from cohortium.common.sum_store import NEEDS_SETUP, Store, used


class SiteSums:
    """A site's half. Every call may be in a fresh process: only `store` lasts.

    Parameters
    ----------
    site : str
        This site's name in the roster.
    identity : Ed25519PrivateKey
        Signs hellos and is used for nothing else.
    pins : mapping of site to bytes
        Public identity key of every site, 32 bytes, as this site approved them.
    minimum_sites : int
        Fewest sites of a sum.
    store : Store
    """

    def __init__(
        self, *, site: str, identity: Ed25519PrivateKey, pins: Mapping[str, bytes], minimum_sites: int, store: Store
    ) -> None:
        self.site = site
        self._identity = identity
        self._pins = pins
        self._minimum = minimum_sites
        self._store = store

    def hello(self, study: str, run: str) -> dict[str, Any]:
        """Begin a run, or begin it again, with a fresh key; ``{site, key, sig}``."""
        key = X25519PrivateKey.generate()
        hello = sum_setup.hello(study, run, self.site, key, self._identity)
        self._store.begin(study, run, key.private_bytes_raw())
        return hello._asdict()

    def masked(self, request: Mapping[str, Any], share: Callable[[], Sequence[NDArray[Any]]]) -> dict[str, Any]:
        """Answer with this site's arrays under its masks; ``{site, tid, y}``, and ``blobs`` in survivor mode.

        Parameters
        ----------
        request : mapping
            As `ServerSum.request`.
        share : callable
            Gives this site's arrays; called once the request is found in order.

        Raises
        ------
        SumRefused
            The number was used, the roster is not as approved, the arrays do not fit; nothing was sent.
        WireError
            The request is no request.
        """
        if not isinstance(request.get("parameters"), bytes):
            raise WireError("the request of a sum has no parameters")
        query, keys, tid, least = self._open(request)
        if query.t <= self._store.last(query.run):
            raise used(query.t)
        y = query.layout.encode(share(), sites=len(keys), what=query.statistic)
        self._store.use(query.run, query.t)  # on disk before anything leaves: no mask serves twice
        seeds = {v: masks.expand(keys[v], masks.SEED, "mask", tid) for v in query.names if v != self.site}
        later = [seed for v, seed in seeds.items() if v > self.site]
        earlier = [seed for v, seed in seeds.items() if v < self.site]
        own = [secrets.token_bytes(masks.SEED)] if query.mode == "survivors" else []
        masks.apply(query.layout.lanes(y), plus=later + own, minus=earlier)
        reply = {"site": self.site, "tid": tid, "y": y}
        if query.mode == "survivors":
            shared = {**seeds, self.site: own[0]}
            reply["blobs"] = sum_shares.seal(self.site, shared, keys, tid, least)
        return reply

    def unmask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer with the shares that open a survivor sum; ``{site, b: {u: share}, s: {u: {d: share}}}``.

        For a survivor u a share of its own mask, for a missing d a share of its mask with each survivor: never both of
        one site, never a mask between two survivors, never for two sets of survivors.

        Raises
        ------
        SumRefused
            The survivors are too few or others than before, or a share is not what its site made.
        WireError
            The request is no request.
        """
        query, keys, tid, least = self._open(request)
        survivors, blobs = request.get("survivors"), request.get("blobs")
        if query.mode != "survivors" or not isinstance(survivors, list) or not isinstance(blobs, Mapping):
            raise WireError("the request to open a sum has no survivors or no shares")
        self._check_survivors(survivors, query.names, least)
        if set(blobs) != set(survivors):
            raise WireError("the request to open a sum must bring one share of every survivor")
        shares = {u: sum_shares.unseal(u, self.site, blobs[u], keys[u], tid, query.names) for u in survivors}
        self._store.lock(tid, survivors)  # on disk before anything leaves: a sum is opened for one set of survivors
        missing = [d for d in query.names if d not in survivors]
        return {
            "site": self.site,
            "b": {u: shares[u][u] for u in survivors},
            "s": {u: {d: shares[u][d] for d in missing} for u in survivors},
        }

    def close(self, run: str) -> None:
        """Delete the key of a run that has ended; its sums can never be opened again."""
        self._store.close(run)

    def _open(self, request: Mapping[str, Any]) -> tuple[SumQuery, dict[str, bytes], bytes, int]:
        """Terms of a request, keys with every site of its roster, the transcript and the threshold."""
        query = SumQuery.read(request)
        key = X25519PrivateKey.from_private_bytes(self._store.key(query.study, query.run))
        own = {entry.site: entry.key for entry in query.roster}.get(self.site)
        if own != key.public_key().public_bytes_raw():
            raise SumRefused(NEEDS_SETUP, f"the roster lacks the key that site {self.site} gave; make the set-up again")
        sum_setup.verify(query.study, query.run, query.roster, self._pins, self._minimum)
        keys = sum_setup.pair_keys(query.study, query.run, query.roster, self.site, key)
        least = sum_setup.threshold(len(keys), self._minimum)
        return query, keys, query.transcript(least), least

    def _check_survivors(self, survivors: Sequence[Any], names: Sequence[str], least: int) -> None:
        known = all(isinstance(name, str) and name in names for name in survivors)
        if not known or survivors != sorted(set(survivors)) or self.site not in survivors:
            raise SumRefused("secure sum", "the survivors must be sites of the roster, sorted, this one among them")
        if len(survivors) < least:
            raise SumRefused("secure sum", f"{len(survivors)} of {len(names)} sites survive, at least {least} must")


class ServerSum:
    """The server's half of one sum; a sum that came to nothing is asked again with a higher t.

    Parameters
    ----------
    study, run, mode, t, roster, slot, statistic, layout
        As in `SumQuery`; the roster comes from `sum_setup.roster_of`.
    parameters : bytes
        Of the statistic; every site gets these bytes.
    minimum_sites : int

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
        self._blobs: dict[str, Mapping[str, bytes]] = {}  # by who answered; empty ones in whole mode
        self._survivors: tuple[str, ...] | None = None
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
        if self._survivors is not None or site in self._blobs or site not in self.query.names:
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
        if self.query.mode == "survivors" and not (isinstance(blobs, Mapping) and set(blobs) == set(self.query.names)):
            return "answered without shares for every site"
        return ""

    def unmask_requests(self) -> dict[str, dict[str, Any]]:
        """Name those who answered as the survivors, for good, and ask each for its shares; asks the same again.

        Raises
        ------
        SumVoid
            Too few answered.
        """
        if self._survivors is None:
            if len(self._blobs) < self._threshold:
                raise SumVoid(f"{len(self._blobs)} sites answered, {self._threshold} are needed; {self._absent()}")
            self._survivors = tuple(sorted(self._blobs))
        terms = {**self.query.plain(), "parameters_digest": self.query.parameters_digest}
        return {
            v: {**terms, "survivors": list(self._survivors), "blobs": {u: self._blobs[u][v] for u in self._survivors}}
            for v in self._survivors
        }

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
        names, missing = self.query.names, self.missing
        pairs = [(u, d) for u in self.contributors for d in missing]
        try:
            columns = {
                names.index(v): [*(reply["b"][u] for u in self.contributors), *(reply["s"][u][d] for u, d in pairs)]
                for v, reply in self._shares.items()
            }
            seeds = shamir.join(columns, self._threshold)
        except (KeyError, TypeError) as broken:
            raise SumVoid("a site's shares are not complete; the sum is discarded") from broken
        own, between = seeds[: len(self.contributors)], seeds[len(self.contributors) :]
        plus = [seed for (u, d), seed in zip(pairs, between, strict=True) if u > d]
        minus = [seed for (u, d), seed in zip(pairs, between, strict=True) if u < d]
        masks.apply(self.query.layout.lanes(buffer), plus=plus, minus=own + minus)

    def _absent(self) -> str:
        reasons = [f"{v}: {self.rejected.get(v, 'no answer')}" for v in self.missing]
        return f"sites are missing from the sum ({'; '.join(reasons)}); nothing was learned, ask again"
