"""Deep: embeddings of a frozen residual network (He et al., CVPR 2016) with weights that the study names.

The network is MONAI's two-dimensional ResNet in torchvision's layout, so torchvision's weight files load as they are.
Every picture goes through alone and on one thread: its embedding is the same to the last bit whoever else is in the
cohort.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from numpy.typing import NDArray

from cohortium.common.errors import SiteError, StudyError
from cohortium.common.study_images import DeepFeatures, WeightFile

State = dict[str, torch.Tensor]

LAYERS = {
    "resnet10": (ResNetBlock, (1, 1, 1, 1)),
    "resnet18": (ResNetBlock, (2, 2, 2, 2)),
    "resnet34": (ResNetBlock, (3, 4, 6, 3)),
    "resnet50": (ResNetBottleneck, (3, 4, 6, 3)),
    "resnet101": (ResNetBottleneck, (3, 4, 23, 3)),
}
WIDTH = 64  # channels of the first stage in the published networks
RADIMAGENET = {"0.": "conv1.", "1.": "bn1.", "4.": "layer1.", "5.": "layer2.", "6.": "layer3.", "7.": "layer4."}


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen network and where its weights come from.

    Attributes
    ----------
    network : torch.nn.Module
        (1, channels, h, w) to (1, features); in evaluation mode.
    sha256 : str
        Of the weight file; of the weights themselves where they are random.
    source : str
        ``"random"`` or the file's format.
    """

    network: torch.nn.Module
    channels: int
    features: int
    sha256: str
    source: str

    def embed(self, picture: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """Pooled features, (features,), of a square picture in -1..1 brought to `size` (rows, columns).

        A picture (n, n) goes into all channels, one of (3, n, n) has a slice in each.

        Raises
        ------
        StudyError
            The network has another number of channels than the picture has slices.
        """
        with torch.inference_mode(), one_thread():
            image = torch.from_numpy(np.ascontiguousarray(picture))[None]
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
    if isinstance(settings.weights, WeightFile):
        file = resolve(settings.weights.file)
        data = _checked_bytes(file, settings.weights.sha256)
        state, width = read_weights(file, data, settings.weights.format)
        channels = _channels(state, file)
        network = build(settings.network, channels=channels, width=width)
        _load_strictly(network, state, file, settings.network)
        sha256, source = settings.weights.sha256, settings.weights.format
    else:
        channels, width = 3, WIDTH
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(settings.network, channels=channels, width=width)
        sha256, source = state_digest(network.state_dict()), "random"
    network.requires_grad_(requires_grad=False).eval()
    features = 8 * width * LAYERS[settings.network][0].expansion
    return Backbone(network=network, channels=channels, features=features, sha256=sha256, source=source)


def build(name: str, *, channels: int, width: int = WIDTH) -> ResNet:
    """A two-dimensional ResNet in torchvision's layout, without its classifier, with MONAI's random initial weights."""
    block, layers = LAYERS[name]
    return ResNet(
        block=block,
        layers=list(layers),
        block_inplanes=[width, 2 * width, 4 * width, 8 * width],
        spatial_dims=2,
        n_input_channels=channels,
        conv1_t_stride=2,
        shortcut_type="B",
        bias_downsample=False,
        feed_forward=False,
    )


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 of weights: names, types, shapes and bytes in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.asarray(state[name].numpy(), order="C")
        digest.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# --- weight files ---------------------------------------------------------------------------------------------


def write_weights(path: Path, network: torch.nn.Module, *, name: str, width: int) -> str:
    """Write a network's weights in format ``cohortium`` (npz of arrays, `config` as JSON); returns its sha256."""
    config = json.dumps({"network": name, "width": width}, sort_keys=True)
    arrays = {key: value.numpy() for key, value in sorted(network.state_dict().items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(stream, config=np.array(config), **arrays)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_weights(file: Path, data: bytes, layout: str) -> tuple[State, int]:
    """Weights by torchvision's names, without the classifier, and the width of the first stage.

    Nothing of the file is executed: npz without pickles, torch files with ``weights_only``.
    """
    try:
        if layout == "cohortium":
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                config = json.loads(str(arrays["config"]))
                state = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "config"}
            return _without_classifier(state), int(config["width"])
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        # Checkpoints of training scripts wrap the weights once more
        state = state.get("state_dict", state)
        state = {_torchvision_name(key, layout): value for key, value in state.items()}
        return _without_classifier(state), WIDTH
    except Exception as broken:  # a reader of arbitrary bytes fails in arbitrary ways
        raise SiteError(
            f"weight file {file}: cannot be read as format {layout!r} ({type(broken).__name__}); "
            "ask the coordinator for the file and its format"
        ) from broken


def _torchvision_name(key: str, layout: str) -> str:
    key = key.removeprefix("module.")
    if layout == "radimagenet":
        key = key.removeprefix("backbone.")
        for prefix, name in RADIMAGENET.items():
            if key.startswith(prefix):
                return name + key.removeprefix(prefix)
    return key


def _without_classifier(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def _checked_bytes(file: Path, sha256: str) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as broken:
        raise SiteError(
            f"weight file {file}: {broken.strerror}; put the file that the study names there, readable"
        ) from broken
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise SiteError(f"weight file {file}: sha256 is {found}, the study says {sha256}; get the file again")
    return data


def _channels(state: State, file: Path) -> int:
    shape = tuple(state["conv1.weight"].shape) if "conv1.weight" in state else ()
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise SiteError(
            f"weight file {file}: conv1.weight has shape {shape}; a two-dimensional network of one or three channels "
            "is needed, (width, 1 or 3, 7, 7)"
        )
    return shape[1]


def _load_strictly(network: torch.nn.Module, state: State, file: Path, name: str) -> None:
    wanted = network.state_dict()
    # Batch counters play no part in evaluation and old files lack them
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - state.keys() - counters)
    extra = sorted(state.keys() - wanted.keys())
    other = sorted(key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape)
    if missing or extra or other:
        found = [f"{what}: {_listed(keys)}" for what, keys in _mismatches(missing, extra, other) if keys]
        raise SiteError(f"weight file {file} does not fit {name} ({'; '.join(found)}); correct network or format")
    network.load_state_dict({**{key: wanted[key] for key in counters}, **state}, strict=True)


def _mismatches(missing: list[str], extra: list[str], other: list[str]) -> list[tuple[str, list[str]]]:
    return [("missing keys", missing), ("extra keys", extra), ("keys of another shape", other)]


def _listed(keys: list[str]) -> str:
    shown = ", ".join(keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"
