"""Start-up: seconds of `cohortium --help`, and of answering messages in fresh processes, one a message.

    python benchmarks/start_up.py STUDY_DIR OUT

OUT is a finished run of the study in STUDY_DIR (one with site files). Its prepared sites are asked as a coordinator
asks them, for the declared figures, a key, and one masked sum of means; each message is answered by a new Python that
is given nothing else. Heavy modules that were imported are named; torch and SimpleITK must not be among them.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from shutil import copytree

import numpy as np

from cohortium.common.codec import unpack
from cohortium.common.progress import NullProgress
from cohortium.common.study import load_study
from cohortium.server.federation import StudyFederation
from cohortium.server.journal import Journal
from cohortium.server.run import at_most
from cohortium.server.site_calls import SiteCalls
from cohortium.strategies import moments, views

HEAVY = ("torch", "SimpleITK", "radiomics", "flwr", "matplotlib", "pandas", "pyarrow", "scipy.stats", "numpy")
NEVER = {"torch", "SimpleITK", "radiomics"}
TARGET_S = 0.3
NAMES = f"print(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 'none', file=sys.stderr)"
HELP = f"""
import sys
from cohortium.cli import main
sys.argv[1:] = ['--help']
try:
    main.main()
except SystemExit:
    pass
{NAMES}
"""
ANSWER = f"""
import sys
from pathlib import Path
from cohortium.client import door
reply = door.answer(sys.stdin.buffer.read(), site_file=Path(sys.argv[1]), workspace=Path(sys.argv[2]))
sys.stdout.buffer.write(reply)
{NAMES}
"""


def timed(command, data=None):
    """Wall seconds of a new process, its output and the last line of its error output."""
    began = time.perf_counter()
    done = subprocess.run([str(part) for part in command], input=data, capture_output=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.decode())
    lines = done.stderr.decode().splitlines()
    return time.perf_counter() - began, done.stdout, lines[-1] if lines else ""


class FreshProcesses:
    """A transport whose every message is answered by a Python that was started for it."""

    def __init__(self, study_dir, workspaces):
        self.files = {file.parent.name: file for file in study_dir.glob("sites/*/site.toml")}
        self.workspaces, self.taken = workspaces, {}

    def ask(self, requests, *, timeout_s):
        """Answer each request in a process of its own; keep the seconds and the modules by kind of message."""
        del timeout_s
        replies = {}
        for site, data in requests.items():
            command = [sys.executable, "-c", ANSWER, self.files[site], self.workspaces / site]
            seconds, replies[site], modules = timed(command, data)
            self.taken.setdefault(unpack(data)["kind"], []).append((seconds, modules))
        return replies


def ask_for_means(study_dir, out, scratch):
    """Declared figures, keys and one sum over the sites of a finished run; what each message took."""
    study = load_study(out)
    transport = FreshProcesses(study_dir, copytree(out / "sites", scratch / "sites"))
    calls = SiteCalls(study, transport, Journal(scratch / "run", resume=False))
    declared = calls.declared()
    names = tuple(declared[study.sites[0]]["features"])
    patients = at_most(study, declared)
    federation = StudyFederation(study, calls, feature_names=names, patients=patients, progress=NullProgress())
    terms = [term for variable in study.variable for term in study.terms(variable.name)] or [views.CONSTANT]
    view = {"kind": "matrix", "rows": {"part": "train"}, "blocks": [{"terms": terms}]}
    federation.rows(view).sum(moments.power_sums, centre=np.zeros(len(terms)), power=1)
    return transport.taken


def main():
    """Print the table; exit code 1 if a module was imported that must not be."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    times = [timed([Path(sys.executable).with_name("cohortium"), "--help"])[0] for _ in range(7)]
    rows = [("cohortium --help", statistics.median(times), timed([sys.executable, "-c", HELP])[2])]
    bare = statistics.median(timed([sys.executable, "-c", "pass"])[0] for _ in range(5))
    rows.append(("python -c pass", bare, ""))
    with tempfile.TemporaryDirectory() as scratch:
        for kind, taken in ask_for_means(Path(sys.argv[1]), Path(sys.argv[2]), Path(scratch)).items():
            rows.append((f"answer: {kind}", statistics.median(s for s, _ in taken), taken[-1][1]))
    print(f"{'fresh process':20} {'median s':>9}  heavy modules imported (target of --help: {TARGET_S} s)")
    for label, seconds, modules in rows:
        print(f"{label:20} {seconds:9.2f}  {modules}")
    sys.exit(any(NEVER & set(modules.split()) for _, _, modules in rows))


if __name__ == "__main__":
    main()
