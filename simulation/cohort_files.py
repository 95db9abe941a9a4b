"""Cohort files: a synthetic cohort written as hospitals would keep it, a folder a site.

OUT/NAME/site.toml          columns and image paths
OUT/NAME/patients.csv       a row a patient
OUT/NAME/images/ID_ct.nii.gz, ID_tumour.nii.gz
"""

import csv
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tomli_w

from cohortium.common.errors import StudyError
from cohortium.common.progress import NullProgress, Step
from cohortium.simulation import synthetic
from cohortium.simulation.synthetic_grid import Grid
from cohortium.simulation.synthetic_plan import Plan, SitePlan, read_plan

COMPRESSION = 1
"""zlib level: noisy images shrink no further at higher ones, only slower."""


def generate(
    study_dir: Path,
    out: Path,
    *,
    seed: int,
    patients: int | None = None,
    sites: int | None = None,
    progress: NullProgress | None = None,
) -> dict[str, Path]:
    """Write the cohort that a study's simulation.toml plans.

    Parameters
    ----------
    study_dir : Path
        Holds simulation.toml.
    out : Path
        Gets a folder a site; files of an earlier cohort with the same names are overwritten.
    seed : int
        The study's seed.
    patients : int, optional
        Of all sites together, instead of the planned number.
    sites : int, optional
        Training sites, instead of the planned ones (`Plan.with_training_sites`); external sites stay.

    Returns
    -------
    dict
        Path of each site's site.toml by name, training sites first.

    Raises
    ------
    StudyError
        simulation.toml is missing or wrong, or nobody is asked for.
    """
    if patients is not None and patients < 1:
        raise StudyError(f"{patients} patients cannot be simulated; ask for at least 1")
    plan = read_plan(study_dir)
    if sites is not None:
        plan = plan.with_training_sites(sites)
    counts = plan.patients_by_site(patients)
    with (progress or NullProgress()).stage("generate patients", total=sum(counts.values())) as step:
        return {
            site.name: _write_site(out / site.name, plan, site, counts[site.name], seed, step)
            for site in sorted(plan.site, key=lambda site: site.external)
        }


def _write_site(folder: Path, plan: Plan, site: SitePlan, patients: int, seed: int, step: Step) -> Path:
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    grid = synthetic.grid_of(plan)
    rows = []
    for number in range(patients):
        name = f"{site.name}-{number + 1:04d}"
        rows.append({"patient_id": name, **synthetic.patient(plan, site, number, seed=seed).row})
        image, mask = synthetic.imaging(plan, site, number, seed=seed)
        _write_nifti(images / f"{name}_ct.nii.gz", image, grid)
        _write_nifti(images / f"{name}_tumour.nii.gz", mask, grid)
        step.advance(note=site.name)
    columns = ["patient_id", *synthetic.patient(plan, site, 0, seed=seed).row]
    with (folder / "patients.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    site_file = folder / "site.toml"
    site_file.write_bytes(tomli_w.dumps(_site_tables(site.name)).encode())
    return site_file


def _site_tables(name: str) -> dict:
    return {
        "site": {"name": name},
        "data": {"patients": "patients.csv"},
        "images": {
            "ct": {
                "image": "images/{patient_id}_ct.nii.gz",
                "mask": {"tumour": "images/{patient_id}_tumour.nii.gz"},
            }
        },
    }


def _write_nifti(path: Path, voxels: np.ndarray, grid: Grid) -> None:
    """NIfTI with its origin such that millimetres count from the centre of the grid (x to the left, y to the back)."""
    volume = sitk.GetImageFromArray(voxels)
    volume.SetSpacing(grid.spacing_mm[::-1])
    volume.SetOrigin([float(axis.ravel()[0]) for axis in grid.axes[::-1]])
    sitk.WriteImage(volume, str(path), useCompression=True, compressionLevel=COMPRESSION)
