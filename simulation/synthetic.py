"""Synthetic patients: rows, CT and tumour mask of a cohort whose truth is known, for demos, tests and method work.

Every patient has a random stream of their own, made from the seed, the site's name and the patient's number: a cohort
does not depend on the order of sites, on how many patients the others have, or on how the work is divided.
"""

from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.simulation.synthetic_anatomy import torso
from cohortium.simulation.synthetic_clinic import Person, person
from cohortium.simulation.synthetic_grid import Grid
from cohortium.simulation.synthetic_plan import Plan, SitePlan
from cohortium.simulation.synthetic_scanner import scan
from cohortium.simulation.synthetic_tumour import grow


class Imaging(NamedTuple):
    """CT of a patient and the contour of the tumour, both (z, y, x)."""

    image: NDArray[np.int16]
    mask: NDArray[np.uint8]


def grid_of(plan: Plan) -> Grid:
    """The plan's grid, in array order."""
    (x, y, z), (step_x, step_y, step_z) = plan.grid.shape, plan.grid.spacing_mm
    return Grid(shape=(z, y, x), spacing_mm=(step_z, step_y, step_x))


def patient(plan: Plan, site: SitePlan, number: int, *, seed: int) -> Person:
    """Row and latent risk of a site's patient; numbers count from 0."""
    return person(site.case_mix, plan.risk, _stream(seed, site, number, "clinic"))


def imaging(plan: Plan, site: SitePlan, number: int, *, seed: int) -> Imaging:
    """CT and contour of a site's patient."""
    who = patient(plan, site, number, seed=seed)
    rng = _stream(seed, site, number, "image")
    grid = grid_of(plan)
    phase_hu = site.scanner.phase_hu + rng.normal(0, 8)
    healthy = torso(grid, phase_hu=phase_hu, rng=rng)
    tumour = grow(
        grid,
        healthy,
        aggressiveness=who.aggressiveness,
        length_cm=float(who.row["tumour_length"]),
        location=str(who.row["location"]),
        phase_hu=phase_hu,
        rng=rng,
    )
    return Imaging(image=scan(tumour.hu, grid, site.scanner, rng), mask=tumour.mask)


def _stream(seed: int, site: SitePlan, number: int, purpose: str) -> np.random.Generator:
    digest = sha256(f"cohortium/1/synthetic/{seed}\x1f{site.name}\x1f{number}\x1f{purpose}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
