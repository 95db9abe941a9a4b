"""Grey level co-occurrence matrix: how often two levels are neighbours (IBSI 3.6; Haralick et al., 1973)."""

from collections.abc import Iterator

import numpy as np

from cohortium.client.imaging.ibsi.region import IN_PLANE, IN_SPACE, Array, Levels, Measured, average, entropy, shifted

NAMES = (
    "joint_max", "joint_avg", "joint_var", "joint_entr", "diff_avg", "diff_var", "diff_entr", "sum_avg", "sum_var",
    "sum_entr", "energy", "contrast", "dissimilarity", "inv_diff", "inv_diff_norm", "inv_diff_mom",
    "inv_diff_mom_norm", "inv_var", "corr", "auto_corr", "clust_tend", "clust_shade", "clust_prom", "info_corr1",
    "info_corr2",
)  # fmt: skip
AGGREGATIONS = {"2D": ("2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb"), "3D": ("3D_avg", "3D_comb")}


def features(region: Measured, dimension: str) -> dict[str, float]:
    """Features ``cm_NAME_AGGREGATION`` of a region.

    Matrices are averaged (avg: features of each, then their mean) or merged (comb) over directions, within slices (2D),
    over all slices (2.5D) or in space (3D).
    """
    found: dict[str, dict[str, float]] = {}
    if dimension == "3D":
        matrices = np.stack([_matrix(region.levels, step, region.n_levels) for step in IN_SPACE])
        found["3D_avg"] = average(list(map(_of_matrix, matrices)))
        found["3D_comb"] = _of_matrix(matrices.sum(axis=0))
    else:
        each, merged = [], []
        over_slices = np.zeros((len(IN_PLANE), region.n_levels, region.n_levels))
        for matrices in _by_slice(region):
            each += map(_of_matrix, matrices)
            merged.append(_of_matrix(matrices.sum(axis=0)))
            over_slices += matrices
        found["2D_avg"], found["2D_comb"] = average(each), average(merged)
        found["2_5D_avg"] = average(list(map(_of_matrix, over_slices)))
        found["2_5D_comb"] = _of_matrix(over_slices.sum(axis=0))
    return {f"cm_{name}_{how}": value for how, values in found.items() for name, value in values.items()}


def _by_slice(region: Measured) -> Iterator[Array]:
    """Matrices of the four directions in each slice that has voxels, (4, n_levels, n_levels)."""
    for levels in region.levels:
        if levels.any():
            yield np.stack([_matrix(levels[None], step, region.n_levels) for step in IN_PLANE])


def _matrix(levels: Levels, step: tuple[int, int, int], n_levels: int) -> Array:
    """Symmetric counts of neighbouring levels, (n_levels, n_levels)."""
    here, there = shifted(levels, step)
    both = (here > 0) & (there > 0)
    pairs = (here[both] - 1) * n_levels + there[both] - 1
    counts = np.bincount(pairs, minlength=n_levels**2).reshape(n_levels, n_levels)
    return (counts + counts.T).astype(float)


def _of_matrix(counts: Array) -> dict[str, float]:
    """All features of one matrix; NaN without a pair of voxels."""
    if not (total := counts.sum()):
        return dict.fromkeys(NAMES, np.nan)
    p = counts / total
    n = len(p)
    level = np.arange(1.0, n + 1)
    i, j = level[:, None], level[None, :]
    margin = p.sum(axis=1)
    mean = float(margin @ level)
    variance = float(margin @ (level - mean) ** 2)
    # Sums and differences of two levels, with their distributions
    sums, differences = np.arange(2.0, 2 * n + 1), np.arange(float(n))
    row, col = np.indices(p.shape)
    p_sum = np.bincount((row + col).ravel(), p.ravel(), minlength=2 * n - 1)
    p_diff = np.bincount(np.abs(row - col).ravel(), p.ravel(), minlength=n)
    sum_avg, diff_avg = float(p_sum @ sums), float(p_diff @ differences)
    sum_var = float(p_sum @ (sums - sum_avg) ** 2)
    contrast = float(p_diff @ differences**2)
    auto = float((p * i * j).sum())
    hxy, hx = float(entropy(p)), float(entropy(margin))
    product = np.outer(margin, margin)
    log_product = np.log2(product, where=product > 0, out=np.zeros_like(product))
    hxy1, hxy2 = -float((p * log_product).sum()), -float((product * log_product).sum())
    return {
        "joint_max": float(p.max()),
        "joint_avg": mean,
        "joint_var": variance,
        "joint_entr": hxy,
        "diff_avg": diff_avg,
        "diff_var": float(p_diff @ (differences - diff_avg) ** 2),
        "diff_entr": float(entropy(p_diff)),
        "sum_avg": sum_avg,
        "sum_var": sum_var,
        "sum_entr": float(entropy(p_sum)),
        "energy": float((p**2).sum()),
        "contrast": contrast,
        "dissimilarity": diff_avg,
        "inv_diff": float(p_diff @ (1 / (1 + differences))),
        "inv_diff_norm": float(p_diff @ (1 / (1 + differences / n))),
        "inv_diff_mom": float(p_diff @ (1 / (1 + differences**2))),
        "inv_diff_mom_norm": float(p_diff @ (1 / (1 + differences**2 / n**2))),
        "inv_var": float(p_diff[1:] @ (1 / differences[1:] ** 2)),
        # A region of one level is wholly correlated
        "corr": (auto - mean**2) / variance if variance > 0 else 1.0,
        "auto_corr": auto,
        "clust_tend": sum_var,
        "clust_shade": float(p_sum @ (sums - 2 * mean) ** 3),
        "clust_prom": float(p_sum @ (sums - 2 * mean) ** 4),
        "info_corr1": (hxy - hxy1) / hx if hx > 0 else 0.0,
        "info_corr2": float(np.sqrt(max(0.0, 1 - np.exp(-2 * (hxy2 - hxy))))),
    }
