"""`cohortium simulate`: a researcher's whole study on one machine."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer


def simulate(
    study_dir: Annotated[str, typer.Argument(help="Folder with study.toml, or the name of a shipped study (gastric).")],
    engine: Annotated[
        Literal["in-process", "ray", "deployment"], typer.Option(help="What carries the messages.")
    ] = "in-process",
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/STUDY.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that OUT holds.")] = False,
    seed: Annotated[int | None, typer.Option(help="Another seed than the study's.")] = None,
    patients: Annotated[int | None, typer.Option(help="Size of a generated cohort.")] = None,
    sites: Annotated[int | None, typer.Option(help="Training sites of a generated cohort.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes that prepare images.")] = os.cpu_count() or 1,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of measured cases, to share them between runs; by default in OUT.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="One line a stage.")] = False,
) -> None:
    """Run a whole study on this machine: prepare, federate, report."""
    # one thread a process: the last digits of a matrix product depend on the number of threads
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from cohortium.common.progress import Progress
    from cohortium.simulation.simulate import simulate as run

    out = out or Path("runs") / Path(study_dir).name
    results = run(
        study_dir,
        out,
        engine=engine,
        resume=resume,
        seed=seed,
        patients=patients,
        sites=sites,
        jobs=jobs,
        cache=cache,
        progress=Progress(quiet=quiet),
    )
    cost = results["cost"]
    typer.echo(
        f"{out / 'report.html'}  ({cost['secure_sums']} secure sums, {cost['messages']} messages, "
        f"{cost['seconds']:.0f} s)"
    )
