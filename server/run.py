"""Run: a study from the first message to the report, at the coordinator.

Stages in order: declared figures, preprocess and fit, validate, finish. Each takes what the one before found and the
federation; a killed run is called again with ``resume`` and ends with the same results (server/journal.py).
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cohortium.common.errors import SiteError, StudyError
from cohortium.common.progress import NullProgress
from cohortium.common.roster import load_roster
from cohortium.common.study import Study, load_study
from cohortium.common.transport import Transport
from cohortium.server.federation import StudyFederation, table_columns
from cohortium.server.journal import Journal
from cohortium.server.model_bundle import write_bundles
from cohortium.server.results import results, write_results
from cohortium.server.site_calls import SiteCalls
from cohortium.server.stages import private
from cohortium.server.stages.describe import describe
from cohortium.server.stages.fit import fit_models
from cohortium.server.stages.validate import validate
from cohortium.strategies.view_patients import too_many_repeats


def run_study(
    study_file: Path,
    out: Path,
    *,
    transport: Transport,
    engine: str,
    roster_file: Path,
    resume: bool = False,
    progress: NullProgress | None = None,
) -> dict[str, Any]:
    """Run a study over its sites and write OUT/{study.toml, results.json, report.html, models/, run/}.

    Parameters
    ----------
    study_file, roster_file : Path
        As the sites approved them.
    out : Path
    transport : Transport
        Reaches the sites; the only thing that differs between engines.
    engine : str
        Repeated in results.json.
    resume : bool
        Go on with the run that `out` holds.

    Returns
    -------
    What results.json holds.

    Raises
    ------
    StudyError, SiteError, SumRefused, SumVoid, NotIdentifiable
        With a remedy; whatever was learned so far is kept for ``resume``.
    """
    started = time.monotonic()
    progress = progress or NullProgress()
    study, roster = load_study(study_file), load_roster(roster_file)
    if strangers := set(study.sites) - set(roster.names):
        raise SiteError(f"sites {', '.join(sorted(strangers))} of the study are not enrolled in {roster_file.name}")
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / "run", resume=resume)
    (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    calls = SiteCalls(study, transport, journal)
    with progress.stage("declared figures"):
        declared = calls.declared()
    federation = StudyFederation(
        study,
        calls,
        feature_names=_same_features(study, declared),
        patients=at_most(study, declared),
        progress=progress,
    )
    if why := too_many_repeats(study, federation.patients["train"]):
        raise StudyError(f"{study_file}: [split] {why}")
    # Table 1 waits for no model: its sums travel with those of the fits
    noised = study.privacy.dp is not None
    stages = (private.describe, private.fit_models) if noised else (describe, fit_models)
    tasks: list[Callable[[], Any]] = [lambda stage=stage: stage(federation) for stage in stages]
    table_one, fitted = federation.together(tasks)
    validated = private.validate(federation, fitted) if noised else validate(federation, calls, fitted)
    with progress.stage("finish"):
        calls.finish([{"name": name, "object": model.digest} for name, model in fitted.items()])
    content = results(
        study,
        engine=engine,
        roster_hash=roster.hash,
        declared=declared,
        table_one=table_one + validated.table_one,
        fitted=fitted,
        validated=validated,
        log=journal.lines(),
        columns=len(table_columns(study, federation.feature_names)),
        cost=calls.cost | {"seconds": round(time.monotonic() - started, 3)},
    )
    write_bundles(
        study,
        fitted,
        content | {"cutoffs": validated.cutoffs},
        federation.published,
        federation.feature_names,
        out / "models",
    )
    write_results(content, out / "results.json")
    with progress.stage("report"):
        from cohortium.server.report.build import build_report  # matplotlib: only when there is something to draw

        build_report(out)
    return content


def at_most(study: Study, declared: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Patients that each part has at most: all that the sites use which can hold the part."""
    used = {site: declared[site]["flow"]["used"] for site in study.sites}
    return {part: sum(used[site] for site in study.sites_of(part)) for part in ("train", "internal", "external")}


def _same_features(study: Study, declared: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """Names of the feature columns, which must be the same at every site."""
    first = study.sites[0]
    for site in study.sites:
        if declared[site]["features"] != declared[first]["features"]:
            raise StudyError(
                f"sites {first} and {site} prepared different features; prepare both with the same version and study"
            )
    return tuple(declared[first]["features"])
