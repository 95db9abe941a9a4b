"""Intensities: statistics, local peaks, histogram and intensity-volume histogram of a region (IBSI 3.2 to 3.5)."""

import numpy as np
from scipy import ndimage, signal

from cohortium.client.imaging.ibsi.region import Array, Levels, Mask, entropy

PEAK_RADIUS_MM = 10 * (3 / (4 * np.pi)) ** (1 / 3)
"""Of a sphere of 1 cm3."""

SPREAD_NAMES = (
    "mean", "var", "skew", "kurt", "median", "min", "p10", "p90", "max", "iqr", "range", "mad", "rmad", "medad", "cov",
    "qcod",
)  # fmt: skip
STATISTICS_NAMES = (*SPREAD_NAMES, "energy", "rms")
HISTOGRAM_NAMES = (
    *SPREAD_NAMES, "mode", "entropy", "uniformity", "max_grad", "max_grad_g", "min_grad", "min_grad_g"
)  # fmt: skip
VOLUME_NAMES = ("v10", "v90", "i10", "i90", "diff_v10_v90", "diff_i10_i90")
PEAK_NAMES = ("peak_loc", "peak_glob")


def statistics(values: Array) -> dict[str, float]:
    """Features ``stat_NAME`` of the intensities of a region, (n,)."""
    found = _spread(values) | {"energy": float(values @ values), "rms": float(np.sqrt(np.mean(values**2)))}
    return {f"stat_{name}": value for name, value in found.items()}


def histogram(levels: Levels, n_levels: int) -> dict[str, float]:
    """Features ``ih_NAME`` of the levels of a region, (n,)."""
    found = _spread(levels.astype(float))
    counts = np.bincount(levels, minlength=n_levels + 1)[1:].astype(float)
    p = counts / counts.sum()
    highest = np.flatnonzero(counts == counts.max()) + 1
    found["mode"] = float(highest[np.abs(highest - found["mean"]).argmin()])
    found |= {"entropy": float(entropy(p)), "uniformity": float(p @ p)}
    gradient = np.gradient(counts) if n_levels > 1 else np.zeros(1)
    found |= {
        "max_grad": float(gradient.max()),
        "max_grad_g": float(gradient.argmax() + 1),
        "min_grad": float(gradient.min()),
        "min_grad_g": float(gradient.argmin() + 1),
    }
    return {f"ih_{name}": value for name, value in found.items()}


def _spread(x: Array) -> dict[str, float]:
    """Moments and order statistics that intensities and levels share."""
    mean, variance = x.mean(), x.var()
    p10, p25, median, p75, p90 = np.percentile(x, [10, 25, 50, 75, 90])
    robust = x[(x >= p10) & (x <= p90)]
    centred = x - mean
    flat = variance == 0
    return {
        "mean": float(mean),
        "var": float(variance),
        "skew": 0.0 if flat else float(np.mean(centred**3) / variance**1.5),
        "kurt": 0.0 if flat else float(np.mean(centred**4) / variance**2 - 3),
        "median": float(median),
        "min": float(x.min()),
        "p10": float(p10),
        "p90": float(p90),
        "max": float(x.max()),
        "iqr": float(p75 - p25),
        "range": float(np.ptp(x)),
        "mad": float(np.abs(centred).mean()),
        "rmad": float(np.abs(robust - robust.mean()).mean()),
        "medad": float(np.abs(x - median).mean()),
        "cov": float(np.sqrt(variance) / mean) if mean else np.nan,
        "qcod": float((p75 - p25) / (p75 + p25)) if p75 + p25 else np.nan,
    }


def volume_histogram(
    values: Array, *, bounds: tuple[float, float] | None, width: float | None, count: int | None
) -> dict[str, float]:
    """Features ``ivh_NAME``: which share of the region is at least how intense.

    Parameters
    ----------
    values : (n,)
        Intensities of the region.
    bounds : (low, high) or None
        Re-segmentation range, between which intensity fractions are counted; None: from the least to the largest value.
    width, count : float or None, int or None
        Bins. Neither: every whole number is a level of its own, as Hounsfield units are.
    """
    low, high = bounds or (values.min(), values.max())
    if count is not None:
        span = np.ptp(values)
        levels = np.floor(count * (values - values.min()) / (span or 1)) + 1
        levels = np.clip(levels, 1, count)
        axis = np.arange(1.0, count + 1)
    elif width is not None:
        # Bin centres, in the image's unit
        axis = low + (np.arange(np.ceil((high - low) / width) or 1) + 0.5) * width
        levels = low + (np.floor((values - low) / width) + 0.5) * width
        axis = axis if levels.max() <= axis[-1] else np.append(axis, levels.max())
    else:
        levels, axis = values, np.arange(low, high + 1)
    # Share of voxels at or above each level
    share = 1 - np.searchsorted(np.sort(levels), axis, side="left") / len(levels)
    fraction = (axis - axis[0]) / (axis[-1] - axis[0]) if len(axis) > 1 else np.zeros(1)
    found = {f"v{x}": float(share[fraction >= x / 100].max(initial=0.0)) for x in (10, 90)}
    step = axis[1] - axis[0] if len(axis) > 1 else 1.0
    # Beyond the last level no voxel is left
    found |= {
        f"i{x}": float(np.append(axis, axis[-1] + step)[np.append(share, 0.0) <= x / 100].min()) for x in (10, 90)
    }
    found |= {"diff_v10_v90": found["v10"] - found["v90"], "diff_i10_i90": found["i10"] - found["i90"]}
    return {f"ivh_{name}": found[name] for name in VOLUME_NAMES}


def peaks(image: Array, inside: Mask, spacing_mm: Array) -> dict[str, float]:
    """Features ``loc_NAME``: mean of a sphere of 1 cm3 around the most intense voxel, and the largest such mean.

    Parameters
    ----------
    image, inside : (z, y, x)
        With what is around the region, as far as the image goes: the sphere looks beyond the region.
    """
    reach = np.floor(PEAK_RADIUS_MM / spacing_mm + 1e-9).astype(int)
    offsets = np.indices(2 * reach + 1) - reach[:, None, None, None]
    sphere = (((offsets * spacing_mm[:, None, None, None]) ** 2).sum(axis=0) <= PEAK_RADIUS_MM**2).astype(float)
    shift = image[inside].mean()  # so that rounding is relative to the region's own spread
    total = signal.oaconvolve(image - shift, sphere, mode="same")
    voxels = signal.oaconvolve(np.ones_like(image), sphere, mode="same")
    means = shift + total / np.round(voxels)
    highest = inside & (image == image[inside].max())
    return {"loc_peak_loc": float(means[highest].max()), "loc_peak_glob": float(ndimage.maximum(means, inside, 1))}
