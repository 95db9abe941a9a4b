"""Server app: what Flower runs at the coordinator; it hands the study to `server.run` and nothing else.

The run's configuration names the study file, the output folder and whether to resume; `cohortium run` writes it.
"""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from cohortium.common import naps
from cohortium.common.errors import StudyError
from cohortium.server.flower_transport import FlowerTransport
from cohortium.server.run import run_study

ONLINE_WITHIN_S = 120.0
"""Seconds to wait for the study's sites to come online."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one study over the grid."""
    config = context.run_config
    study_file, out = Path(str(config["study"])), Path(str(config["out"]))
    if not study_file.is_absolute() or not out.is_absolute():
        raise StudyError("a run needs absolute paths of the study and of the output; start it with `cohortium run`")
    naps.shorten_pull_retries()
    transport = FlowerTransport(grid, expected_sites(study_file), ONLINE_WITHIN_S, say=_say)
    run_study(study_file, out, transport=transport, engine="deployment", resume=bool(config["resume"]))


def expected_sites(study_file: Path) -> tuple[str, ...]:
    """The sites of a study file, training and external."""
    from cohortium.common.study import load_study

    split = load_study(study_file).split
    return tuple(sorted({*split.train, *split.external}))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - Flower carries what a server app prints to `cohortium run`
