"""Scanner: what a site's machine and protocol make of a patient, so that sites differ as real ones do."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cohortium.simulation.synthetic_grid import Field, Grid
from cohortium.simulation.synthetic_plan import Scanner

HU_RANGE = (-1024, 3071)
"""What a 12-bit CT stores."""


def scan(hu: Field, grid: Grid, scanner: Scanner, rng: np.random.Generator) -> NDArray[np.int16]:
    """Image of a patient: blurred, noisy, shifted, in whole HU.

    A blurring reconstruction also correlates its noise, so the sharper site differs in noise texture, not in variance
    alone. The noise of every site has the standard deviation `noise_hu`.
    """
    image = hu
    if scanner.blur_mm:
        image = ndimage.gaussian_filter(image, [0.0, *(scanner.blur_mm / step for step in grid.spacing_mm[1:])])
    if scanner.slice_mm:
        # a rectangular slice profile of this width has the standard deviation width / sqrt(12)
        image = ndimage.gaussian_filter1d(image, scanner.slice_mm / np.sqrt(12) / grid.spacing_mm[0], axis=0)
    noise = grid.texture("noise", rng)
    if scanner.blur_mm:
        noise = 0.6 * noise + 0.8 * grid.texture("fine", rng)
    image = image + (scanner.noise_hu * noise + scanner.shift_hu)
    return np.clip(np.rint(image), *HU_RANGE).astype(np.int16)
