"""Heads: the numpy network is torch's, its weights are one flat vector, and its start is the same everywhere."""

import numpy as np
import pytest
import torch

from cohortium.common.heads import Head


def torch_twin(head: Head, weights: np.ndarray) -> torch.nn.Sequential:
    parts: list[torch.nn.Module] = []
    for matrix, bias in head.layers(weights):
        linear = torch.nn.Linear(matrix.shape[1], matrix.shape[0])
        linear.load_state_dict({"weight": torch.tensor(matrix), "bias": torch.tensor(bias)})
        parts += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


@pytest.mark.parametrize("hidden", [(), (8,), (16, 4)])
def test_equals_torch(hidden):
    head = Head(inputs=12, hidden=hidden)
    rng = np.random.default_rng(1)
    weights = head.initial_weights(rng) + rng.normal(0, 0.1, head.size).astype(np.float32)
    x = rng.normal(size=(40, 12))
    with torch.no_grad():
        theirs = torch_twin(head, weights)(torch.tensor(x, dtype=torch.float32))[:, 0].numpy()
    np.testing.assert_allclose(head.linear_predictor(weights, x), theirs, atol=1e-6)  # theirs is float32


def test_the_flat_vector_is_the_layers_in_order():
    head = Head(inputs=3, hidden=(2,))
    (first, offset), (last, constant) = head.layers(np.arange(head.size, dtype=np.float32))
    assert head.size == 11
    np.testing.assert_array_equal(first, [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(offset, [6, 7])
    np.testing.assert_array_equal(last, [[8, 9]])
    np.testing.assert_array_equal(constant, [10])


def test_a_seed_gives_the_same_start_and_it_has_the_scale_of_he():
    head = Head(inputs=400, hidden=(100,))
    weights = head.initial_weights(np.random.default_rng(3))
    np.testing.assert_array_equal(weights, head.initial_weights(np.random.default_rng(3)))
    matrix, bias = head.layers(weights)[0]
    assert matrix.std() == pytest.approx(np.sqrt(2 / 400), rel=0.02)  # 40,000 draws: standard error 0.35 %
    assert not bias.any()
    assert weights.dtype == np.float32


def test_a_vector_of_another_head_is_refused():
    with pytest.raises(ValueError, match=r"12 -> \[8\] -> 1 has 113 weights"):
        Head(inputs=12, hidden=(8,)).layers(np.zeros(112, dtype=np.float32))
