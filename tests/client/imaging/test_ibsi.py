"""IBSI features: the consensus values of the digital phantom, pyradiomics' own where it has them, and brute force."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.distance import cdist

from cohortium.client.imaging.ibsi import features as ibsi
from cohortium.client.imaging.ibsi import intensity, morphology
from cohortium.client.imaging.one_image import Settings, features_of
from tests.client.imaging.volumes import ball, textured

REFERENCE = Path(os.environ.get("COHORTIUM_REFERENCE_DATA", Path(__file__).parents[4] / "shared" / "reference"))
PHANTOM = REFERENCE / "ibsi_digital_phantom"

# pyradiomics' names for IBSI features (its documentation lists them); sums of squares and N - 1 apart they are the same
GLCM = {
    "MaximumProbability": "joint_max", "JointAverage": "joint_avg", "SumSquares": "joint_var",
    "JointEntropy": "joint_entr", "DifferenceAverage": "diff_avg", "DifferenceVariance": "diff_var",
    "DifferenceEntropy": "diff_entr", "SumEntropy": "sum_entr", "JointEnergy": "energy", "Contrast": "contrast",
    "Id": "inv_diff", "Idm": "inv_diff_mom", "InverseVariance": "inv_var",
    "Correlation": "corr", "Autocorrelation": "auto_corr", "ClusterTendency": "clust_tend",
    "ClusterShade": "clust_shade", "ClusterProminence": "clust_prom", "Imc1": "info_corr1", "Imc2": "info_corr2",
}  # fmt: skip
GLRLM = {
    "ShortRunEmphasis": "sre", "LongRunEmphasis": "lre", "LowGrayLevelRunEmphasis": "lgre",
    "HighGrayLevelRunEmphasis": "hgre", "ShortRunLowGrayLevelEmphasis": "srlge",
    "ShortRunHighGrayLevelEmphasis": "srhge", "LongRunLowGrayLevelEmphasis": "lrlge",
    "LongRunHighGrayLevelEmphasis": "lrhge", "GrayLevelNonUniformity": "glnu",
    "GrayLevelNonUniformityNormalized": "glnu_norm", "RunLengthNonUniformity": "rlnu",
    "RunLengthNonUniformityNormalized": "rlnu_norm", "RunPercentage": "r_perc", "GrayLevelVariance": "gl_var",
    "RunVariance": "rl_var", "RunEntropy": "rl_entr",
}  # fmt: skip
GLSZM = {
    "SmallAreaEmphasis": "sze", "LargeAreaEmphasis": "lze", "LowGrayLevelZoneEmphasis": "lgze",
    "HighGrayLevelZoneEmphasis": "hgze", "SmallAreaLowGrayLevelEmphasis": "szlge",
    "SmallAreaHighGrayLevelEmphasis": "szhge", "LargeAreaLowGrayLevelEmphasis": "lzlge",
    "LargeAreaHighGrayLevelEmphasis": "lzhge", "GrayLevelNonUniformity": "glnu", "SizeZoneNonUniformity": "zsnu",
    "ZonePercentage": "z_perc", "GrayLevelVariance": "gl_var", "ZoneVariance": "zs_var", "ZoneEntropy": "zs_entr",
}  # fmt: skip
GLDM = {
    "SmallDependenceEmphasis": "lde", "LargeDependenceEmphasis": "hde", "LowGrayLevelEmphasis": "lgce",
    "HighGrayLevelEmphasis": "hgce", "SmallDependenceLowGrayLevelEmphasis": "ldlge",
    "LargeDependenceHighGrayLevelEmphasis": "hdhge", "GrayLevelNonUniformity": "glnu",
    "DependenceNonUniformity": "dcnu", "DependenceVariance": "dc_var", "DependenceEntropy": "dc_entr",
}  # fmt: skip
NGTDM = {name: name.lower() for name in ("Coarseness", "Contrast", "Busyness", "Complexity", "Strength")}
FIRST = {
    "Mean": "mean",
    "Variance": "var",
    "Skewness": "skew",
    "Energy": "energy",
    "RobustMeanAbsoluteDeviation": "rmad",
}


@pytest.mark.skipif(not PHANTOM.is_dir(), reason="reference data is absent; set COHORTIUM_REFERENCE_DATA")
def test_all_consensus_values_of_the_digital_phantom():
    """Radiology 295:328, 2020: all 482 values with a consensus, within tolerance or half a unit of the third digit."""
    settings = Settings(mode="ibsi", bin_width=1.0, classes=ibsi.FAMILIES)
    found = features_of(PHANTOM / "phantom.nii.gz", PHANTOM / "mask.nii.gz", settings)
    with (PHANTOM / "reference_values.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter=";") if row["reference value"]]
    assert len(rows) == len(found) == 482
    for row in rows:
        value, tolerance = float(row["reference value"]), float(row["tolerance"])
        rounding = 0.5001 * 10 ** (math.floor(math.log10(abs(value))) - 2) if value else 0.0
        assert found[row["tag"]] == pytest.approx(value, rel=0, abs=max(tolerance, rounding)), row["tag"]


def write(folder, seed=0, low=-80.0):
    shape = (9, 16, 18)
    image = sitk.GetImageFromArray(np.round(textured(seed, shape) + low))
    mask = sitk.GetImageFromArray(ball(shape, radius_mm=9.0).astype(np.uint8))
    for volume, name in ((image, "image.nrrd"), (mask, "mask.nrrd")):
        volume.SetSpacing((1.0, 1.5, 2.0))
        sitk.WriteImage(volume, folder / name)
    return folder / "image.nrrd", folder / "mask.nrrd"


CHAINS = {
    "A": {"resegment_range": (-500.0, 400.0), "bin_width": 25.0, "dimension": "2D"},
    "C": {"resegment_range": (-60.0, 30.0), "bin_width": 12.5, "dimension": "3D", "spacing_mm": (2.0, 2.0, 2.0)},
    "D": {"outlier_sigma": 2.0, "bin_count": 31, "dimension": "3D", "spacing_mm": (2.0, 2.0, 2.0)},
    "E": {
        "outlier_sigma": 2.0, "resegment_range": (-60.0, 30.0), "bin_count": 32, "dimension": "3D",
        "spacing_mm": (2.0, 2.0, 2.0), "interpolation": "cubic",
    },
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_texture_equals_pyradiomics_where_both_have_it(chain, tmp_path):
    found = features_of(*write(tmp_path), Settings(mode="ibsi", modality="CT", **CHAINS[chain]))
    directed, merged = ("2_5D_avg", "2_5D") if CHAINS[chain]["dimension"] == "2D" else ("3D_avg", "3D")
    pairs = {
        **{f"glcm_{name}": f"cm_{tag}_{directed}" for name, tag in GLCM.items()},
        **{f"glrlm_{name}": f"rlm_{tag}_{directed}" for name, tag in GLRLM.items()},
        **{f"glszm_{name}": f"szm_{tag}_{merged}" for name, tag in GLSZM.items()},
        **{f"gldm_{name}": f"ngl_{tag}_{merged}" for name, tag in GLDM.items()},
        **{f"ngtdm_{name}": f"ngt_{tag}_{merged}" for name, tag in NGTDM.items()},
        **{f"firstorder_{name}": f"stat_{tag}" for name, tag in FIRST.items()},
    }
    for name, tag in pairs.items():
        # pyradiomics adds 2e-16 to probabilities before their logarithm
        assert found[tag] == pytest.approx(found[f"original_{name}"], rel=1e-9, abs=1e-9), tag


def test_association_equals_the_sums_over_all_pairs():
    rng = np.random.default_rng(4)
    inside = rng.random((5, 6, 7)) < 0.5
    values, spacing = rng.normal(40, 9, inside.shape), np.array([2.0, 1.0, 1.5])
    levels = inside.astype(int)
    found = ibsi.measure(values, inside, inside, levels, spacing, families=("morph",))
    distance = cdist(np.argwhere(inside) * spacing, np.argwhere(inside) * spacing)
    np.fill_diagonal(distance, np.inf)
    weight, x = 1 / distance, values[inside]
    n, centred = len(x), x - x.mean()
    moran = n / weight.sum() * (weight * np.outer(centred, centred)).sum() / (centred**2).sum()
    geary = (n - 1) / (2 * weight.sum()) * (weight * (x[:, None] - x) ** 2).sum() / (centred**2).sum()
    assert found["morph_moran_i"] == pytest.approx(moran, rel=1e-9)
    assert found["morph_geary_c"] == pytest.approx(geary, rel=1e-9)


def test_peaks_equal_means_over_each_sphere():
    rng = np.random.default_rng(5)
    image, spacing = rng.normal(size=(9, 12, 13)), np.array([3.0, 2.0, 1.5])
    inside = np.zeros(image.shape, dtype=bool)
    inside[2:6, 1:7, 4:11] = True
    places = np.indices(image.shape).reshape(3, -1).T * spacing
    means = [
        image.ravel()[np.linalg.norm(places - at * spacing, axis=1) <= 6.2035].mean() for at in np.argwhere(inside)
    ]
    found = intensity.peaks(image, inside, spacing)
    assert found["loc_peak_glob"] == pytest.approx(max(means), abs=1e-10)
    assert found["loc_peak_loc"] == pytest.approx(means[int(image[inside].argmax())], abs=1e-10)


def test_area_of_an_ellipsoid_is_near_that_of_numerical_integration():
    a, b, c = 5.0, 3.0, 2.0
    theta, phi = np.meshgrid((np.arange(800) + 0.5) * np.pi / 800, (np.arange(800) + 0.5) * 2 * np.pi / 800)
    sine = np.sin(theta)
    element = sine * np.sqrt(
        (b * c * sine * np.cos(phi)) ** 2 + (a * c * sine * np.sin(phi)) ** 2 + (a * b * np.cos(theta)) ** 2
    )
    area = element.sum() * (np.pi / 800) * (2 * np.pi / 800)
    # The manual's eccentricities (both against the major axis) make its series an approximation, exact for a sphere
    assert morphology.ellipsoid_area(a, b, c) == pytest.approx(area, rel=0.04)
    assert morphology.ellipsoid_area(2.0, 2.0, 2.0) == pytest.approx(16 * np.pi)


def test_volume_histogram_of_whole_numbers_bins_and_counts():
    values = np.array([0.0, 0.0, 1.0, 5.0, 10.0])
    plain = intensity.volume_histogram(values, bounds=None, width=None, count=None)
    assert plain["ivh_v10"] == pytest.approx(3 / 5)  # at or above 1 of 0 to 10
    assert plain["ivh_v90"] == pytest.approx(1 / 5)
    assert plain["ivh_i10"] == 11.0  # a fifth is still at 10
    assert plain["ivh_i90"] == 1.0
    wide = intensity.volume_histogram(values, bounds=(-10.0, 10.0), width=None, count=None)
    assert wide["ivh_v10"] == 1.0
    binned = intensity.volume_histogram(values, bounds=(0.0, 10.0), width=2.5, count=None)
    assert binned["ivh_i90"] == 3.75  # the centre of the second bin


@pytest.mark.parametrize("box", [(1, 1, 2), (1, 3, 3), (2, 2, 2)])
def test_tiny_and_flat_regions_have_no_infinite_feature(box):
    inside = np.zeros((5, 6, 6), dtype=bool)
    inside[1 : 1 + box[0], 1 : 1 + box[1], 1 : 1 + box[2]] = True
    with np.errstate(all="ignore"):
        found = ibsi.measure(
            np.full(inside.shape, 3.0), inside, inside, inside.astype(int), np.ones(3), families=ibsi.FAMILIES
        )
    assert sorted(found) == sorted(ibsi.names(ibsi.FAMILIES, ("2D", "3D")))
    assert found["cm_joint_entr_3D_comb"] == 0
