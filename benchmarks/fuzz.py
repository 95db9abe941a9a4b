"""Fuzz: damaged messages, queries, layouts, study and site files; every reader answers with a value or a typed error.

    python benchmarks/fuzz.py --inputs 100000 --seed 0

Inputs are true ones with bytes flipped, cut, doubled and spliced, or with a value of theirs replaced by an odd one.
Prints how many each reader took, how many it refused and its slowest input; anything but its own error, or an input
that takes over five seconds, ends the run and shows the input. The tests run a few thousand of the same.
"""

import argparse
import random
import signal
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import numpy as np

from cohortium.common.codec import pack, unpack
from cohortium.common.errors import CohortiumError, SiteError, StudyError, WireError
from cohortium.common.study import load_study, parse_study
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_query import SumQuery
from cohortium.common.sum_setup import Hello
from cohortium.sites.site_file import load_site, parse_site
from cohortium.sites.site_template import site_template

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 5
SITE = """
[site]
name = "north"
workspace = "work"
device = "cuda:0"
allow = ["moments.*", "cox.*"]
opt_ins = ["on_departure"]
[data]
patients = "patients.csv"
delimiter = ";"
decimal = ","
where = {centre = 3}
columns = {age = "AGE"}
codes = {sex = {m = 1, f = 0}}
[images.ct]
image = "images/{patient_id}/ct"
mask = {tumour = "masks/{patient_id}.nii.gz"}
"""
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, -(2**63), 2**80, 0.5, 1e308, float("nan"), float("inf"), "", " ", "a\nb",
    "\x00", "\ud800", "x" * 300, "train", "../../x", b"", b"\x00" * 32, b"\xff" * 64, [], [[]], [None] * 3, {}, {"": 0},
    {"\x00array": ["<f8", [2, -1]]}, {"\x00bytes": 10**9}, {"a": {"a": {"a": {}}}}, [["f8", 1, 40]], (1,), np.zeros(2),
)  # fmt: skip
TOML_ODD = tuple(odd for odd in ODD if odd is not None and not isinstance(odd, bytes | np.ndarray | tuple))
TOKENS = (
    "[",
    "]",
    "[[",
    '"',
    "'",
    "=",
    "{",
    "}",
    "\n",
    "nan",
    "-inf",
    "1e999",
    "0x",
    "#",
    '"""',
    "é",
    "\x00",
    "9" * 5000,
)
Random = random.Random


class Reader(NamedTuple):
    """A reader, how its true inputs are damaged, and the only error it may raise."""

    damaged: Callable[[Random], Any]
    read: Callable[[Any], Any]
    error: type[CohortiumError]
    weight: int


def damaged_bytes(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with 1 to 6 injuries."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 6)):
        at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        injury = rng.randrange(6)
        if injury == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif injury == 1:
            del data[at : min(to, at + 40)]
        elif injury == 2:
            data[at:at] = data[at : min(to, at + 40)]
        elif injury == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif injury == 4:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"[[[["))
        else:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data)


def damaged_text(rng: Random, seeds: Sequence[str]) -> str:
    """One of the seeds with lines dropped, doubled and swapped, and odd characters."""
    lines = rng.choice(seeds).splitlines()
    for _ in range(rng.randint(1, 4)):
        at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
        injury = rng.randrange(5)
        if injury == 0 and len(lines) > 1:
            del lines[at]
        elif injury == 1:
            lines.insert(to, lines[at])
        elif injury == 2:
            lines[at], lines[to] = lines[to], lines[at]
        else:
            place = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + rng.choice(TOKENS) + lines[at][place + rng.randrange(3) :]
    return "\n".join(lines)


def damaged_value(rng: Random, value: Any, odd: Sequence[Any] = ODD) -> Any:
    """The same tree with a leaf, a branch or a key of it replaced, dropped or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        changed = dict(value)
        key = rng.choice(sorted(changed))
        injury = rng.randrange(8)
        if injury == 0:
            del changed[key]
        elif injury == 1:
            changed[key + rng.choice(("x", " ", "\n"))] = changed.pop(key)
        elif injury == 2:
            changed[key] = changed[rng.choice(sorted(changed))]
        else:
            changed[key] = damaged_value(rng, changed[key], odd)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return rng.choice(
            (
                [*value[:at], damaged_value(rng, value[at], odd), *value[at + 1 :]],
                [*value, value[at]],
                value[:at],
                value[::-1],
            )
        )
    return rng.choice(odd)


def several(rng: Random, value: Any, odd: Sequence[Any] = ODD) -> Any:
    """1 to 3 injuries of a tree."""
    for _ in range(rng.randint(1, 3)):
        value = damaged_value(rng, value, odd)
    return value


def readers(folder: Path) -> dict[str, Reader]:
    """What is fuzzed, by name; files are written to `folder`."""
    layout = Layout((Entry("i8", 5, 0), Entry("f8", 2, 40), Entry("w4", 9, 28)))
    query = SumQuery(
        study="s", run="r", mode="survivors", t=3, slot=("train network 1",), statistic="fedavg.update",
        parameters_digest=bytes(32), layout=layout,
        roster=tuple(Hello(name, bytes(32), 40, bytes(64)) for name in "abc"),
    )  # fmt: skip
    request = {**query.plain(), "parameters_digest": query.parameters_digest}
    weights = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.zeros(9, np.uint8), "n": [1, None, 0.5]}
    messages = [pack(message) for message in (request, weights, {"b": {"h00": bytes(32)}, "s": {}}, {})]
    studies = [path.read_text() for path in sorted(ROOT.glob("tests/data/studies/*/study.toml"))]
    sites = [SITE, *(site_template("north", load_study(path)) for path in sorted(ROOT.glob("tests/data/studies/*")))]
    study_tables, site_tables = ([tomllib.loads(text) for text in texts] for texts in (studies, sites))

    def read_file(load: Callable[[Path], Any], text: str) -> None:
        path = folder / "declared.toml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        load(path)

    def tree(rng: Random, tables: list[dict[str, Any]]) -> Any:
        broken = several(rng, rng.choice(tables), TOML_ODD)
        return broken if isinstance(broken, dict) else {"study": broken}

    return {
        "codec.unpack": Reader(lambda rng: damaged_bytes(rng, messages), unpack, WireError, 50),
        "SumQuery.read": Reader(
            lambda rng: several(rng, request),
            lambda value: SumQuery.read(value if isinstance(value, dict) else {}),
            WireError,
            20,
        ),
        "Layout.read": Reader(lambda rng: several(rng, layout.plain()), Layout.read, WireError, 20),
        "study file": Reader(
            lambda rng: damaged_text(rng, studies), lambda text: read_file(load_study, text), StudyError, 3
        ),
        "study tables": Reader(lambda rng: tree(rng, study_tables), parse_study, StudyError, 2),
        "site file": Reader(
            lambda rng: damaged_text(rng, sites), lambda text: read_file(load_site, text), SiteError, 3
        ),
        "site tables": Reader(lambda rng: tree(rng, site_tables), parse_site, SiteError, 2),
    }


def take(reader: Reader, value: Any) -> bool:
    """Whether a reader took an input; raises whatever is not its error."""
    try:
        reader.read(value)
    except reader.error:
        return False
    return True


def _too_long(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TimeoutError(f"over {LONGEST_S} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as folder:
        every = readers(Path(folder))
        whole = sum(reader.weight for reader in every.values())
        for name, reader in every.items():
            rng = random.Random(f"{options.seed} {name}")
            outcomes, slowest = Counter(), 0.0
            for _ in range(-(-options.inputs * reader.weight // whole)):
                value = reader.damaged(rng)
                start = time.perf_counter()
                signal.alarm(LONGEST_S)
                try:
                    outcomes[take(reader, value)] += 1
                except Exception:
                    print(f"{name}: {value!r}")
                    raise
                finally:
                    signal.alarm(0)
                slowest = max(slowest, time.perf_counter() - start)
            print(f"{name:15} {outcomes[True]:7,} taken {outcomes[False]:7,} refused, slowest {1e3 * slowest:6.1f} ms")


if __name__ == "__main__":
    main()
