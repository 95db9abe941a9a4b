"""Prepare: a site's patients and images to its feature table, before a study and without sending anything.

Cases, and filters of large regions, are computed side by side in processes of one thread each. What cannot be used is
excluded with its reason and the rest goes on; a disk, share or right that is missing stops the site. Whatever is
finished is kept, so a killed prepare goes on where it was, and preparing again costs reading the files.

A study without images imports neither torch nor SimpleITK here.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cohortium.client.imaging.processes import Processes
from cohortium.client.imaging.workers import worker_pool
from cohortium.client.quality_report import Case, outliers, write_page, write_sheet
from cohortium.common.errors import SiteError
from cohortium.common.progress import NullProgress
from cohortium.common.study import Study
from cohortium.common.table import Table
from cohortium.sites.flow import Exclusion, Flow
from cohortium.sites.patients import Patients, read_patients
from cohortium.sites.prepared import FEATURES, FLOW, TABLE
from cohortium.sites.site_file import Site

if TYPE_CHECKING:
    from cohortium.client.imaging.site_images import SiteImages

EXCLUDED = "excluded.csv"
QUALITY = "quality.html"
LIBRARIES = ("SimpleITK", "pyradiomics", "numpy", "scipy", "PyWavelets", "torch", "monai")


@dataclass(frozen=True)
class Prepared:
    """What a site has ready for a study.

    Attributes
    ----------
    table : Path
        The site's Parquet file.
    flow : Flow
        Given, excluded by reason, used.
    computed, kept : int
        Cases whose images were measured now, and found finished.
    """

    table: Path
    flow: Flow
    computed: int = 0
    kept: int = 0


def prepare(
    study: Study,
    site: Site,
    out: Path,
    *,
    jobs: int = 1,
    pool: Processes | None = None,
    progress: NullProgress | None = None,
    cache: Path | None = None,
) -> Prepared:
    """Write a site's table.parquet, flow.json, excluded.csv, features.json and quality.html into `out`.

    Parameters
    ----------
    jobs : int
        Processes for the images; 1 computes in this process.
    pool : Processes, optional
        Processes to use instead (`worker_pool`), so that several sites on one machine start them once.
    cache : Path, optional
        Folder of finished cases; by default ``cases`` in the site's workspace.

    Raises
    ------
    SiteError
        A file, folder or right of the site is missing, or no patient is usable.
    StudyError
        The study asks for something that this version cannot measure.
    """
    patients = read_patients(study, site)
    images = None
    if study.features and len(patients.frame):
        # Only here: a study without images needs neither SimpleITK nor torch on the site's machine
        from cohortium.client.imaging.site_images import measure_site

        with nullcontext(pool) if pool else worker_pool(jobs) as workers:
            images = measure_site(
                study,
                site,
                patients.frame["patient_id"].tolist(),
                pool=workers,
                progress=progress or NullProgress(),
                cache=cache or site.workspace / "cases",
            )
        patients = patients.without(images.exclusions, study)
    if not len(patients.frame):
        reasons = ", ".join(f"{reason}: {n}" for reason, n in patients.flow.excluded.items())
        raise SiteError(
            f"site {site.name}: none of {patients.flow.given} patients is usable ({reasons}); correct these"
        )
    table = patients.table() if images is None else _with_features(patients.table(), images)
    if images is not None:
        _write_quality(out, study, table, patients, images, cache or site.workspace / "cases")
    _write(out, table, patients.flow, patients.exclusions, _feature_report(study, table, images))
    return Prepared(
        table=out / TABLE,
        flow=patients.flow,
        computed=images.computed if images else 0,
        kept=images.kept if images else 0,
    )


# --- what is written ------------------------------------------------------------------------------------------


def _with_features(table: Table, images: "SiteImages") -> Table:
    """The table with its patients' features beside their variables."""
    rows = np.array([images.rows[patient] for patient in table.patient_id])
    features = {name: rows[:, i].copy() for i, name in enumerate(images.names)}
    return Table(table.site, table.patient_id, table.part, {**table.columns, **features})


def _write_quality(
    out: Path, study: Study, table: Table, patients: Patients, images: "SiteImages", cache: Path
) -> None:
    """The page that shows the site its cases; sheets are copied out of the finished cases one at a time."""
    from cohortium.client.imaging.store import Store, finished

    alike: dict[bytes, list[str]] = {}
    features = [row.tobytes() for row in table.matrix(table.feature_names)]
    for patient_id, row in zip(table.patient_id.tolist(), features, strict=True):
        alike.setdefault(row, []).append(patient_id)

    def cases() -> Iterator[Case]:
        for number, (patient_id, row) in enumerate(zip(table.patient_id.tolist(), features, strict=True), start=1):
            kept = finished(Store(cache), images.cases[patient_id])
            others = [("has all features of patient", other, False) for other in alike[row] if other != patient_id]
            yield Case(
                patient_id=patient_id, geometry=kept["geometry"], volumes_ml=kept["volumes_ml"],
                findings=[*kept["findings"], *others], sheet=write_sheet(out, number, kept["sheet"]),
            )  # fmt: skip

    write_page(
        out / QUALITY,
        title=f"{table.site} in {study.study.name}: prepared",
        flow=patients.flow,
        exclusions=patients.exclusions,
        cases=cases(),
        found=outliers(table),
        features=len(table.feature_names),
    )


def _feature_report(study: Study, table: Table, images: "SiteImages | None") -> dict[str, Any]:
    """Feature sets with their columns and weights, and the versions of what computed them."""
    if images is None:
        return {"study": study.hash, "sets": {}, "versions": {}}
    sets = {
        name: {
            "kind": settings.kind,
            "columns": [column for column in table.feature_names if column.startswith(f"features.{name}/")],
        }
        for name, settings in study.features.items()
    }
    for name, weights in images.weights.items():
        sets[name]["weights"] = weights
    return {"study": study.hash, "sets": sets, "versions": {name: version(name) for name in LIBRARIES}}


def _write(
    out: Path, table: Table, flow: Flow, exclusions: tuple[Exclusion, ...], feature_report: dict[str, Any]
) -> None:
    """All files of a prepared site; the table last, since its presence says that the rest is there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / FLOW).write_text(json.dumps({"site": table.site, **flow.plain()}, indent=1) + "\n")
        with (out / EXCLUDED).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([Exclusion._fields, *exclusions])
        (out / FEATURES).write_text(json.dumps(feature_report, indent=1) + "\n")
        table.write(out / TABLE)
    except OSError as broken:
        raise SiteError(f"prepared folder {out}: {broken.strerror}; check its rights and the free space") from broken
