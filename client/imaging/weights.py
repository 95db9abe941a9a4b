"""Weights: a network's weight file, checked by sha256, read without running anything of it, loaded strictly."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cohortium.common.errors import SiteError

State = dict[str, torch.Tensor]

WIDTH = 64
"""Channels of the first stage in the published networks."""
WRAPPERS = ("state_dict", "model")
"""Under these names checkpoints of training scripts wrap the weights once more."""
RADIMAGENET = {"0.": "conv1.", "1.": "bn1.", "4.": "layer1.", "5.": "layer2.", "6.": "layer3.", "7.": "layer4."}


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 of weights: names, types, shapes and bytes in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.asarray(state[name].numpy(), order="C")
        digest.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_weights(path: Path, network: torch.nn.Module, *, name: str, width: int) -> str:
    """Write a network's weights in format ``cohortium`` (npz of arrays, `config` as JSON); returns its sha256."""
    config = json.dumps({"network": name, "width": width}, sort_keys=True)
    arrays = {key: value.numpy() for key, value in sorted(network.state_dict().items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(stream, config=np.array(config), **arrays)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_weights(file: Path, sha256: str, layout: str) -> tuple[State, int]:
    """Weights by their network's own names, and the width of its first stage (64 unless the file says another).

    Nothing of the file is executed: npz without pickles, torch files with ``weights_only``.

    Raises
    ------
    SiteError
        The file is missing, has another sha256, or holds no weights in this format.
    """
    data = _checked_bytes(file, sha256)
    try:
        if layout == "cohortium":
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                config = json.loads(str(arrays["config"]))
                return {k: torch.from_numpy(arrays[k]) for k in arrays.files if k != "config"}, int(config["width"])
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        for wrapper in WRAPPERS:
            state = state.get(wrapper, state)
        if not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise TypeError("not all values are tensors")
        return {_own_name(key, layout): value for key, value in state.items()}, WIDTH
    except Exception as broken:  # a reader of arbitrary bytes fails in arbitrary ways
        raise SiteError(
            f"weight file {file}: cannot be read as format {layout!r} ({type(broken).__name__}); "
            "ask the coordinator for the file and its format"
        ) from broken


def load_strictly(network: torch.nn.Module, state: State, file: Path, name: str) -> None:
    """Load weights that must be exactly those of the network.

    Raises
    ------
    SiteError
        Names missing and extra keys, and those of another shape.
    """
    wanted = network.state_dict()
    # Batch counters play no part in evaluation and old files lack them
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    wrong = {
        "missing keys": wanted.keys() - state.keys() - counters,
        "extra keys": state.keys() - wanted.keys(),
        "keys of another shape": {k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape},
    }
    if any(wrong.values()):
        found = "; ".join(f"{what}: {_listed(sorted(keys))}" for what, keys in wrong.items() if keys)
        raise SiteError(f"weight file {file} does not fit {name} ({found}); correct network or format")
    network.load_state_dict({**{key: wanted[key] for key in counters}, **state}, strict=True)


def _own_name(key: str, layout: str) -> str:
    key = key.removeprefix("module.")
    if layout == "radimagenet":
        key = key.removeprefix("backbone.")
        for prefix, name in RADIMAGENET.items():
            if key.startswith(prefix):
                return name + key.removeprefix(prefix)
    return key


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


def _listed(keys: list[str]) -> str:
    shown = ", ".join(keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"
