"""Three-dimensional networks: MONAI's own forward, MedicalNet's names, and what a network sees of a region."""

import hashlib

import monai.networks.nets as nets
import numpy as np
import pytest
import torch
from monai.networks.nets.resnet import get_medicalnet_pretrained_resnet_args
from pydantic import ValidationError

from cohortium.client.imaging.deep import build_volumetric, load_backbone
from cohortium.client.imaging.slices import volume
from cohortium.client.imaging.weights import state_digest, write_weights
from cohortium.common.errors import SiteError
from cohortium.common.study_images import DeepFeatures, Image
from cohortium.common.study_networks import WeightFile
from tests.client.imaging.volumes import ball, textured

SIZE = (20, 24, 28)


def settings(network="resnet10", **given):
    tables = {"kind": "deep", "images": ("ct",), "regions": ("tumour",), "slices": "volume", "size": SIZE}
    return DeepFeatures(**{**tables, "network": network, **given})


def monais(network, seed=0):
    """MONAI's network as it wants to be built for MedicalNet's weights, with other weights than at its start."""
    bias, shortcut = get_medicalnet_pretrained_resnet_args(int(network.removeprefix("resnet")))
    torch.manual_seed(seed)
    made = getattr(nets, network)(
        spatial_dims=3, n_input_channels=1, conv1_t_stride=2, shortcut_type=shortcut, bias_downsample=bias,
        feed_forward=False,
    )  # fmt: skip
    for name, value in made.state_dict().items():
        if "bn" in name and "num" not in name:
            value.uniform_(0.5, 1.5)
    return made.eval()


def saved(folder, state, **weights):
    torch.save(state, folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    return WeightFile(**{"file": "w.pth", "sha256": digest, "format": "medicalnet", **weights})


def load(folder, weights, network="resnet10"):
    return load_backbone(settings(network, weights=weights), seed=7, resolve=lambda name: folder / name)


@pytest.mark.parametrize("network", ["resnet10", "resnet18"])  # shortcuts that convolve, and that pad with zeros
def test_a_medicalnet_file_gives_monais_forward(tmp_path, network):
    theirs = monais(network)
    state = {"state_dict": {f"module.{key}": value for key, value in theirs.state_dict().items()}}
    backbone = load(tmp_path, saved(tmp_path, state), network)
    seen = np.random.default_rng(1).uniform(-1, 1, SIZE).astype(np.float32)
    with torch.inference_mode():
        wanted = theirs(torch.from_numpy(seen)[None, None]).squeeze(0).numpy()
    assert wanted.shape == (512,) == (backbone.features,)
    np.testing.assert_allclose(backbone.embed(seen, SIZE), wanted, rtol=1e-5, atol=1e-6)  # float32, threads
    assert np.array_equal(backbone.embed(seen, SIZE), backbone.embed(seen, SIZE))


def test_a_network_of_monais_own_shortcuts(tmp_path):
    theirs = nets.resnet10(spatial_dims=3, n_input_channels=1, conv1_t_stride=2, num_classes=3)  # biases, a classifier
    backbone = load(tmp_path, saved(tmp_path, theirs.state_dict(), format="monai"))
    kept = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert state_digest(backbone.network.state_dict()) == state_digest(kept)


@pytest.mark.parametrize("network", ["resnet10", "resnet18", "resnet34", "resnet50"])
def test_random_networks_are_built_as_medicalnets(network):
    torch.manual_seed(3)
    ours = build_volumetric(network).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in monais(network).state_dict().items()
    }


def test_random_weights_are_the_seeds(tmp_path):
    one, again = (load_backbone(settings(), seed=seed, resolve=lambda name: tmp_path / name) for seed in (7, 7))
    assert one.sha256 == again.sha256
    assert (one.channels, one.source) == (1, "random")


def test_a_small_network_of_our_own_format(tmp_path):
    network = build_volumetric("resnet10", width=8)
    sha256 = write_weights(tmp_path / "small.npz", network, name="resnet10", width=8)
    backbone = load(tmp_path, WeightFile(file="small.npz", sha256=sha256, format="cohortium"))
    assert backbone.features == 64
    assert backbone.embed(np.zeros(SIZE, dtype=np.float32), SIZE).shape == (64,)


def test_what_does_not_fit_is_refused(tmp_path):
    state = monais("resnet10").state_dict()
    with pytest.raises(SiteError, match=r"does not fit resnet18 \(missing keys: layer1\.1\.bn1"):
        load(tmp_path, saved(tmp_path, state), "resnet18")
    with pytest.raises(SiteError, match="sha256 is"):
        load(tmp_path, saved(tmp_path, state, sha256="0" * 64))
    flat = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    with pytest.raises(SiteError, match="a three-dimensional network of one or three channels is needed"):
        load(tmp_path, saved(tmp_path, flat))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size": (32, 32)}, r"needs \[d, h, w\]"),
        ({"slices": "largest"}, r"needs \[rows, columns\]"),
        ({"size": (512, 512, 512)}, "take fewer"),
        ({"weights": {"file": "w", "sha256": "0" * 64, "format": "torchvision"}}, "a volume takes medicalnet or monai"),
    ],
)
def test_keys_that_do_not_go_together(given, says):
    with pytest.raises(ValidationError, match=says):
        settings(**given)


def test_the_whole_region_is_cropped_padded_and_resized_as_torch_does():
    values, inside = textured(0), ball(radius_mm=7.0)
    image = Image(modality="CT", window_hu=(-100.0, 200.0))
    box = tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(inside))
    scaled = np.clip((values[box] + 100) / 300, 0, 1) * 2 - 1
    side = max(scaled.shape)
    pad = [((side - n) // 2, side - n - (side - n) // 2) for n in scaled.shape]
    cube = np.pad(scaled, pad, constant_values=-1)
    assert np.array_equal(volume(values, inside, image, (side,) * 3), cube.astype(np.float32))
    larger = torch.nn.functional.interpolate(
        torch.from_numpy(cube)[None, None], size=(32, 24, 20), mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(volume(values, inside, image, (32, 24, 20)), larger[0, 0].numpy(), atol=1e-6)
    smaller = torch.nn.functional.interpolate(  # torch smooths where it shrinks in two dimensions only
        torch.from_numpy(cube)[None], size=(5, 6), mode="bilinear", align_corners=False, antialias=True
    )
    found = volume(values, inside, image, (side, 5, 6))
    np.testing.assert_allclose(found, smaller[0].numpy(), atol=1e-6)
    assert found.dtype == np.float32
