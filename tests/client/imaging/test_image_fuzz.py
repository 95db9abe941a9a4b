"""Image fuzz: a fixed few of the damaged files that benchmarks/image_fuzz.py throws at the readers by the thousand."""

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("image_fuzz", Path(__file__).parents[3] / "benchmarks" / "image_fuzz.py")
image_fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(image_fuzz)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


def test_damaged_images_and_contours_are_taken_or_refused(tmp_path):
    """In one process of its own: here ITK has threads, and a process with threads must not fork."""
    script = f"""
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("image_fuzz", {SPEC.origin!r})
image_fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(image_fuzz)
for kind in image_fuzz.KINDS:
    outcomes, _ = image_fuzz.run(kind, 25, seed=1, folder=Path({str(tmp_path)!r}))
    print(kind, sum(outcomes.values()), sep="=")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{kind}=25" for kind in image_fuzz.KINDS]


def test_injuries_are_repeatable():
    data = bytes(range(256)) * 9
    first, again = (image_fuzz.injured(random.Random("a"), data, [b"x"]) for _ in range(2))
    assert first == again != data
