"""MLP: every step and the whole training equal torch in float64 on the pooled rows; sums add; odd sites answer."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import PooledSites
from cohortium.strategies import mlp
from cohortium.strategies.rows import Labelled
from tests.strategies.additivity import FixedPointSites, check, odd_sites, split

HIDDEN = [5, 3]


@pytest.fixture(scope="module")
def rows():
    data = load_breast_cancer()
    x = data.data[:, [0, 1, 4, 8, 14, 20]]
    return Labelled((x - x.mean(axis=0)) / x.std(axis=0), data.target.astype(float), np.zeros(569, np.int64))


def torch_training(rows, *, optimizer, learning_rate, iterations, l2):
    """Full-batch training by torch's own layers, autograd and optimisers, in float64."""
    torch = pytest.importorskip("torch")
    widths = [rows.x.shape[1], *HIDDEN, 1]
    start = mlp.layers(mlp.initial_weights(widths[0], HIDDEN, seed=4), widths[0], HIDDEN)
    linears = []
    for matrix, bias in start:
        linear = torch.nn.Linear(matrix.shape[1], matrix.shape[0], dtype=torch.float64)
        linear.load_state_dict({"weight": torch.tensor(matrix), "bias": torch.tensor(bias)})
        linears += [linear, torch.nn.Tanh()]
    network = torch.nn.Sequential(*linears[:-1])
    steps = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer](network.parameters(), lr=learning_rate)
    x, y = torch.tensor(rows.x), torch.tensor(rows.y)
    history = []
    for _ in range(iterations):
        steps.zero_grad()
        penalty = sum((linear.weight**2).sum() for linear in linears[::2])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x)[:, 0], y) + l2 / 2 * penalty
        loss.backward()
        steps.step()
        history.append(torch.cat([part.detach().ravel() for part in network.parameters()]).numpy().copy())
    return history


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adam", 0.02), ("sgd", 0.5)])
def test_training_equals_torch_on_the_pooled_rows(rows, optimizer, learning_rate):
    settings = {"optimizer": optimizer, "learning_rate": learning_rate, "l2": 0.01}
    torched = torch_training(rows, iterations=100, **settings)
    for federation in (PooledSites(split(rows, [200, 1, 68, 300])), FixedPointSites(split(rows, [200, 1, 68, 300]))):
        for iterations, within in ((1, 1e-14 if federation.fraction_bits is None else 1e-10), (100, 1e-9)):
            federation.rounds = 0
            fitted = mlp.fit(federation, 6, hidden=HIDDEN, iterations=iterations, seed=4, **settings)
            assert np.abs(fitted.weights - torched[iterations - 1]).max() < within
            assert federation.rounds == iterations == len(fitted.losses)


def test_lbfgs_ends_where_the_pooled_gradient_vanishes(rows):
    """A stationary point of torch's objective, lower than a hundred steps of Adam, in a third of the sums."""
    torch = pytest.importorskip("torch")
    settings = {"hidden": HIDDEN, "learning_rate": 0.02, "l2": 0.01, "seed": 4}
    federation = PooledSites(split(rows, [200, 369]), fraction_bits=40)
    adam = mlp.fit(federation, 6, iterations=100, optimizer="adam", **settings)
    short = mlp.fit(federation, 6, iterations=35, optimizer="lbfgs", **settings)
    assert min(short.losses) < adam.losses[-1]
    ended = mlp.fit(federation, 6, iterations=1000, optimizer="lbfgs", **settings)
    weights = torch.tensor(ended.weights, requires_grad=True)
    signal, penalty = torch.tensor(rows.x), 0.0
    layers = mlp.layers(weights, 6, HIDDEN)
    for index, (matrix, bias) in enumerate(layers):
        signal = signal @ matrix.T + bias
        signal = torch.tanh(signal) if index < len(layers) - 1 else signal
        penalty = penalty + (matrix**2).sum()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(signal[:, 0], torch.tensor(rows.y)) + 0.005 * penalty
    loss.backward()
    assert weights.grad.abs().max() < 1e-6
    assert loss.item() == pytest.approx(min(ended.losses), abs=1e-10)


def test_no_hidden_layer_is_logistic_regression(rows):
    """statsmodels 0.14: Logit on the same columns; without a penalty the maximum is the same."""
    from statsmodels.api import Logit, add_constant

    federation = PooledSites(split(rows, [300, 269]))
    settings = {"hidden": [], "learning_rate": 1.0, "l2": 0.0, "seed": 0, "optimizer": "lbfgs"}
    weights = mlp.fit(federation, 6, iterations=1000, **settings).weights
    params = Logit(rows.y, add_constant(rows.x)).fit(disp=0, tol=1e-12).params
    np.testing.assert_allclose(np.r_[weights[-1], weights[:-1]], params, rtol=1e-4)


def test_sums_add_over_rows(rows):
    weights = mlp.initial_weights(6, HIDDEN, seed=1)
    check(mlp.gradient, rows, weights=weights, hidden=HIDDEN)
    few = PooledSites(odd_sites(rows, rows.y))
    many = PooledSites([rows])
    one, other = (f.sum(mlp.gradient, weights=weights, hidden=HIDDEN) for f in (few, many))
    np.testing.assert_allclose(one.gradient, other.gradient, atol=1e-11)


def test_one_class_is_refused(rows):
    federation = PooledSites([rows._replace(y=np.zeros(569))])
    with pytest.raises(NotIdentifiable, match="with and without the outcome"):
        mlp.fit(federation, 6, hidden=[2], iterations=3, l2=0.0, optimizer="sgd", learning_rate=0.1, seed=0)


def test_a_score_does_not_depend_on_who_else_is_scored(rows):
    weights = mlp.initial_weights(6, HIDDEN, seed=1)
    scores = mlp.linear_predictor(weights, HIDDEN, rows.x)
    assert mlp.linear_predictor(weights, HIDDEN, rows.x[7:8])[0] == scores[7]
