"""Secure sum: the server learns the total over sites and nothing about one of them. A site's half.

Two halves without files, clock or network. `SiteSums` answers at a site, `ServerSum` (sum_server) asks and adds. A
whole-roster sum is one message: every site adds a mask for each later site and subtracts one for each earlier, which
cancel in the total. A survivor sum is two: each site also adds a mask of its own, and hands out encrypted Shamir shares
of all its masks, so that any T survivors can take out what did not cancel after a site dropped out. If one did, the
survivors sign who they are for each other in a message between the two.

Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning, CCS 2017; one set-up for many
sums as in Ma et al., Flamingo, S&P 2023; transcript-bound masks against Pasquini et al., Eluding secure aggregation in
federated learning via model inconsistency, CCS 2022.

A site's states, by sum: new -> masked -> signed or opened for one set of survivors, for good; anything else is a typed
refusal.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from cohortium.common import masks, sum_setup, sum_shares, sum_survivors
from cohortium.common.errors import SumRefused, WireError
from cohortium.common.sum_cohort import Cohort
from cohortium.common.sum_graph import Graph
from cohortium.common.sum_query import SumQuery
from cohortium.common.sum_store import NEEDS_SETUP, Store, used


class Terms(NamedTuple):
    """What a request stands for at this site, once its roster was verified."""

    query: SumQuery
    transcript: bytes
    least: int
    """Sites that a total must cover."""
    graph: Graph
    keys: dict[str, bytes]
    """Of this site with each neighbour and with itself."""


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

    def hello(self, study: str, run: str, *, patients: int) -> dict[str, Any]:
        """Begin a run, or begin it again, with a fresh key; ``{site, key, patients, sig}``.

        Parameters
        ----------
        patients : int
            That this site uses in the study, as declared.
        """
        key = X25519PrivateKey.generate()
        hello = sum_setup.hello(study, run, self.site, key, self._identity, patients=patients)
        self._store.begin(study, run, key.private_bytes_raw())
        return hello._asdict()

    def masked(
        self,
        request: Mapping[str, Any],
        share: Callable[[], Sequence[NDArray[Any]]],
        cohorts: Sequence[Cohort] = (),
    ) -> dict[str, Any]:
        """Answer with this site's arrays under its masks; ``{site, tid, y}``, and ``blobs`` in survivor mode.

        Parameters
        ----------
        request : mapping
            As `ServerSum.request`.
        share : callable
            Gives this site's arrays; called once the request is found in order.
        cohorts : sequence of Cohort
            Whose patients the arrays are of; frozen with this roster before anything leaves.

        Raises
        ------
        SumRefused
            The number was used, the roster is not as approved, a cohort is not admitted beside those that were summed,
            the arrays do not fit; nothing was sent.
        WireError
            The request is no request.
        """
        if not isinstance(request.get("parameters"), bytes):
            raise WireError("the request of a sum has no parameters")
        query, tid, _, graph, keys = self._open(request)
        if query.t <= self._store.last(query.run):
            raise used(query.t)
        y = query.layout.encode(share(), sites=len(query.names), what=query.statistic)
        survivors = query.mode == "survivors"
        # on disk before anything leaves: no mask serves twice, no patients are summed over other sites
        self._store.use(
            query.run, query.t, transcript=tid if survivors else None, roster=self._pinned(query), cohorts=cohorts
        )
        seeds = {v: masks.expand(keys[v], masks.SEED, "mask", tid) for v in graph.neighbours(self.site)}
        later = [seed for v, seed in seeds.items() if v > self.site]
        earlier = [seed for v, seed in seeds.items() if v < self.site]
        own = [secrets.token_bytes(masks.SEED)] if survivors else []
        masks.apply(query.layout.lanes(y), plus=later + own, minus=earlier)
        reply = {"site": self.site, "tid": tid, "y": y}
        if survivors:
            reply["blobs"] = sum_shares.seal(self.site, {**seeds, self.site: own[0]}, keys, tid, graph.shares)
        return reply

    def sign(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sign the survivors of a sum that lacks a site, for the other survivors; ``{site, sig}``.

        Raises
        ------
        SumRefused
            The survivors are too few, all, or others than before; this site gave no masked answer to the sum.
        WireError
            The request is no request.
        """
        query, tid, least, *_ = self._open(request)
        survivors = sum_survivors.check(request.get("survivors"), query.names, self.site, least)
        if survivors == query.names:
            raise SumRefused("secure sum", "no site is missing, so nothing is to be signed; ask for the shares")
        self._store.lock(tid, survivors)  # on disk before anything leaves: one set of survivors a sum
        return {"site": self.site, "sig": sum_survivors.sign(self._identity, tid, survivors)}

    def unmask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer with the shares that open a survivor sum; ``{site, b: {u: share}, s: {u: {d: share}}}``.

        For a survivor u a share of its own mask, for a missing d a share of its mask with each survivor: never both of
        one site, never a mask between two survivors, never for two sets of survivors.

        Raises
        ------
        SumRefused
            The survivors are too few, others than before, or not signed by enough of them where a site is missing; a
            share is not what its site made.
        WireError
            The request is no request.
        """
        query, tid, least, graph, keys = self._open(request)
        blobs = request.get("blobs")
        if query.mode != "survivors" or not isinstance(blobs, Mapping):
            raise WireError("the request to open a sum has no shares")
        survivors = sum_survivors.check(request.get("survivors"), query.names, self.site, least)
        there = set(survivors)
        makers = [u for u in graph.holders(self.site) if u in there]
        if set(blobs) != set(makers):
            raise WireError("the request to open a sum must bring one share of every survivor")
        shares = {u: sum_shares.unseal(u, self.site, blobs[u], keys[u], tid, graph.holders(u)) for u in makers}
        if survivors != query.names:
            sum_survivors.check_signatures(request.get("signatures"), self._pins, tid, survivors, least)
        # on disk before anything leaves: a sum, and a round, are opened for one set of survivors
        self._store.lock(tid, survivors, [masks.digest("slot", query.study, slot) for slot in query.slot])
        return {
            "site": self.site,
            "b": {u: shares[u][u] for u in makers},
            "s": {u: {d: share for d, share in shares[u].items() if d not in there} for u in makers},
        }

    def secret(self) -> bytes:
        """What the digests of this site's patients are keyed with; it never leaves."""
        return self._store.secret()

    def close(self, run: str) -> None:
        """Delete the key of a run that has ended; its sums can never be opened again."""
        self._store.close(run)

    def _open(self, request: Mapping[str, Any]) -> Terms:
        """What a request stands for, if its roster is as this site approved it."""
        query = SumQuery.read(request)
        key = X25519PrivateKey.from_private_bytes(self._store.key(query.study, query.run))
        own = {entry.site: entry.key for entry in query.roster}.get(self.site)
        if own != key.public_key().public_bytes_raw():
            raise SumRefused(NEEDS_SETUP, f"the roster lacks the key that site {self.site} gave; make the set-up again")
        sum_setup.verify(query.study, query.run, query.roster, self._pins, self._minimum)
        salt = sum_setup.roster_digest(query.study, query.run, query.roster)
        least = sum_setup.threshold(len(query.names), self._minimum)
        graph = Graph(query.names, salt, least)
        keys = sum_setup.pair_keys(query.roster, salt, self.site, key, set(graph.neighbours(self.site)))
        return Terms(query, query.transcript(least), least, graph, keys)

    def _pinned(self, query: SumQuery) -> bytes:
        """Digest of the sites of a sum and their identity keys, the same in every run."""
        return masks.digest("sites", [(name, self._pins[name]) for name in query.names])
