"""Segment: a region drawn by a network of MONAI whose weights the study names, on the grid of the image.

The network sees what MONAI's training scripts show it: the image oriented to right, anterior, superior with axes
x, y, z, at the spacing that it was trained for. Windows overlap by a quarter and are blended by Gaussian weights.

Back on the image's own grid a voxel is inside where the class's probability, less the largest of the others, is above
zero after linear interpolation. On equal grids that is the largest of all (argmax), for two classes it is one half as
nnU-Net has it, and unlike the nearest class of a coarser grid it leaves no steps on the surface, which shape features
would measure.
"""

from collections.abc import Sequence
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
import torch
from monai.inferers.utils import sliding_window_inference
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray

from cohortium.client.imaging.deep import one_thread
from cohortium.client.imaging.normalise import zscore
from cohortium.client.imaging.region import bounding_box
from cohortium.client.imaging.resample import regrid
from cohortium.client.imaging.weights import load_strictly, read_weights
from cohortium.common.errors import CaseError, StudyError
from cohortium.common.study_networks import DynUNetRegion, ModelRegion, SegResNetRegion, UNetRegion

OVERLAP = 0.25
"""Of neighbouring windows along an axis."""
SUPERVISION = ("deep_supervision_heads.", ".super_head.")
"""In names of DynUNet's weights that only training looks at."""


def load_segmenter(settings: ModelRegion, file: Path) -> torch.nn.Module:
    """The network of a region with its weights, in evaluation mode.

    Raises
    ------
    SiteError
        The file is missing, has another sha256, or does not fit the network; names missing and extra keys.
    """
    state, _ = read_weights(file, settings.weights.sha256, settings.weights.format)
    state = {name: value for name, value in state.items() if not any(part in name for part in SUPERVISION)}
    network = build_segmenter(settings)
    load_strictly(network, state, file, f"this {type(network).__name__}")
    return network.requires_grad_(requires_grad=False).eval()


def build_segmenter(settings: ModelRegion) -> torch.nn.Module:
    """The network that a study describes, with MONAI's random initial weights: (n, 1, x, y, z) to (n, classes, ...)."""
    axes, image, classes = 3, 1, settings.classes
    with torch.random.fork_rng(devices=[]):
        match settings:
            case UNetRegion():
                return UNet(
                    axes, image, classes, settings.channels,
                    settings.strides,  # pyright: ignore[reportArgumentType] # three numbers a level will do as well
                    num_res_units=settings.residual_units, norm=settings.norm,
                )  # fmt: skip
            case DynUNetRegion():
                return DynUNet(
                    axes, image, classes, settings.kernels, settings.strides, settings.strides[1:],
                    filters=settings.channels, res_block=settings.residual,
                )  # fmt: skip
            case SegResNetRegion():
                return SegResNet(
                    axes, settings.channels, image, classes,
                    blocks_down=settings.blocks_down, blocks_up=settings.blocks_up,
                )  # fmt: skip
    raise StudyError(f"study.toml: source = 'model': no such network: {settings}")


def segment(volume: sitk.Image, network: torch.nn.Module, *regions: ModelRegion) -> list[sitk.Image]:
    """Regions on an image's own grid, 1 inside (uint8); nothing inside where the network finds none.

    On one thread: the same image gives the same voxels, whatever else the machine does.

    Parameters
    ----------
    regions : ModelRegion
        Of one network, which runs once: all that they differ in is `label` and `keep`.

    Raises
    ------
    CaseError
        The image has one value only, so it has no scale.
    """
    seen = regrid(sitk.DICOMOrient(volume, "RAS"), regions[0].spacing_mm)
    found = []
    for values, settings in zip(_leads(_scaled(seen, regions[0]), network, regions), regions, strict=True):
        lead = sitk.GetImageFromArray(values.transpose(2, 1, 0))
        lead.CopyInformation(seen)
        back = sitk.Resample(lead, volume, sitk.Transform(), sitk.sitkLinear, -1.0, sitk.sitkFloat32)
        inside = sitk.GetArrayViewFromImage(back) > 0
        if settings.keep == "largest" and inside.any():
            inside = largest_component(inside)
        region = sitk.GetImageFromArray(inside.astype(np.uint8))
        region.CopyInformation(volume)
        found.append(region)
    return found


def largest_component(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest piece that hangs together by faces, edges or corners; of two equal ones the first."""
    box = bounding_box(inside)
    pieces = cc3d.connected_components(inside[box], connectivity=26)
    kept = np.zeros_like(inside)
    kept[box] = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return kept


def _scaled(seen: sitk.Image, settings: ModelRegion) -> NDArray[np.float32]:
    """Values as the network was trained to see them, (x, y, z)."""
    values = sitk.GetArrayViewFromImage(seen).transpose(2, 1, 0).astype(np.float64)
    if settings.window_hu is not None:
        values = np.interp(values, settings.window_hu, settings.window_to)
    elif settings.normalise == "zscore":
        if values.min() == values.max():
            raise CaseError("image has one value only")
        values = zscore(values, values)
    return np.ascontiguousarray(values, dtype=np.float32)


def _leads(
    values: NDArray[np.float32], network: torch.nn.Module, regions: Sequence[ModelRegion]
) -> list[NDArray[np.float32]]:
    """By how much each class's probability exceeds the largest of the others, -1..1, at each voxel."""
    with torch.inference_mode(), one_thread():
        logits = sliding_window_inference(
            torch.from_numpy(values)[None, None],
            roi_size=regions[0].patch,
            sw_batch_size=1,
            predictor=network,
            overlap=OVERLAP,
            mode="gaussian",
        )
        assert isinstance(logits, torch.Tensor)  # our networks give one output
        # Softmax in place: all classes of a whole image are held once
        classes = logits[0].sub_(logits[0].amax(dim=0)).exp_()
        total, leads = classes.sum(dim=0), []
        for settings in regions:
            own = classes[settings.label].clone()
            classes[settings.label] = 0
            leads.append(((own - classes.amax(dim=0)) / total).numpy())
            classes[settings.label] = own
        return leads
