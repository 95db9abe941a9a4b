"""FedAvg: equal to torch where it must be, reproducible, and right about who took part."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from cohortium.common.errors import NotIdentifiable, SumVoid
from cohortium.common.federation import PooledSites
from cohortium.common.heads import Head
from cohortium.strategies import fedavg
from cohortium.strategies.rows import Labelled

HEAD = Head(inputs=30, hidden=(8,))
FULL_BATCH = {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 1000, "seed": 5}


@pytest.fixture(scope="module")
def rows() -> Labelled:
    data = load_breast_cancer()
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    return Labelled(x=x, y=1.0 - data.target, fold=np.zeros(len(x), dtype=np.int64))


def split(rows: Labelled, sizes: list[int]) -> list[Labelled]:
    ends = np.cumsum(sizes)
    return [Labelled(*(field[e - n : e] for field in rows)) for n, e in zip(sizes, ends, strict=True)]


def pooled_torch(rows: Labelled, *, steps: int, positive: float = 1.0, negative: float = 1.0) -> np.ndarray:
    """Plain full-batch gradient descent of torch modules on all rows, from the same start."""
    network = torch.nn.Sequential(torch.nn.Linear(30, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    start = torch.tensor(HEAD.initial_weights(np.random.default_rng(5)))
    torch.nn.utils.vector_to_parameters(start, network.parameters())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x, y = torch.tensor(rows.x, dtype=torch.float32), torch.tensor(rows.y, dtype=torch.float32)
    importance = torch.where(y == 1, positive, negative)
    for _ in range(steps):
        optimizer.zero_grad()
        logit = network(x)[:, 0]
        torch.nn.functional.binary_cross_entropy_with_logits(logit, y, weight=importance).backward()
        optimizer.step()
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach().numpy()


# float32 sums in another order: relative 6e-8 an addition, a few hundred of them, weights below 1
TOLERANCE = 2e-6


def test_one_site_is_torch(rows):
    ours = fedavg.fit(PooledSites([rows]), HEAD, rounds=4, local_epochs=2, **FULL_BATCH)
    np.testing.assert_allclose(ours.weights, pooled_torch(rows, steps=8), atol=TOLERANCE)


@pytest.mark.parametrize("sizes", [[300, 200, 69], [1, 567, 1], [569, 0, 0]])
def test_a_full_batch_step_of_many_sites_is_the_pooled_step(rows, sizes):
    ours = fedavg.fit(PooledSites(split(rows, sizes)), HEAD, rounds=3, **FULL_BATCH)
    np.testing.assert_allclose(ours.weights, pooled_torch(rows, steps=3), atol=TOLERANCE)


def test_balanced_classes_are_those_of_all_sites(rows):
    ours = fedavg.fit(PooledSites(split(rows, [300, 200, 69])), HEAD, rounds=2, class_weight="balanced", **FULL_BATCH)
    events = rows.y.sum()
    weights = {"positive": 569 / (2 * events), "negative": 569 / (2 * (569 - events))}
    np.testing.assert_allclose(ours.weights, pooled_torch(rows, steps=2, **weights), atol=TOLERANCE)


def test_the_first_loss_is_that_of_the_start(rows):
    ours = fedavg.fit(PooledSites(split(rows, [300, 269])), HEAD, rounds=1, **FULL_BATCH)
    logit = torch.tensor(HEAD.linear_predictor(HEAD.initial_weights(np.random.default_rng(5)), rows.x))
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(logit, torch.tensor(rows.y))
    assert ours.losses[0] == pytest.approx(float(theirs), rel=1e-6)  # rows are float32 in training


def test_learns_with_minibatches_and_is_reproducible_whatever_the_order(rows):
    sites = split(rows, [300, 200, 69])
    recipe = {"rounds": 6, "local_epochs": 2, "seed": 5, "learning_rate": 3e-3}
    ours = fedavg.fit(PooledSites(sites), HEAD, **recipe)
    shuffled = [Labelled(*(field[::-1] for field in site)) for site in sites]
    again = fedavg.fit(PooledSites(shuffled), HEAD, **recipe)
    np.testing.assert_array_equal(again.weights, ours.weights)
    assert roc_auc_score(rows.y, ours.risk(rows.x)) > 0.98  # a logistic regression reaches .99 here
    assert ours.losses[-1] < ours.losses[0] / 2
    other = fedavg.fit(PooledSites(sites), HEAD, **{**recipe, "seed": 6})
    assert np.abs(other.weights - ours.weights).max() > 1e-3


def test_fixed_point_sums_are_close(rows):
    sites = split(rows, [300, 200, 69])
    exact = fedavg.fit(PooledSites(sites), HEAD, rounds=5, **FULL_BATCH)
    masked = fedavg.fit(PooledSites(sites, fraction_bits=28), HEAD, rounds=5, **FULL_BATCH)
    np.testing.assert_allclose(masked.weights, exact.weights, atol=1e-6)  # 2**-29 a site and round, grown by training


class Departing(PooledSites):
    """A federation whose last site leaves after some rounds of training."""

    def __init__(self, sites: list[Labelled], *, after: int) -> None:
        super().__init__(sites)
        self.after = after

    def sum(self, what: Any, **parameters: Any) -> Any:
        if what.mode == "survivors" and parameters["round_index"] >= self.after:
            return PooledSites(self.sites[:-1]).sum(what, **parameters)
        return super().sum(what, **parameters)


def test_a_departure_is_averaged_out(rows):
    sites = split(rows, [300, 200, 69])
    ours = fedavg.fit(Departing(sites, after=0), HEAD, rounds=3, **FULL_BATCH)
    rest = split(rows, [500, 69])[0]
    np.testing.assert_allclose(ours.weights, pooled_torch(rest, steps=3), atol=TOLERANCE)
    np.testing.assert_allclose(ours.shares, 500 / 569)
    later = fedavg.fit(Departing(sites, after=2), HEAD, rounds=3, **FULL_BATCH)
    np.testing.assert_allclose(later.shares, [1, 1, 500 / 569])


def test_a_round_without_patients_is_void(rows):
    with pytest.raises(SumVoid, match="round 1"):
        fedavg.fit(Departing([*split(rows, [0, 569])], after=0), HEAD, rounds=3, **FULL_BATCH)


def test_patience_stops_and_keeps_the_best(rows):
    recipe = {**FULL_BATCH, "learning_rate": 50.0}  # far too large: the loss rises
    ours = fedavg.fit(PooledSites([rows]), HEAD, rounds=50, patience=3, **recipe)
    best = int(np.argmin(ours.losses))
    assert len(ours.losses) == best + 4
    at_best = fedavg.fit(PooledSites([rows]), HEAD, rounds=best, **recipe) if best else None
    expected = at_best.weights if at_best else HEAD.initial_weights(np.random.default_rng(5))
    np.testing.assert_array_equal(ours.weights, expected)


def test_one_class_is_refused(rows):
    healthy = Labelled(*(field[rows.y == 0] for field in rows))
    with pytest.raises(NotIdentifiable, match="both classes"):
        fedavg.fit(PooledSites([healthy]), HEAD, rounds=1, seed=5)


def test_no_patients_and_scores_need_no_torch():
    script = """
import sys
import numpy as np
from cohortium.common.heads import Head
from cohortium.strategies import fedavg
from cohortium.strategies.rows import Labelled
head = Head(inputs=3, hidden=(2,))
weights = head.initial_weights(np.random.default_rng(0))
nobody = Labelled(np.empty((0, 3)), np.empty(0), np.empty(0, dtype=np.int64))
share = fedavg.update.local(
    nobody, weights=weights, hidden=[2], patients=9, class_weights=[1.0, 1.0], optimizer="adam",
    learning_rate=0.1, local_epochs=1, batch_size=8, seed=1, round_index=0,
)
assert share.delta.shape == (11,) and share.delta.dtype == np.float32 and not share.delta.any() and share.share == 0
assert len(head.linear_predictor(weights, np.ones((4, 3)))) == 4
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
