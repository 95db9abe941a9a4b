import hashlib

import numpy as np
import pytest
import torch

from cohortium.client.imaging.deep import build, load_backbone
from cohortium.client.imaging.slices import largest_slice, square
from cohortium.client.imaging.weights import state_digest, write_weights
from cohortium.common.errors import SiteError
from cohortium.common.study_images import DeepFeatures, Image
from cohortium.common.study_networks import WeightFile
from tests.client.imaging.volumes import ball, textured

# Parameters with the classifier of 1,000 classes, as torchvision's documentation of models lists them
TORCHVISION_PARAMETERS = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def settings(network="resnet10", **given):
    return DeepFeatures(kind="deep", images=("ct",), regions=("tumour",), network=network, size=(32, 32), **given)


def picture(seed=0, side=21):
    return np.random.default_rng(seed).uniform(-1, 1, (side, side)).astype(np.float32)


def load(network="resnet10", *, seed=7, folder=None, **weights):
    wanted = settings(network, weights=WeightFile(**weights)) if weights else settings(network)
    return load_backbone(wanted, seed=seed, resolve=lambda name: folder / name)


def torchvision_keys(network):
    """Keys of torchvision's models, from the structure its source gives them."""
    convolutions = 3 if network == "resnet50" else 2
    normal = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys = {"conv1.weight", *(f"bn1.{part}" for part in normal)}
    for layer, blocks in enumerate(BLOCKS[network], start=1):
        for block in range(blocks):
            here = f"layer{layer}.{block}"
            for i in range(1, convolutions + 1):
                keys |= {f"{here}.conv{i}.weight", *(f"{here}.bn{i}.{part}" for part in normal)}
            if block == 0 and (layer > 1 or network == "resnet50"):
                keys |= {f"{here}.downsample.0.weight", *(f"{here}.downsample.1.{part}" for part in normal)}
    return keys


@pytest.mark.parametrize("network", list(BLOCKS))
def test_networks_have_torchvisions_keys_and_size(network):
    built = build(network, channels=3)
    assert set(built.state_dict()) == torchvision_keys(network)
    features = 2048 if network == "resnet50" else 512
    parameters = sum(p.numel() for p in built.parameters()) + (features + 1) * 1000
    assert parameters == TORCHVISION_PARAMETERS[network]


def test_random_weights_are_the_seeds_and_leave_the_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again, other = load(), load(), load(seed=8)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.sha256 == again.sha256 == state_digest(again.network.state_dict())
    assert one.sha256 != other.sha256
    assert np.array_equal(one.embed(picture(), (32, 32)), again.embed(picture(), (32, 32)))
    assert one.source == "random"


def test_an_embedding_is_the_same_with_any_number_of_threads():
    backbone, before = load(), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(backbone.embed(picture(), (32, 32)))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert np.array_equal(*found)
    assert found[0].shape == (512,) == (backbone.features,)
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert not backbone.network.training


def test_a_small_network_of_our_own_format(tmp_path):
    network = build("resnet10", channels=1, width=8)
    sha256 = write_weights(tmp_path / "small.npz", network, name="resnet10", width=8)
    loaded = load(folder=tmp_path, file="small.npz", sha256=sha256, format="cohortium")
    assert loaded.features == 64
    assert loaded.sha256 == sha256
    assert state_digest(loaded.network.state_dict()) == state_digest(network.state_dict())


@pytest.mark.parametrize("layout", ["torchvision", "monai", "medicalnet", "radimagenet"])
def test_weight_files_of_other_projects(tmp_path, layout):
    state = build("resnet10", channels=3).state_dict()
    renamed = {
        "torchvision": state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
        "monai": {"state_dict": state},
        "medicalnet": {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        "radimagenet": {radimagenet(key): value for key, value in state.items()},
    }[layout]
    torch.save(renamed, tmp_path / "weights.pt")
    sha256 = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
    loaded = load(folder=tmp_path, file="weights.pt", sha256=sha256, format=layout)
    assert state_digest(loaded.network.state_dict()) == state_digest(state)


def radimagenet(key):
    first, rest = key.split(".", 1)
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    return f"backbone.{numbers[first]}.{rest}"


def test_weights_that_do_not_fit_are_refused_with_their_keys(tmp_path):
    state = build("resnet10", channels=3).state_dict()
    del state["layer1.0.conv1.weight"]
    state["head.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "weights.pt")
    sha256 = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
    with pytest.raises(SiteError, match=r"missing keys: layer1\.0\.conv1\.weight; extra keys: head\.weight"):
        load(folder=tmp_path, file="weights.pt", sha256=sha256)
    with pytest.raises(SiteError, match="does not fit resnet50"):
        load("resnet50", folder=tmp_path, file="weights.pt", sha256=sha256)
    with pytest.raises(SiteError, match="sha256 is"):
        load(folder=tmp_path, file="weights.pt", sha256="0" * 64)
    with pytest.raises(SiteError, match="No such file"):
        load(folder=tmp_path, file="nowhere.pt", sha256=sha256)


def test_a_file_that_would_run_code_is_not_loaded(tmp_path):
    class Payload:
        def __reduce__(self):
            return (eval, ("1/0",))

    torch.save({"conv1.weight": Payload()}, tmp_path / "weights.pt")
    sha256 = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
    with pytest.raises(SiteError, match="cannot be read as format"):
        load(folder=tmp_path, file="weights.pt", sha256=sha256)


def test_the_largest_slice_is_cropped_and_squared():
    inside = np.zeros((6, 20, 24), dtype=bool)
    inside[2, 5:9, 4:14] = True
    inside[4, 1:3, 1:3] = True
    values = textured(0, inside.shape)
    values[2, 5, 4], values[2, 5, 5] = -500.0, 900.0
    shown = largest_slice(values, inside, Image(modality="CT", window_hu=(-100.0, 200.0)))
    assert shown.shape == (10, 10)
    assert shown.dtype == np.float32
    assert shown[3:7].min() == shown[3, 0] == -1
    assert shown[3, 1] == 1
    assert shown[3:7, 5] == pytest.approx((values[2, 5:9, 9] + 100) / 300 * 2 - 1, abs=1e-6)
    assert (shown[:3] == -1).all()
    assert (shown[7:] == -1).all()


def test_scales_of_mr_and_pet():
    inside = ball()
    values = (textured(1) - 50) / 30
    shown = largest_slice(values, inside, Image(modality="MR", normalise="zscore"))
    assert shown.min() >= -1
    assert shown.max() <= 1
    shown = largest_slice(textured(1), inside, Image(modality="PET"))
    assert shown.min() >= -1
    assert shown.max() <= 1
    assert (largest_slice(np.ones(inside.shape), inside, Image(modality="PET")) == 0).any()


def test_an_odd_pixel_of_padding_goes_to_the_end():
    assert square(np.ones((2, 5)))[:, 0].tolist() == [-1, 1, 1, -1, -1]
