"""Simulate: a whole study on one machine, through the same preparation, doors, sums and stages as a real federation.

STUDY_DIR holds study.toml and either sites/*/site.toml (real data, one folder a site) or simulation.toml (a generated
cohort); or it is the name of a shipped study. Every site gets a workspace of its own under OUT/sites.
"""

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cohortium.client.prepare import prepare, worker_pool
from cohortium.common.declared_files import nearest
from cohortium.common.errors import SiteError, StudyError
from cohortium.common.model_files import add_weights
from cohortium.common.progress import NullProgress
from cohortium.common.roster import roster_of
from cohortium.common.study import Study, load_study
from cohortium.server.run import run_study
from cohortium.simulation import engines
from cohortium.sites.approvals import approve_roster, approve_study
from cohortium.sites.identity import FILE_NAME as IDENTITY
from cohortium.sites.identity import public_hex, site_identity
from cohortium.sites.prepared import prepared_folder
from cohortium.sites.site_file import Site, load_site

APPROVED_BY = "simulate"
SHIPPED = Path(__file__).parent / "studies"
GENERATED = "simulation.toml"


def simulate(
    study_dir: str | Path,
    out: Path,
    *,
    engine: str = "in-process",
    resume: bool = False,
    seed: int | None = None,
    patients: int | None = None,
    sites: int | None = None,
    jobs: int = 1,
    progress: NullProgress | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Prepare every site, run the study and write the report.

    Parameters
    ----------
    study_dir : str or Path
        Folder of the study, or the name of a shipped one.
    out : Path
    engine : {"in-process", "ray", "deployment"}
    seed, patients, sites : int, optional
        Override the study; `patients` and `sites` need a generated cohort. They change the study's hash.
    jobs : int
        Processes that prepare images.
    cache : Path, optional
        Folder of measured cases, shared between runs.

    Returns
    -------
    What results.json holds.
    """
    progress = progress or NullProgress()
    folder = find_study(study_dir)
    study = overridden(load_study(folder), folder, seed=seed, patients=patients, sites=sites)
    _check_out(out, study, resume=resume)
    hospitals = _hospitals(study, folder, out, patients=patients, sites=sites, progress=progress)
    study_file = _enrol(study, hospitals, out)
    _prepare(study, hospitals, jobs=jobs, progress=progress, cache=cache)
    results = engines.run(
        engine,
        {site.name: (Path(site.source), site.workspace) for site in hospitals},
        lambda transport: run_study(
            study_file,
            out,
            transport=transport,
            engine=engine,
            roster_file=_roster_file(out),
            resume=resume,
            progress=progress,
        ),
        study_file=study_file,
        out=out,
        roster_file=_roster_file(out),
        resume=resume,
        progress=progress,
    )
    add_weights(out / "models", study)  # the run itself sees no images and no weight files
    return results


def _check_out(out: Path, study: Study, *, resume: bool) -> None:
    """Before anything is prepared: OUT is new, or holds a run of this very study that is to be resumed."""
    begun = out / "run" / "study.toml"
    if begun.exists() and load_study(begun).hash != study.hash:
        raise StudyError(f"{out} holds a run of another study or seed; run with the same ones or choose another --out")
    if any(out.glob("run/journal/*.coh")) and not resume:
        raise StudyError(f"{out} already holds a run; add --resume to go on with it, or choose another --out")


def find_study(study_dir: str | Path) -> Path:
    """Folder of a study by path or shipped name.

    Raises
    ------
    StudyError
        There is none.
    """
    for folder in (Path(study_dir), SHIPPED / str(study_dir)):
        if (folder / "study.toml").is_file():
            return folder
    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/study.toml"))
    raise StudyError(
        f"study {study_dir}: no folder with a study.toml and no shipped study of that name; "
        f"{nearest(str(study_dir), shipped)}"
    )


def overridden(study: Study, folder: Path, *, seed: int | None, patients: int | None, sites: int | None) -> Study:
    """The study as run: with another seed, size or number of training sites."""
    if (patients is not None or sites is not None) and not (folder / GENERATED).is_file():
        raise StudyError(f"--patients and --sites need a generated cohort, and {folder} has no {GENERATED}")
    size = {} if patients is None else {"patients": patients}
    study = study.with_overrides(seed=seed, **size)
    if sites is None:
        return study
    from cohortium.simulation.synthetic_plan import read_plan

    plan = read_plan(folder).with_training_sites(sites)
    names = {external: [site.name for site in plan.site if site.external is external] for external in (False, True)}
    return study.with_sites(train=names[False], external=names[True])


def _hospitals(
    study: Study, folder: Path, out: Path, *, patients: int | None, sites: int | None, progress: NullProgress
) -> list[Site]:
    """The sites of the study, each with its workspace under OUT/sites."""
    if (folder / GENERATED).is_file():
        from cohortium.simulation.cohort_files import generate

        cohort = _generated_folder(study, out)
        done = cohort / "complete"
        if done.exists():
            files: Iterable[Path] = sorted(cohort.glob("*/site.toml"))
        else:
            made = generate(folder, cohort, seed=study.study.seed, patients=patients, sites=sites, progress=progress)
            files = made.values()
            done.touch()
    else:
        files = sorted((folder / "sites").glob("*/site.toml"))
    found = {site.name: site for site in map(load_site, files)}
    if missing := [name for name in study.sites if name not in found]:
        raise StudyError(
            f"study {study.study.name}: no site.toml for {', '.join(missing)} under {folder / 'sites'}; add the folder "
            "or take the site out of [split]"
        )
    return [found[name].with_workspace((out / "sites" / name).absolute()) for name in study.sites]


def _generated_folder(study: Study, out: Path) -> Path:
    return out / "cohort" / study.hash[:16]


def _prepare(study: Study, hospitals: list[Site], *, jobs: int, progress: NullProgress, cache: Path | None) -> None:
    """Prepare every site, as each hospital would on its own: what stops one does not keep another from its work.

    What a site file lacks is told before any site begins, since images take hours.
    """
    stopped: list[str] = []
    if study.features:
        # Only here: a study without images needs no SimpleITK
        from cohortium.client.imaging.recipe import Recipe
        from cohortium.client.imaging.site_images import files_of

        for site in hospitals:
            try:
                files_of(site, Recipe.of(study), "{patient_id}")
            except SiteError as problem:
                stopped.append(str(problem))
        if stopped:
            raise SiteError("\n".join(stopped))
    with worker_pool(jobs if study.features else 1) as pool:
        for site in hospitals:
            ready = prepared_folder(site.workspace, study.hash)
            try:
                prepare(study, site, ready, jobs=jobs, pool=pool, progress=progress, cache=cache)
            except SiteError as problem:
                stopped.append(str(problem))
    if stopped:
        raise SiteError("\n".join([*stopped, "nothing is lost: correct this and give the same command again"]))


def _enrol(study: Study, hospitals: list[Site], out: Path) -> Path:
    """The study file as run; identities, roster and approvals, as the hospitals would make them by hand."""
    (out / "run").mkdir(parents=True, exist_ok=True)
    study_file = out / "run" / "study.toml"
    study_file.write_text(study.to_toml(), encoding="utf-8")
    for site in hospitals:
        _simulated_identity(site.workspace, site.name, study.study.seed)
    roster = roster_of({site.name: public_hex(site_identity(site.workspace)) for site in hospitals})
    roster.write(_roster_file(out))
    now = datetime.now(UTC)
    for site in hospitals:
        approve_study(site.workspace, study, approved_by=APPROVED_BY, time=now, opt_ins=study.opt_ins)
        approve_roster(site.workspace, roster, approved_by=APPROVED_BY, time=now)
    return study_file


def _roster_file(out: Path) -> Path:
    return out / "run" / "roster.toml"


def _simulated_identity(workspace: Path, name: str, seed: int) -> None:
    """An identity that follows from the study's seed, so that two runs have the same roster hash.

    It protects nobody and is never made outside a simulation: all sites are on this machine.
    """
    path = workspace / IDENTITY
    if not path.exists():
        secret = hashlib.sha256(json.dumps(["cohortium/1/simulated identity", seed, name]).encode()).digest()
        pem = Ed25519PrivateKey.from_private_bytes(secret).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        workspace.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(pem)
