"""Normalise: the values of an image on the scale that the study asks for.

All scales are those of one image alone, so nothing has to be agreed on between sites, and all are taken from the
region's bounding box: how much of the body a scan shows around it makes no difference.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cohortium.client.imaging.region import bounding_box
from cohortium.common.errors import CaseError
from cohortium.common.study_images import Image

Array = NDArray[np.float64]

LANDMARKS = np.array([1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99])
"""Percentiles of Nyul, Udupa and Zhang (IEEE Trans Med Imaging 19:143, 2000)."""


def normalise(values: Array, inside: NDArray[np.bool_], image: Image) -> Array:
    """Values on the study's scale.

    Parameters
    ----------
    values, inside : (z, y, x)
    image : Image
        ``window_hu`` clips; ``normalise`` is ``none``, ``zscore`` or ``histogram``.

    Raises
    ------
    CaseError
        The image has one value only around the region, so it has no scale.
    """
    if image.window_hu is not None:
        return np.clip(values, *image.window_hu)
    if image.normalise == "none":
        return values
    around = values[bounding_box(inside)]
    if around.min() == around.max():
        raise CaseError("image has one value only around the region")
    return zscore(values, around) if image.normalise == "zscore" else match_landmarks(values, around)


def zscore(values: Array, around: Array) -> Array:
    """Values in standard deviations from the mean of `around`."""
    return (values - around.mean()) / around.std()


def match_landmarks(values: Array, around: Array) -> Array:
    """Piecewise linear map that brings percentiles of `around` to those of a standard normal variable.

    The landmark method of Nyul et al. with a fixed standard scale, which needs no training images. Beyond the first and
    last landmark the outermost pieces go on.
    """
    landmarks, first = np.unique(np.percentile(around, LANDMARKS), return_index=True)
    if len(landmarks) < 2:
        return zscore(values, around)
    standard = special.ndtri(LANDMARKS / 100)[first]
    mapped = np.interp(values, landmarks, standard)
    slope = np.diff(standard) / np.diff(landmarks)
    below, above = values < landmarks[0], values > landmarks[-1]
    mapped[below] = standard[0] + (values[below] - landmarks[0]) * slope[0]
    mapped[above] = standard[-1] + (values[above] - landmarks[-1]) * slope[-1]
    return mapped
