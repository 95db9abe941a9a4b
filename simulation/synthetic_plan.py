"""Plan of a synthetic cohort: simulation.toml beside a study, read and checked.

It is no part of the study and not hashed: it says which patients to invent, not what to do with them. See
docs/synthetic.md for every key.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from cohortium.common.declared_files import read_toml, validate
from cohortium.common.errors import StudyError
from cohortium.common.study_data import Keys, Name, Positive

FILE = "simulation.toml"

Hu = Annotated[float, Field(ge=-500, le=500)]
Voxels = Annotated[int, Field(ge=16, le=512)]
NotNegative = Annotated[float, Field(ge=0)]


class Cohort(Keys):
    """[simulation]: who is generated."""

    generator: Literal["gastric"]
    patients: Annotated[int, Field(ge=1, le=1_000_000)]


class GridPlan(Keys):
    """[grid]: voxels (x, y, z) and their size."""

    shape: tuple[Voxels, Voxels, Voxels] = (96, 96, 48)
    spacing_mm: tuple[Positive, Positive, Positive] = (2.7, 2.7, 3.4)


class Risk(Keys):
    """[risk]: the logistic model of recurrence, logit = intercept + strength * (image part + clinical part).

    The two parts are independent, with variances `image_share` and 1 - `image_share` over a site without case mix.
    """

    intercept: float = -0.8
    strength: NotNegative = 2.0
    image_share: Annotated[float, Field(ge=0, le=1)] = 0.5


class Scanner(Keys):
    """How a site's scanner and protocol differ: noise, in-plane blur, slice blur, calibration, contrast phase."""

    noise_hu: NotNegative = 10.0
    blur_mm: NotNegative = 0.0
    slice_mm: NotNegative = 0.0
    shift_hu: Hu = 0.0
    phase_hu: Hu = 0.0


class CaseMix(Keys):
    """How a site's patients differ: mean age, stage (SDs of the latent spread) and recurrence at equal predictors."""

    age_years: Annotated[float, Field(ge=-20, le=20)] = 0.0
    spread: Annotated[float, Field(ge=-3, le=3)] = 0.0
    risk_logit: Annotated[float, Field(ge=-5, le=5)] = 0.0


class SitePlan(Keys):
    """[[site]]: one hospital; `share` is its part of the patients, relative to the other sites'."""

    name: Name
    share: Positive
    external: bool = False
    scanner: Scanner = Scanner()
    case_mix: CaseMix = CaseMix()


class Plan(Keys):
    """A whole simulation.toml."""

    simulation: Cohort
    grid: GridPlan = GridPlan()
    risk: Risk = Risk()
    site: Annotated[tuple[SitePlan, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _sites_differ(self) -> Self:
        names = [site.name for site in self.site]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"site {double!r} is given twice; rename or remove one")
        return self

    @property
    def train(self) -> tuple[str, ...]:
        """Names of the training sites, in file order."""
        return tuple(site.name for site in self.site if not site.external)

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the external sites, in file order."""
        return tuple(site.name for site in self.site if site.external)

    def with_training_sites(self, number: int) -> "Plan":
        """The plan with the first `number` training sites; beyond those listed, sites of drawn character are added.

        External sites stay. An added site gets the mean share of the listed training sites, and its scanner and case
        mix follow from its name alone.

        Raises
        ------
        StudyError
            `number` is below 1.
        """
        if number < 1:
            raise StudyError(f"{number} training sites cannot be simulated; ask for at least 1")
        listed = [site for site in self.site if not site.external]
        share = float(np.mean([site.share for site in listed])) if listed else 1.0
        added = [_drawn_site(f"site_{i + 1:03d}", share) for i in range(len(listed), number)]
        kept = [site for site in self.site if site.external]
        return self.model_copy(update={"site": (*listed[:number], *added, *kept)})

    def patients_by_site(self, patients: int | None = None) -> dict[str, int]:
        """Patients of each site: the shares of the total, by largest remainder (ties: the name decides)."""
        total = self.simulation.patients if patients is None else patients
        shares = np.array([site.share for site in self.site])
        wanted = total * shares / shares.sum()
        counts = np.floor(wanted).astype(int)
        by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - wanted[i], self.site[i].name))
        for i in by_remainder[: total - counts.sum()]:
            counts[i] += 1
        return {site.name: int(count) for site, count in zip(self.site, counts, strict=True)}


def _drawn_site(name: str, share: float) -> SitePlan:
    rng = np.random.default_rng(list(name.encode()))
    scanner = Scanner(
        noise_hu=rng.uniform(8, 20),
        blur_mm=rng.uniform(0, 2.5),
        slice_mm=rng.uniform(0, 8),
        shift_hu=rng.normal(0, 5),
        phase_hu=rng.normal(0, 10),
    )
    case_mix = CaseMix(age_years=rng.uniform(-4, 4), spread=rng.uniform(-0.3, 0.3), risk_logit=rng.uniform(-0.3, 0.3))
    return SitePlan(name=name, share=share, scanner=scanner, case_mix=case_mix)


def read_plan(study_dir: Path) -> Plan:
    """Read the simulation.toml of a study's folder.

    Raises
    ------
    StudyError
        There is none, or it is wrong; all mistakes are named at once.
    """
    path = study_dir / FILE
    return validate(
        Plan, read_toml(path, role="plan of the simulation", error=StudyError), source=FILE, error=StudyError
    )
