"""Secure sum: seconds, bytes and memory of one sum of network weights, beside a plain sum and Flower's SecAgg+.

    python benchmarks/secure_sum.py --numbers 1e7 --sites 10 --json FILE   # one size
    python benchmarks/secure_sum.py --all --json FILE                      # the table, and 1,000 sites

The same float32 arrays are added in three ways in one run, each in a process of its own, site after site on one core:
by a survivor sum of ours (set-up included, all sites answer), by packing and adding, and by the functions of Flower's
own SecAgg+ client mod with the server's steps of its workflow. Times are of all sites and the server together;
`site_seconds` is the median site's. Memory is what a sum takes beyond its inputs, at the most.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from cohortium.common.codec import pack, unpack
from cohortium.common.secure_sum import SiteSums
from cohortium.common.sum_graph import degree
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_server import ServerSum
from cohortium.common.sum_setup import roster_of, threshold
from cohortium.common.sum_store import MemoryStore

# a function of the same name hides the module
flower = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")

FORK = multiprocessing.get_context("fork")
STATM = Path("/proc/self/statm")
SIZES, SITES = (1e5, 1e6, 1e7, 2.5e7), (4, 10, 50)
BOUND_BITS = 28  # fraction bits of weights within +-2
CLIPPING, TARGET, MODULUS, WEIGHT = 8.0, 1 << 22, 1 << 32, 1000.0  # the defaults of Flower's workflow


class Federation:
    """Sites and a run, as far as secure sums go."""

    def __init__(self, sites: int) -> None:
        names = [f"s{i:04d}" for i in range(sites)]
        identities = {name: Ed25519PrivateKey.generate() for name in names}
        pins = {name: key.public_key().public_bytes_raw() for name, key in identities.items()}
        self.sites = {
            name: SiteSums(site=name, identity=identities[name], pins=pins, minimum_sites=3, store=MemoryStore())
            for name in names
        }

    def sum(self, mode: Any, layout: Layout) -> ServerSum:
        roster = roster_of(site.hello("benchmark", "run", patients=100) for site in self.sites.values())
        return ServerSum(
            study="benchmark", run="run", mode=mode, t=1, roster=roster, slot=("train round 1",),
            statistic="fedavg.update", parameters=b"", layout=layout, minimum_sites=3,
        )  # fmt: skip


def ours(arrays: list[np.ndarray], found: dict[str, Any]) -> np.ndarray:
    """One survivor sum; every message passes through the codec."""
    federation = Federation(len(arrays))
    layout = Layout((Entry("w4", arrays[0].size, BOUND_BITS),))
    one = federation.sum("survivors", layout)
    own = dict.fromkeys(federation.sites, 0.0)
    for (name, site), array in zip(federation.sites.items(), arrays, strict=True):
        request = pack(one.request)
        start = time.perf_counter()
        reply = pack(site.masked(unpack(request), lambda array=array: [array]))
        own[name] += time.perf_counter() - start
        found["bytes_up_per_site"] = len(reply)
        one.receive(name, unpack(reply))
    for name, request in one.unmask_requests().items():
        asked = pack(request)
        start = time.perf_counter()
        reply = pack(federation.sites[name].unmask(unpack(asked)))
        own[name] += time.perf_counter() - start
        one.receive_unmask(name, unpack(reply))
    found["bytes_up_per_site"] += len(reply)
    found["site_seconds"] = statistics.median(own.values())
    return one.total()[0]


def plain(arrays: list[np.ndarray], found: dict[str, Any]) -> np.ndarray:
    """The same messages without masks."""
    del found
    total = np.zeros(arrays[0].size, np.float32)
    for array in arrays:
        total += unpack(pack({"y": array}))["y"]
    return total


def secagg_plus(arrays: list[np.ndarray], found: dict[str, Any]) -> np.ndarray:
    """Flower's client mod, stage by stage, and the steps of its server workflow; all sites are neighbours."""
    n = len(arrays)
    least = threshold(n, 3)
    states = {nid: flower.SecAggPlusState() for nid in range(1, n + 1)}
    settings = {
        Key.SAMPLE_NUMBER: n, Key.SHARE_NUMBER: n, Key.THRESHOLD: least, Key.CLIPPING_RANGE: CLIPPING,
        Key.TARGET_RANGE: TARGET, Key.MOD_RANGE: MODULUS, Key.MAX_WEIGHT: WEIGHT,
    }  # fmt: skip
    keys = {}
    for nid, state in states.items():
        state.nid = nid
        reply = flower._setup(state, settings)
        keys[str(nid)] = (reply[Key.PUBLIC_KEY_1], reply[Key.PUBLIC_KEY_2])
    boxes: dict[int, list[tuple[int, bytes]]] = {nid: [] for nid in states}
    for nid, state in states.items():
        reply = flower._share_keys(state, keys)
        for to, text in zip(reply[Key.DESTINATION_LIST], reply[Key.CIPHERTEXT_LIST], strict=True):
            boxes[to].append((nid, text))
    total = None
    for (nid, state), array in zip(states.items(), arrays, strict=True):
        sources, texts = zip(*boxes[nid], strict=True)
        asked = {Key.SOURCE_LIST: list(sources), Key.CIPHERTEXT_LIST: list(texts)}
        reply = flower._collect_masked_vectors(state, asked, int(WEIGHT), ndarrays_to_parameters([array]))
        masked = [bytes_to_ndarray(data) for data in reply[Key.MASKED_PARAMETERS]]
        found["secaggplus_bytes_up_per_site"] = sum(len(data) for data in reply[Key.MASKED_PARAMETERS])
        total = masked if total is None else arithmetic.parameters_addition(total, masked)
    shares: dict[int, list[bytes]] = {nid: [] for nid in states}
    for state in states.values():
        reply = flower._unmask(state, {Key.ACTIVE_NODE_ID_LIST: list(states), Key.DEAD_NODE_ID_LIST: []})
        for owner, share in zip(reply[Key.NODE_ID_LIST], reply[Key.SHARE_LIST], strict=True):
            shares[owner].append(share)
    total = arithmetic.parameters_mod(total, MODULUS)
    for nid in states:
        mask = pseudo_rand_gen(combine_shares(shares[nid]), MODULUS, arithmetic.get_parameters_shape(total))
        total = arithmetic.parameters_subtraction(total, mask)
    _, quantized = arithmetic.factor_extract(arithmetic.parameters_mod(total, MODULUS))
    return dequantize(quantized, CLIPPING, TARGET)[0] - (n - 1) * CLIPPING


def measure(numbers: int, sites: int) -> dict[str, Any]:
    """One row of the table."""
    pool = np.random.default_rng(0).standard_normal(numbers + sites, dtype=np.float32) * np.float32(1e-2)
    arrays = [pool[i : i + numbers] for i in range(sites)]
    expected = np.zeros(numbers, np.int64)
    for array in arrays:
        expected += np.rint(array * np.float32(2.0**BOUND_BITS)).astype(np.int64)
    found: dict[str, Any] = {"numbers": numbers, "sites": sites}
    ways: dict[str, Callable[..., np.ndarray]] = {"plain": plain, "ours": ours, "secaggplus": secagg_plus}
    for name, way in ways.items():
        total = alone(name, way, arrays, found)
        if name == "ours":
            right = expected.astype(np.float32) * np.float32(2.0**-BOUND_BITS)
            assert (total == right).all(), "the masked total is not the plain one"
        found[f"{name}_largest_error"] = float(np.abs(total - expected * 2.0**-BOUND_BITS).max())
    return found


def alone(name: str, way: Callable[..., np.ndarray], arrays: list[np.ndarray], found: dict[str, Any]) -> np.ndarray:
    """The total of one way, taken in a process of its own: memory that another left free would hide what this takes."""
    here, there = FORK.Pipe(duplex=False)

    def child() -> None:
        seen: dict[str, Any] = {}
        with peak(seen, "peak_bytes" if name == "ours" else f"{name}_peak_bytes"):
            start = time.perf_counter()
            total = way(arrays, seen)
            seen[f"{name}_seconds"] = time.perf_counter() - start
        there.send((seen, total))

    process = FORK.Process(target=child)
    process.start()
    there.close()
    seen, total = here.recv()
    process.join()
    found |= seen
    return total


@contextmanager
def peak(found: dict[str, Any], key: str) -> Iterator[None]:
    """Keep how far the resident memory rises meanwhile, looked at every 10 ms; Linux only, None elsewhere."""
    if not STATM.exists():
        found[key] = None
        yield
        return
    before, seen, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        found[key] = max(0, max(seen) - before)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def many(sites: int = 1000, numbers: int = 10_000) -> dict[str, Any]:
    """A whole-roster sum over simulated sites on the sparse graph."""
    graph = degree(sites, threshold(sites, 3))
    federation = Federation(sites)
    start = time.perf_counter()
    one = federation.sum("whole", Layout((Entry("i8", numbers, 0),)))
    own = []
    for i, (name, site) in enumerate(federation.sites.items()):
        began = time.perf_counter()
        reply = site.masked(one.request, lambda i=i: [np.arange(numbers) * (i + 1)])
        own.append(time.perf_counter() - began)
        one.receive(name, reply)
    (total,) = one.total()
    assert (total == np.arange(numbers) * (sites * (sites + 1) // 2)).all(), "the masked total is not the plain one"
    return {
        "sites": sites,
        "numbers": numbers,
        "seconds": time.perf_counter() - start,
        "site_seconds": statistics.median(own),
        **graph._asdict(),
    }


def shown(row: dict[str, Any]) -> str:
    """One line of the table."""
    theirs = row["secaggplus_seconds"]
    ratio = f"{theirs:9.2f} s  {theirs / row['ours_seconds']:5.1f}x"
    return (
        f"{row['numbers']:>11,} {row['sites']:>5} {row['ours_seconds']:9.3f} s {row['plain_seconds']:9.3f} s {ratio}"
        f"  {row['site_seconds']:8.3f} s {row['bytes_up_per_site'] / row['numbers']:7.2f}"
        f" {(row['peak_bytes'] or 0) / 2**20:9.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=float, default=1e7)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument(
        "--all", action="store_true", help="every size and number of sites, and 1,000 sites; half an hour"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("    numbers sites        ours       plain     SecAgg+   ratio      a site  B/number  memory")
    pairs = [(n, s) for n in SIZES for s in SITES] if options.all else [(options.numbers, options.sites)]
    rows = []
    for numbers, sites in pairs:
        rows.append(measure(int(numbers), sites))
        print(shown(rows[-1]), flush=True)
    content: dict[str, Any] = {"rows": rows} if options.all else rows[0]
    if options.all:
        wide = many()
        print(
            f"{wide['sites']:,} sites, {wide['numbers']:,} numbers, whole roster: {wide['seconds']:.1f} s in all, "
            f"{wide['site_seconds']:.3f} s a site; k = {wide['neighbours']} neighbours, {wide['shares']} shares open a "
            f"mask; secrecy fails with probability {wide['secrecy_fails']:.1e}, recovery {wide['recovery_fails']:.1e} "
            "at most, a third of the sites dishonest and a third missing"
        )
        content["many"] = wide
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
