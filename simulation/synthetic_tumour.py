"""Tumour: a mass of the stomach wall whose texture and shape carry a patient's latent imaging risk.

`aggressiveness` is standard normal over patients. Higher means: stronger and finer texture, a more irregular border, a
darker core. Its size carries none of it; that belongs to the clinical part of the risk.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.special import expit

from cohortium.simulation.synthetic_anatomy import STOMACH, Torso
from cohortium.simulation.synthetic_grid import Field, Grid, Point, stretched

HEIGHT_MM = {"lower": -34.0, "middle": 0.0, "upper": 34.0}
TUMOUR_HU = STOMACH.hu + 20.0
HETEROGENEITY_HU = (8.0, 30.0)
"""Standard deviation of the texture: the least, and what the most aggressive tumour adds."""
IRREGULARITY = (0.08, 0.30)
"""Roughness of the border, in squared radii: the least, and what the most aggressive tumour adds."""
CORE_HU = 14.0
"""How much darker the core is for each SD of aggressiveness above -1."""


class Tumour(NamedTuple):
    """A patient with a tumour."""

    hu: Field
    mask: np.ndarray  # (z, y, x) of uint8


def grow(
    grid: Grid,
    torso: Torso,
    *,
    aggressiveness: float,
    length_cm: float,
    location: str,
    phase_hu: float,
    rng: np.random.Generator,
) -> Tumour:
    """Put a tumour of `length_cm` (longest diameter) into the stomach wall at `location`."""
    centre = _place(torso, location, rng)
    radii = _radii(length_cm, rng)
    box = grid.box(centre, stretched(radii, 1.5))
    least, more = IRREGULARITY
    rough = least + more * expit(1.5 * aggressiveness)
    distance = grid.distance(centre, radii, box)
    inside = (distance + rough * grid.texture("coarse", rng)[box] < 1) & torso.body[box]
    inside = _one_piece(inside | (distance <= distance.min()))
    core = inside & (distance / 0.3 + 0.3 * grid.texture("coarse", rng)[box] < 1)

    least, more = HETEROGENEITY_HU
    fine = expit(1.2 * aggressiveness)  # share of the texture's variance that is fine-grained
    texture = np.sqrt(fine) * grid.texture("fine", rng)[box] + np.sqrt(1 - fine) * grid.texture("coarse", rng)[box]
    density = TUMOUR_HU + 0.5 * phase_hu + rng.normal(0, 8)
    density = density + (least + more * expit(1.6 * aggressiveness)) * texture
    density = density - core * (CORE_HU * max(aggressiveness + 1.0, 0.0))

    hu = torso.hu.copy()
    hu[box][inside] = density[inside]
    mask = np.zeros(grid.shape, dtype=np.uint8)
    mask[box][inside] = 1
    return Tumour(hu=hu, mask=mask)


def _place(torso: Torso, location: str, rng: np.random.Generator) -> Point:
    """A point on the wall of the stomach, front or left, at the height of the location."""
    height = HEIGHT_MM[location] + rng.uniform(-8, 8)
    ring = np.sqrt(1 - (height / STOMACH.radii[0]) ** 2)
    angle = rng.uniform(-np.pi, np.pi / 6)
    z, y, x = STOMACH.centre
    _, depth, width = STOMACH.radii
    point = (z + height, y + depth * ring * np.sin(angle), x + width * ring * np.cos(angle))
    return stretched(point, torso.size)


def _radii(length_cm: float, rng: np.random.Generator) -> Point:
    """Half-axes in mm, the longest along a random axis."""
    longest = 5.0 * length_cm
    z, y, x = longest * rng.permutation([1.0, rng.uniform(0.75, 1.0), rng.uniform(0.65, 0.95)])
    return float(z), float(y), float(x)


def _one_piece(inside: np.ndarray) -> np.ndarray:
    """The largest connected part: a contour is one piece."""
    labels = ndimage.label(inside)[0]  # pyright: ignore[reportGeneralTypeIssues, reportIndexIssue] -- scipy has no types
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
