"""Sites and a server of secure sums in this process; every message passes through the codec, as on the wire."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cohortium.common.codec import pack, unpack
from cohortium.common.secure_sum import SiteSums
from cohortium.common.sum_layout import Layout
from cohortium.common.sum_server import ServerSum
from cohortium.common.sum_setup import roster_of
from cohortium.common.sum_store import MemoryStore

Arrays = Sequence[np.ndarray]


class World:
    """n sites that share a run. A site is made anew for every message: only its store lasts."""

    study, run, minimum = "a study", "run1", 3

    def __init__(self, sites: int, store: Callable[[str], Any] = lambda name: MemoryStore()) -> None:
        self.names = [f"h{i:02d}" for i in range(sites)]
        self.identities = {name: Ed25519PrivateKey.generate() for name in self.names}
        self.pins = {name: key.public_key().public_bytes_raw() for name, key in self.identities.items()}
        self.stores = {name: store(name) for name in self.names}
        self.t = 0
        self.roster = self.set_up()

    def set_up(self, run: str | None = None) -> tuple:
        return roster_of(wire(self.site(name).hello(self.study, run or self.run, patients=40)) for name in self.names)

    def site(self, name: str) -> SiteSums:
        return SiteSums(
            site=name,
            identity=self.identities[name],
            pins=self.pins,
            minimum_sites=self.minimum,
            store=self.stores[name],
        )

    def sum(self, layout: Layout, mode: str = "whole", **terms: Any) -> ServerSum:
        self.t += 1
        usual = {
            "study": self.study,
            "run": self.run,
            "mode": mode,
            "t": self.t,
            "roster": self.roster,
            "slot": ("train",) if mode == "whole" else (f"train network {self.t}",),
            "statistic": "moments.first",
            "parameters": b"parameters",
            "layout": layout,
            "minimum_sites": self.minimum,
        }
        return ServerSum(**{**usual, **terms})

    def masked(self, name: str, request: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
        return wire(self.site(name).masked(wire(request), lambda: list(arrays)))

    def sign(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        return wire(self.site(name).sign(wire(request)))

    def requests(self, one: ServerSum, signers: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """The requests for shares, once the survivors (or only some of them) signed where a site is missing."""
        for name, request in one.sign_requests().items():
            if signers is None or name in signers:
                one.receive_signature(name, self.sign(name, request))
        return one.unmask_requests()

    def unmask(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        return wire(self.site(name).unmask(wire(request)))


def wire(message: Mapping[str, Any]) -> dict[str, Any]:
    return unpack(pack(dict(message)))


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    return World
