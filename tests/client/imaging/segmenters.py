"""Segmentation networks for the tests: one whose weights are set by hand, so that what it draws is known."""

import hashlib
from pathlib import Path

import torch

from cohortium.client.imaging.segment import build_segmenter
from cohortium.common.study_networks import UNetRegion

STEEP = 200.0
NETWORK = {
    "source": "model", "image": "ct", "network": "unet", "channels": (1, 1), "strides": (1,), "norm": "batch",
    "window_hu": (-100.0, 300.0), "patch": (8, 8, 8),
}  # fmt: skip


def thresholding(file: Path, above: float, **given) -> dict:
    """[region.NAME] of a UNet that finds what is brighter than `above` (HU); writes its weights.

    The path from image to output is a single weight, everything else is zero.
    """
    tables = {**NETWORK, "weights": {"file": file.name, "sha256": "0" * 64}, **given}
    network = build_segmenter(UNetRegion(**tables))
    state = network.state_dict()
    for name, value in state.items():
        value.zero_()
        if name.endswith("running_var"):
            value.fill_(1 - 1e-5)  # the normalisation adds 1e-5
        elif name.endswith(("adn.N.weight", "adn.A.weight")):
            value.fill_(1.0)
    low, high = tables["window_hu"]
    state["model.0.conv.weight"][0, 0, 1, 1, 1] = 1.0
    state["model.2.conv.weight"][0, 1, 1, 1, 1] = STEEP
    state["model.2.conv.bias"][1] = -STEEP * (above - low) / (high - low)
    torch.save({"state_dict": state}, file)
    return {**tables, "weights": {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}}
