"""Morphology: surface, axes, densities and spatial association of a region (IBSI 3.1).

Surface and volume are those of pyradiomics' mesh (shape.py); axes are of the covariance over n - 1, as the consensus
has it; Moran's and Geary's sums over all pairs of voxels are convolutions with 1 / distance.
"""

import numpy as np
from scipy import fft
from scipy.spatial import ConvexHull, QhullError
from scipy.special import eval_legendre

from cohortium.client.imaging.ibsi.region import Array, Measured
from cohortium.client.imaging.shape import surface, surface_vertices

NAMES = (
    "volume", "vol_approx", "area_mesh", "av", "comp_1", "comp_2", "sph_dispr", "sphericity", "asphericity", "com",
    "diam", "pca_maj_axis", "pca_min_axis", "pca_least_axis", "pca_elongation", "pca_flatness", "vol_dens_aabb",
    "area_dens_aabb", "vol_dens_aee", "area_dens_aee", "vol_dens_conv_hull", "area_dens_conv_hull", "integ_int",
    "moran_i", "geary_c",
)  # fmt: skip


def features(region: Measured) -> dict[str, float]:
    """Features ``morph_NAME`` of a region."""
    spacing = region.spacing_mm
    area, volume, diameters = surface(region.morphology, spacing)
    vertices = surface_vertices(region.morphology) * spacing
    points = np.argwhere(region.morphology) * spacing
    found = {"vol_approx": float(len(points) * np.prod(spacing)), "diam": diameters[3]}
    found |= _of_surface(area, volume)
    found |= _axes(points, area, volume)
    box = np.ptp(vertices, axis=0)
    found["vol_dens_aabb"] = volume / float(np.prod(box))
    found["area_dens_aabb"] = area / float(2 * (box[0] * box[1] + box[0] * box[2] + box[1] * box[2]))
    try:
        hull = ConvexHull(vertices)
        found |= {"vol_dens_conv_hull": volume / hull.volume, "area_dens_conv_hull": area / hull.area}
    except QhullError:
        found |= {"vol_dens_conv_hull": np.nan, "area_dens_conv_hull": np.nan}
    weights = region.of_region
    inside = np.argwhere(region.inside) * spacing
    centre = weights @ inside / weights.sum() if weights.sum() else np.full(3, np.nan)
    found["com"] = float(np.linalg.norm(points.mean(axis=0) - centre))
    found["integ_int"] = float(weights.mean() * volume)
    found |= _association(region)
    return {f"morph_{name}": found[name] for name in NAMES}


def _of_surface(area: float, volume: float) -> dict[str, float]:
    compactness = 36 * np.pi * volume**2 / area**3
    return {
        "volume": volume,
        "area_mesh": area,
        "av": area / volume,
        "comp_1": float(volume / (np.sqrt(np.pi) * area**1.5)),
        "comp_2": float(compactness),
        "sph_dispr": float(compactness ** (-1 / 3)),
        "sphericity": float(compactness ** (1 / 3)),
        "asphericity": float(compactness ** (-1 / 3) - 1),
    }


def _axes(points: Array, area: float, volume: float) -> dict[str, float]:
    """Axes of the ellipsoid that has the region's covariance, and the region's density in it."""
    if len(points) < 2:
        return dict.fromkeys(NAMES[11:16] + NAMES[18:20], np.nan)
    variances = np.sort(np.linalg.eigvalsh(np.cov(points, rowvar=False)))[::-1]
    major, minor, least = np.sqrt(np.maximum(variances, 0))
    semi = 2 * np.array([major, minor, least])
    with np.errstate(divide="ignore", invalid="ignore"):
        enclosing = volume / (4 / 3 * np.pi * np.prod(semi))
        area_density = area / ellipsoid_area(*semi) if least > 0 else np.nan
    return {
        "pca_maj_axis": float(4 * major),
        "pca_min_axis": float(4 * minor),
        "pca_least_axis": float(4 * least),
        "pca_elongation": float(minor / major),
        "pca_flatness": float(least / major),
        "vol_dens_aee": float(enclosing),
        "area_dens_aee": float(area_density),
    }


def ellipsoid_area(a: float, b: float, c: float, terms: int = 20) -> float:
    """Surface of an ellipsoid of semi-axes a >= b >= c by the manual's Legendre series (3.1, area density).

    The manual takes both eccentricities against the major axis, so this is some percent off for a long ellipsoid; what
    is compared between studies is the manual's number.
    """
    alpha, beta = np.sqrt(1 - b**2 / a**2), np.sqrt(1 - c**2 / a**2)
    if alpha * beta == 0:  # of revolution with a = b: the series is its first term only where c = a too
        alpha = max(alpha, 1e-9)
        beta = max(beta, alpha)
    order = np.arange(terms + 1)
    argument = (alpha**2 + beta**2) / (2 * alpha * beta)
    series = (alpha * beta) ** order / (1 - 4 * order**2) * eval_legendre(order, argument)
    return float(4 * np.pi * a * b * series.sum())


def _association(region: Measured) -> dict[str, float]:
    """Moran's I and Geary's C with weights 1 / distance (mm) over all pairs of voxels."""
    values = region.of_region
    if len(values) < 2 or np.ptp(values) == 0:
        return {"moran_i": 1.0, "geary_c": 1.0}
    inside = region.inside.astype(float)
    centred = np.where(region.inside, region.values - values.mean(), 0.0) / values.std()
    shape = [int(fft.next_fast_len(2 * n - 1, real=True) or 0) for n in inside.shape]
    squares = [
        (np.minimum(np.arange(n), n - np.arange(n)) * s) ** 2 for n, s in zip(shape, region.spacing_mm, strict=True)
    ]
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    distance[0, 0, 0] = np.inf  # a voxel is no neighbour of itself
    kernel = np.asarray(fft.rfftn(1 / distance))

    def near(array: Array) -> Array:
        """Sum over all other voxels of their value by distance."""
        whole = np.asarray(fft.irfftn(np.asarray(fft.rfftn(array, shape)) * kernel, shape))
        return whole[tuple(slice(n) for n in array.shape)]

    weights = near(inside)[region.inside]
    z = centred[region.inside]
    crossed = z @ near(centred)[region.inside]
    n, total = len(z), weights.sum()
    # z has mean 0 and sum of squares n
    return {
        "moran_i": float(crossed / total),
        "geary_c": float((n - 1) * 2 * (z**2 @ weights - crossed) / (2 * total * n)),
    }
