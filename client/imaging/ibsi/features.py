"""IBSI features: all that the reference manual defines, of one region, under the manual's own tags.

Names are those of the reference values of the Image Biomarker Standardisation Initiative: ``stat_mean``,
``cm_joint_max_2D_avg``, ``szm_sze_3D``. Computed here from the definitions, apart from pyradiomics (see radiomics.py).
"""

from typing import NamedTuple

import numpy as np

from cohortium.client.imaging.ibsi import cooccurrence, intensity, morphology, neighbours, runs, zones
from cohortium.client.imaging.ibsi.region import Array, Levels, Mask, Measured
from cohortium.client.imaging.region import bounding_box

FAMILIES = ("morph", "loc", "stat", "ih", "ivh", "cm", "rlm", "szm", "dzm", "ngt", "ngl")
ONCE = ("morph", "loc")
"""Families of the image itself; filtered images have none."""

DIRECTED = {"2D": ("2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb"), "3D": ("3D_avg", "3D_comb")}
UNDIRECTED = {"2D": ("2D", "2_5D"), "3D": ("3D",)}
NAMES = {
    "morph": morphology.NAMES,
    "loc": intensity.PEAK_NAMES,
    "stat": intensity.STATISTICS_NAMES,
    "ih": intensity.HISTOGRAM_NAMES,
    "ivh": intensity.VOLUME_NAMES,
    "cm": cooccurrence.NAMES,
    "rlm": runs.NAMES,
    "szm": zones.SIZE_NAMES,
    "dzm": zones.DISTANCE_NAMES,
    "ngt": neighbours.TONE_NAMES,
    "ngl": neighbours.DEPENDENCE_NAMES,
}


class VolumeBins(NamedTuple):
    """Bins of the intensity-volume histogram; see `intensity.volume_histogram`."""

    bounds: tuple[float, float] | None = None
    width: float | None = None
    number: int | None = None


def names(families: tuple[str, ...], dimensions: tuple[str, ...]) -> list[str]:
    """Tags of all features of some families, the same for every region."""
    found = []
    for family in families:
        for how in _aggregations(family, dimensions):
            found += ["_".join(part for part in (family, name, how) if part) for name in NAMES[family]]
    return found


def _aggregations(family: str, dimensions: tuple[str, ...]) -> list[str]:
    kinds = {"cm": DIRECTED, "rlm": DIRECTED} | dict.fromkeys(("szm", "dzm", "ngt", "ngl"), UNDIRECTED)
    return [how for dimension in dimensions for how in kinds[family][dimension]] if family in kinds else [""]


def measure(
    values: Array,
    morphology_mask: Mask,
    inside: Mask,
    levels: Levels,
    spacing_mm: Array,
    *,
    families: tuple[str, ...],
    dimensions: tuple[str, ...] = ("2D", "3D"),
    volume_bins: VolumeBins = VolumeBins(),  # noqa: B008 -- immutable
) -> dict[str, float]:
    """Features of some families of a region.

    Parameters
    ----------
    values, morphology_mask, inside, levels : (z, y, x)
        Image on the study's grid, morphological mask, intensity mask, grey levels from 1 (0 outside that mask).
        The mean intensity of a sphere (``loc``) looks at what is around the region, so leave 6.3 mm where there is.
    spacing_mm : (3,), z, y, x
    dimensions : of ``2D`` (by slice, and slices merged: 2.5D) and ``3D``
    """
    box = bounding_box(morphology_mask)
    region = Measured(
        np.pad(values[box], 1),
        np.pad(morphology_mask[box], 1),
        np.pad(inside[box], 1),
        np.pad(levels[box], 1),
        n_levels=int(levels.max()),
        spacing_mm=np.asarray(spacing_mm, dtype=float),
    )
    found: dict[str, float] = {}
    if "morph" in families:
        found |= morphology.features(region)
    if "loc" in families:
        found |= intensity.peaks(values, inside, region.spacing_mm)
    if "stat" in families:
        found |= intensity.statistics(region.of_region)
    if "ih" in families:
        found |= intensity.histogram(levels[inside], region.n_levels)
    if "ivh" in families:
        found |= intensity.volume_histogram(
            region.of_region, bounds=volume_bins.bounds, width=volume_bins.width, count=volume_bins.number
        )
    for dimension in dimensions:
        found |= _texture(region, families, dimension)
    return found


def _texture(region: Measured, families: tuple[str, ...], dimension: str) -> dict[str, float]:
    found: dict[str, float] = {}
    if "cm" in families:
        found |= cooccurrence.features(region, dimension)
    if "rlm" in families:
        found |= runs.features(region, dimension)
    if of_zones := tuple(family for family in ("szm", "dzm") if family in families):
        found |= zones.features(region, dimension, of_zones)
    if "ngt" in families:
        found |= neighbours.tone_difference(region, dimension)
    if "ngl" in families:
        found |= neighbours.dependence(region, dimension)
    return found
