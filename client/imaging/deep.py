"""Deep: embeddings of a frozen residual network (He et al., CVPR 2016) with weights that the study names.

The networks are MONAI's ResNets. In two dimensions they have torchvision's layout, in three that of MedicalNet (Chen,
Ma and Zheng, arXiv:1904.00625), so that weight files of either load as they are. Every picture goes through alone and
on one thread: its embedding is the same to the last bit whoever else is in the cohort.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from numpy.typing import NDArray

from cohortium.client.imaging.weights import WIDTH, State, load_strictly, read_weights, state_digest
from cohortium.common.errors import SiteError, StudyError
from cohortium.common.study_images import DeepFeatures
from cohortium.common.study_networks import WeightFile

LAYERS = {
    "resnet10": (ResNetBlock, (1, 1, 1, 1)),
    "resnet18": (ResNetBlock, (2, 2, 2, 2)),
    "resnet34": (ResNetBlock, (3, 4, 6, 3)),
    "resnet50": (ResNetBottleneck, (3, 4, 6, 3)),
    "resnet101": (ResNetBottleneck, (3, 4, 23, 3)),
}
ZERO_PADDED = ("resnet18", "resnet34")
"""MedicalNet's networks whose shortcuts pad with zeros (He's option A); the others convolve (B)."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen network and where its weights come from.

    Attributes
    ----------
    network : torch.nn.Module
        (1, channels, h, w) or (1, channels, d, h, w) to (1, features); in evaluation mode.
    volumetric : bool
        Whether it looks at volumes.
    sha256 : str
        Of the weight file; of the weights themselves where they are random.
    source : str
        ``"random"`` or the file's format.
    """

    network: torch.nn.Module
    volumetric: bool
    channels: int
    features: int
    sha256: str
    source: str

    def embed(self, picture: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
        """Pooled features, (features,), of a picture in -1..1.

        A square picture (n, n) is brought to `size` (rows, columns) and goes into all channels, one of (3, n, n) has a
        slice in each. A volume (d, h, w) has its size already.

        Raises
        ------
        StudyError
            The network has another number of channels than the picture has slices.
        """
        with torch.inference_mode(), one_thread():
            image = torch.from_numpy(np.ascontiguousarray(picture))[None]
            if self.volumetric:
                return self.network(image[None].expand(-1, self.channels, -1, -1, -1)).squeeze(0).numpy()
            image = image if picture.ndim == 3 else image[None]
            if image.shape[1] not in (1, self.channels):
                raise StudyError(
                    f"study.toml: slices = '2.5d': the network takes {self.channels} channel, not three; "
                    "use slices = 'largest' or other weights"
                )
            # Anti-aliased: a picture that is made smaller keeps its mean and does not alias texture
            image = torch.nn.functional.interpolate(
                image, size=size, mode="bilinear", align_corners=False, antialias=True
            )
            return self.network(image.expand(-1, self.channels, -1, -1)).squeeze(0).numpy()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread while the block runs: with two, sums of a convolution end 3e-5 apart."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_backbone(settings: DeepFeatures, *, seed: int, resolve: Callable[[str], Path]) -> Backbone:
    """The network of a feature set with its weights.

    Parameters
    ----------
    settings : DeepFeatures
    seed : int
        Seeds random weights (``study.seed``).
    resolve : callable
        Where a file named in the study lies (``Study.resolve``).

    Raises
    ------
    SiteError
        The file is missing, has another sha256, or does not fit the network; names missing and extra keys.
    """
    volumetric = settings.slices == "volume"
    if isinstance(settings.weights, WeightFile):
        file = resolve(settings.weights.file)
        state, width = read_weights(file, settings.weights.sha256, settings.weights.format)
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}  # the classifier
        channels = _channels(state, file, volumetric=volumetric)
        if volumetric:
            network = build_volumetric(settings.network, channels=channels, width=width, **_shortcuts(state))
        else:
            network = build(settings.network, channels=channels, width=width)
        load_strictly(network, state, file, settings.network)
        sha256, source = settings.weights.sha256, settings.weights.format
    else:
        channels, width = 1 if volumetric else 3, WIDTH
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_volumetric(settings.network) if volumetric else build(settings.network, channels=channels)
        sha256, source = state_digest(network.state_dict()), "random"
    network.requires_grad_(requires_grad=False).eval()
    features = 8 * width * LAYERS[settings.network][0].expansion
    return Backbone(
        network=network, volumetric=volumetric, channels=channels, features=features, sha256=sha256, source=source
    )


def build(name: str, *, channels: int, width: int = WIDTH) -> ResNet:
    """A two-dimensional ResNet in torchvision's layout, without its classifier, with MONAI's random initial weights."""
    return _resnet(name, 2, channels, width, shortcut_type="B", bias_downsample=False)


def build_volumetric(
    name: str, *, channels: int = 1, width: int = WIDTH, shortcut_type: str | None = None, bias_downsample: bool = False
) -> ResNet:
    """A three-dimensional ResNet without its classifier; its shortcuts are MedicalNet's unless others are asked for."""
    shortcut_type = shortcut_type or ("A" if name in ZERO_PADDED else "B")
    return _resnet(name, 3, channels, width, shortcut_type=shortcut_type, bias_downsample=bias_downsample)


def _resnet(name: str, spatial_dims: int, channels: int, width: int, **shortcuts: Any) -> ResNet:
    block, layers = LAYERS[name]
    return ResNet(
        block=block,
        layers=list(layers),
        block_inplanes=[width, 2 * width, 4 * width, 8 * width],
        spatial_dims=spatial_dims,
        n_input_channels=channels,
        conv1_t_stride=2,
        feed_forward=False,
        **shortcuts,
    )


def _shortcuts(state: State) -> dict[str, Any]:
    """How a network's shortcuts change size, by the names of its weights: MONAI's own networks differ in it."""
    return {
        "shortcut_type": "B" if any(".downsample." in name for name in state) else "A",
        "bias_downsample": any(name.endswith(".downsample.0.bias") for name in state),
    }


def _channels(state: State, file: Path, *, volumetric: bool) -> int:
    shape = state["conv1.weight"].shape if "conv1.weight" in state else torch.Size()
    if len(shape) != (5 if volumetric else 4) or shape[1] not in (1, 3):
        kind, sides = ("three", "7, 7, 7") if volumetric else ("two", "7, 7")
        raise SiteError(
            f"weight file {file}: conv1.weight has shape {tuple(shape)}; a {kind}-dimensional network of one or three "
            f"channels is needed, (width, 1 or 3, {sides})"
        )
    return shape[1]
