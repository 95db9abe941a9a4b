"""Regions drawn by networks: known by construction, equal to MONAI's own inference, refused where they do not fit."""

import hashlib

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.inferers import sliding_window_inference
from pydantic import TypeAdapter, ValidationError

from cohortium.client.imaging.segment import build_segmenter, largest_component, load_segmenter, segment
from cohortium.common.errors import CaseError, SiteError
from cohortium.common.study_networks import NetworkRegion, UNetRegion
from tests.client.imaging.segmenters import thresholding
from tests.client.imaging.volumes import ball, make, textured

COMMON = {"source": "model", "image": "ct", "weights": {"file": "w.pt", "sha256": "0" * 64}}
UNET = {
    "network": "unet", "channels": (4, 8, 16), "strides": ((2, 2, 1), 2), "residual_units": 1, "patch": (16, 12, 8)
}  # fmt: skip
DYNUNET = {
    "network": "dynunet", "channels": (4, 8, 8), "strides": (1, 2, (2, 2, 1)), "kernels": (3, (3, 3, 1), 3),
    "patch": (16, 12, 8),
}  # fmt: skip
SEGRESNET = {"network": "segresnet", "channels": 8, "blocks_down": (1, 1), "blocks_up": (1,), "patch": (16, 12, 8)}


def region(tables):
    return TypeAdapter(NetworkRegion).validate_python({**COMMON, **tables})


def saved(folder, network, settings):
    """A network's weights as a file, and the region that names it."""
    torch.save(network.state_dict(), folder / "w.pt")
    digest = hashlib.sha256((folder / "w.pt").read_bytes()).hexdigest()
    return settings.model_copy(update={"weights": settings.weights.model_copy(update={"sha256": digest})})


def drawn(folder, volume, above=100.0, **given):
    settings = UNetRegion(**thresholding(folder / "w.pt", above, **given))
    return sitk.GetArrayFromImage(segment(volume, load_segmenter(settings, folder / "w.pt"), settings)[0]) == 1


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def bright_ball(shape=(20, 28, 30), spacing=(1.0, 1.5, 2.0), radius_mm=12.0):
    """A ball of 200 HU in -50 HU with a little noise, and where it is."""
    inside = ball(shape, radius_mm, spacing)
    return make(np.where(inside, 200.0, -50.0) + np.random.default_rng(0).normal(0, 10, shape), spacing), inside


@pytest.mark.parametrize("patch", [(8, 8, 8), (12, 8, 4), (32, 32, 32)])  # smaller than the image, and larger
def test_a_network_that_compares_with_a_threshold_draws_what_is_above_it(tmp_path, patch):
    values = textured(0)
    assert np.array_equal(drawn(tmp_path, make(values), keep="all", patch=patch), values > 100)


def test_the_largest_piece_is_kept(tmp_path):
    shape = (14, 20, 24)
    small, large = ball(shape, 4, centre=(4, 5, 5)), ball(shape, 6, centre=(8, 13, 16))
    volume = make(np.where(small | large, 200.0, 0.0))
    assert np.array_equal(drawn(tmp_path, volume), large)
    assert np.array_equal(drawn(tmp_path, volume, keep="all"), small | large)
    corners = np.zeros((3, 3, 3), dtype=bool)
    corners[0, 0, 0] = corners[1, 1, 1] = corners[2, 2, 2] = True
    assert largest_component(corners).sum() == 3


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR", "PIR"])
def test_how_the_scanner_stored_the_image_makes_no_difference(tmp_path, orientation):
    settings = region({**UNET, "keep": "all", "normalise": "zscore"})
    torch.manual_seed(4)
    network = build_segmenter(settings).eval()
    volume = make(textured(1))
    drawn_here = sitk.GetArrayFromImage(segment(volume, network, settings)[0])
    [there] = segment(sitk.DICOMOrient(volume, orientation), network, settings)
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(there, "LPS"))
    assert np.array_equal(back, drawn_here)
    turned = sitk.Image(volume)
    turned.SetDirection(sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.3).GetMatrix())  # a tilted stack of slices
    assert np.array_equal(sitk.GetArrayFromImage(segment(turned, network, settings)[0]), drawn_here)
    assert 0.02 < back.mean() < 0.98


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0), (3.0, 3.0, 3.0)])
def test_dice_with_the_truth_at_the_networks_spacing(tmp_path, spacing):
    volume, inside = bright_ball()
    found = drawn(tmp_path, volume, above=75.0, spacing_mm=spacing)
    assert dice(found, inside) >= {None: 1.0, (2.0, 2.0, 2.0): 0.96, (3.0, 3.0, 3.0): 0.93}[spacing]


def test_a_network_that_was_trained_finds_what_no_threshold_does(tmp_path):
    shape, rng = (24, 24, 24), np.random.default_rng(0)

    def case():
        inside = ball(shape, rng.uniform(5, 9), (1.0, 1.0, 1.0), rng.uniform(9, 15, 3))
        return np.where(inside, 60.0, 0.0) + rng.normal(0, 60, shape), inside

    settings = region(
        {
            "network": "unet",
            "channels": (8, 16),
            "strides": (2,),
            "norm": "batch",
            "patch": shape,
            "normalise": "zscore",
        }
    )
    torch.manual_seed(0)
    network = build_segmenter(settings)
    steps = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(30):
        values, inside = case()
        seen = torch.from_numpy(((values - values.mean()) / values.std()).astype(np.float32))[None, None]
        loss = torch.nn.functional.cross_entropy(network(seen), torch.from_numpy(inside[None].astype(np.int64)))
        steps.zero_grad()
        loss.backward()
        steps.step()
    settings = saved(tmp_path, network, settings)
    loaded = load_segmenter(settings, tmp_path / "w.pt")
    for values, inside in (case() for _ in range(5)):
        found = sitk.GetArrayFromImage(segment(make(values, (1.0, 1.0, 1.0)), loaded, settings)[0]) == 1
        assert dice(found, inside) > 0.8
        assert max(dice(values > threshold, inside) for threshold in range(0, 200, 10)) < 0.5


@pytest.mark.parametrize("tables", [UNET, DYNUNET, SEGRESNET], ids=lambda tables: tables["network"])
def test_a_region_is_that_of_monais_inference(tmp_path, tables):
    settings = region({**tables, "classes": 3, "label": 2, "keep": "all", "window_hu": (-50.0, 150.0)})
    torch.manual_seed(2)
    made = build_segmenter(settings)
    settings = saved(tmp_path, made, settings)
    values = textured(3, (10, 22, 26))
    [found] = segment(make(values), load_segmenter(settings, tmp_path / "w.pt"), settings)
    # LPS as stored to RAS, x y z, and the window to 0..1
    seen = np.clip((values[:, ::-1, ::-1].transpose(2, 1, 0) + 50) / 200, 0, 1).astype(np.float32)
    with torch.inference_mode():
        logits = sliding_window_inference(
            torch.from_numpy(seen.copy())[None, None], tables["patch"], 1, made.eval(), overlap=0.25, mode="gaussian"
        )
    wanted = (logits[0].argmax(dim=0) == 2).numpy().transpose(2, 1, 0)[:, ::-1, ::-1]
    assert 0.01 < wanted.mean() < 0.99
    assert (sitk.GetArrayFromImage(found) != wanted).sum() <= 1  # ties in single precision


def test_any_number_of_threads_draws_the_same():
    settings = region({**DYNUNET, "normalise": "zscore"})
    torch.manual_seed(5)
    network, before = build_segmenter(settings).eval(), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(sitk.GetArrayFromImage(segment(make(textured(2)), network, settings)[0]))
    torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_an_image_of_one_value_has_no_scale():
    settings = region({**UNET, "normalise": "zscore"})
    with pytest.raises(CaseError, match="image has one value only"):
        segment(make(np.full((8, 8, 8), 3.0)), build_segmenter(settings).eval(), settings)


def test_weights_that_do_not_fit_are_refused_with_their_keys(tmp_path):
    tables = thresholding(tmp_path / "w.pt", 100.0)
    other = tables["weights"] | {"sha256": "0" * 64}
    with pytest.raises(SiteError, match="sha256 is"):
        load_segmenter(UNetRegion(**{**tables, "weights": other}), tmp_path / "w.pt")
    with pytest.raises(SiteError, match=r"does not fit this UNet \(keys of another shape: model\.0\.adn"):
        load_segmenter(UNetRegion(**{**tables, "channels": (2, 2)}), tmp_path / "w.pt")
    with pytest.raises(SiteError, match=r"does not fit this DynUNet \(missing keys: bottleneck\."):
        load_segmenter(region({**DYNUNET, "weights": tables["weights"]}), tmp_path / "w.pt")
    with pytest.raises(SiteError, match="No such file"):
        load_segmenter(UNetRegion(**tables), tmp_path / "nowhere.pt")
    (tmp_path / "w.pt").write_bytes(b"none")
    none = tables["weights"] | {"sha256": hashlib.sha256(b"none").hexdigest()}
    with pytest.raises(SiteError, match="cannot be read as format 'monai'"):
        load_segmenter(UNetRegion(**{**tables, "weights": none}), tmp_path / "w.pt")


def test_heads_that_only_training_looks_at_are_left_out(tmp_path):
    from monai.networks.nets import DynUNet

    trained = DynUNet(
        3, 1, 2, [3, (3, 3, 1), 3], [1, 2, (2, 2, 1)], [2, (2, 2, 1)], filters=[4, 8, 8], deep_supervision=True
    )
    torch.save({"model": trained.state_dict()}, tmp_path / "w.pt")
    digest = hashlib.sha256((tmp_path / "w.pt").read_bytes()).hexdigest()
    loaded = load_segmenter(region({**DYNUNET, "weights": {"file": "w.pt", "sha256": digest}}), tmp_path / "w.pt")
    seen = torch.rand(1, 1, 16, 12, 8)
    with torch.inference_mode():
        assert torch.equal(loaded(seen), trained.eval()(seen))


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({**UNET, "strides": (2,)}, "3 channels need 2 strides"),
        ({**UNET, "patch": (16, 12, 7)}, r"patch / \[4, 4, 2\] voxels, which must be whole"),
        ({**UNET, "patch": (4, 4, 4), "strides": (2, 2)}, "more than one voxel in all"),
        ({**UNET, "label": 2}, "a network of 2 classes has 1 to 1"),
        ({**UNET, "window_hu": (0.0, 1.0), "normalise": "zscore"}, "exclude each other"),
        ({**UNET, "window_hu": (1.0, 0.0)}, "the first number must be below the second"),
        ({**DYNUNET, "kernels": (3, 3)}, "one entry a level each"),
        ({**DYNUNET, "kernels": (3, 2, 3)}, "kernels are odd numbers"),
        ({**DYNUNET, "strides": (2, 2, 2), "patch": (16, 16, 16)}, "the first level keeps the image's voxels"),
        ({**SEGRESNET, "blocks_up": (1, 1)}, "2 blocks_down need 1 blocks_up"),
        ({**SEGRESNET, "strides": (2,)}, "Extra inputs"),
    ],
)
def test_keys_that_do_not_go_together(tables, says):
    with pytest.raises(ValidationError, match=says):
        region(tables)
