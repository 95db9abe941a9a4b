"""Server app: what Flower runs at the coordinator; it hands the study to `server.run` and nothing else.

The run's configuration names study file, roster, output folder and whether to resume; `cohortium run` writes it.
"""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from cohortium.common import naps
from cohortium.common.errors import StudyError
from cohortium.common.progress import Progress
from cohortium.common.study import load_study
from cohortium.server.flower_transport import FlowerTransport
from cohortium.server.run import run_study

ONLINE_WITHIN_S = 120.0
"""Seconds to wait for the study's sites to come online."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one study over the grid."""
    config = context.run_config
    study_file, roster_file, out = (Path(str(config[key])) for key in ("study", "roster", "out"))
    if not all(path.is_absolute() for path in (study_file, roster_file, out)):
        raise StudyError("a run needs absolute paths of study, roster and output; start it with `cohortium run`")
    naps.shorten_pull_retries()
    run_study(
        study_file,
        out,
        transport=FlowerTransport(grid, load_study(study_file).sites, ONLINE_WITHIN_S, say=_say),
        engine="deployment",
        roster_file=roster_file,
        resume=bool(config["resume"]),
        progress=Progress(),
    )


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - Flower carries what a server app prints to `cohortium run`
