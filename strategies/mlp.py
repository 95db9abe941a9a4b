"""MLP: a small network trained on full-batch gradients summed over sites, equal to training on the pooled patients.

At each site, `gradient` gives the summed cross-entropy of its rows and its derivative by every weight, in float64; at
the server, `fit` takes a step and asks again. Gradients add, so each step is the pooled one but for the order of
additions: averaging of locally trained weights (`fedavg`, kind ``network``) is not. One sum an iteration.

Hidden units are tanh, which is smooth: a unit that is on or off for a patient (ReLU) would make the gradients of two
neighbouring steps differ by that patient's row. The starting weights follow from the study's seed (Glorot & Bengio,
AISTATS 2010); adam is Kingma & Ba, ICLR 2015, algorithm 1, as in torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from cohortium.common.errors import NotIdentifiable
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.descent import minimise
from cohortium.strategies.random_features import combined
from cohortium.strategies.rows import Array, Counts, Labelled

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
SETTLED = 1e-7
"""Largest element of the mean gradient at which L-BFGS ends."""

Optimizer = Literal["lbfgs", "adam", "sgd"]


class Gradient(NamedTuple):
    """What one step needs of some patients; sums, not means."""

    gradient: Array  # (n_weights,)
    loss: Array  # (), cross-entropy
    patients: Counts  # ()
    events: Counts  # ()


def size(inputs: int, hidden: Sequence[int]) -> int:
    """Number of weights, biases included."""
    return sum(outputs * (before + 1) for before, outputs in pairwise((inputs, *hidden, 1)))


def layers(weights: Array, inputs: int, hidden: Sequence[int]) -> list[tuple[Array, Array]]:
    """Views of a flat vector: matrix (outputs, inputs) in C order, then bias (outputs,), of each layer."""
    found, at = [], 0
    for before, outputs in pairwise((inputs, *hidden, 1)):
        end = at + outputs * before
        found.append((weights[at:end].reshape(outputs, before), weights[end : end + outputs]))
        at = end + outputs
    return found


def linear_predictor(weights: Array, hidden: Sequence[int], x: Array) -> Array:
    """Logit of each patient of `x` (n, p), standardised as in training; (n,)."""
    return _signals(layers(np.asarray(weights), x.shape[1], hidden), x)[-1][:, 0]


def _signals(network: list[tuple[Array, Array]], x: Array) -> list[Array]:
    """Input of every layer, and the logit (n, 1) last."""
    signals = [x]
    for matrix, bias in network:
        raw = combined(signals[-1], matrix.T) + bias
        signals.append(raw if len(signals) == len(network) else np.tanh(raw))
    return signals


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("mlp.gradient", adds_over="rows")
def gradient(rows: Labelled, *, weights: Array, hidden: list[int]) -> Gradient:
    """Cross-entropy of a site's rows at `weights` (n_weights,), and its derivative."""
    network = layers(weights, rows.x.shape[1], hidden)
    *inputs, logit = _signals(network, rows.x)
    parts: list[Array] = []
    error = special.expit(logit) - rows.y[:, None]
    for signal, (matrix, _) in zip(reversed(inputs), reversed(network), strict=True):
        parts += [error.sum(axis=0), (error.T @ signal).ravel()]
        error = (error @ matrix) * (1 - signal**2)  # of the input layer it is not used
    return Gradient(
        gradient=np.concatenate(parts[::-1]),
        loss=np.asarray((np.logaddexp(0, logit[:, 0]) - rows.y * logit[:, 0]).sum()),
        patients=np.asarray(len(rows.y)),
        events=np.asarray(np.count_nonzero(rows.y)),
    )


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """Trained weights, and the penalised mean loss of every sum."""

    weights: Array  # (n_weights,)
    losses: tuple[float, ...]
    patients: int


def initial_weights(inputs: int, hidden: Sequence[int], seed: int) -> Array:
    """Glorot-normal matrices, biases of zero; (n_weights,)."""
    rng = np.random.default_rng(seed)
    parts = []
    for before, outputs in pairwise((inputs, *hidden, 1)):
        parts += [rng.normal(0.0, np.sqrt(2 / (before + outputs)), outputs * before), np.zeros(outputs)]
    return np.concatenate(parts)


def fit(
    federation: Federation,
    inputs: int,
    *,
    hidden: Sequence[int],
    iterations: int,
    l2: float,
    optimizer: Optimizer,
    learning_rate: float,
    seed: int,
) -> Network:
    """Train over all sites of the federation; about one sum an iteration.

    The objective is mean cross-entropy + l2 / 2 * (sum of squares of the matrices; biases are free).

    Parameters
    ----------
    federation : Federation
        Of `Labelled` rows whose x is (n, inputs), standardised.
    iterations : int
        Sums in all; ``"lbfgs"`` may end earlier, where the gradient vanishes.
    optimizer : {"lbfgs", "adam", "sgd"}
        The latter two take `iterations` steps of `learning_rate`.

    Raises
    ------
    NotIdentifiable
        One class only, or nobody.
    """
    start = initial_weights(inputs, hidden, seed)
    matrices = np.concatenate([np.r_[np.ones(m.size), np.zeros(b.size)] for m, b in layers(start, inputs, hidden)])
    losses: list[float] = []
    patients = 0

    def evaluate(weights: Array) -> tuple[float, Array]:
        nonlocal patients
        at = federation.sum(gradient, weights=weights, hidden=list(hidden))
        patients = int(at.patients)
        if int(at.events) in (0, patients):
            raise NotIdentifiable("a network needs patients with and without the outcome; widen the selection")
        penalised = l2 * matrices * weights
        losses.append(float(at.loss) / patients + float(penalised @ weights) / 2)
        return losses[-1], at.gradient / patients + penalised

    if optimizer == "lbfgs":
        weights = minimise(evaluate, start, sums=iterations, tolerance=SETTLED).at
    else:
        weights = start
        step = _adam(learning_rate) if optimizer == "adam" else lambda slope: learning_rate * slope
        for _ in range(iterations):
            weights = weights - step(evaluate(weights)[1])
    return Network(weights=weights, losses=tuple(losses), patients=patients)


def _adam(learning_rate: float):  # type: ignore[no-untyped-def]  # a closure over the two running means
    """One step of Adam a call, for gradients in turn."""
    mean = square = np.float64(0.0)
    taken = 0

    def step(slope: Array) -> Array:
        nonlocal mean, square, taken
        taken += 1
        mean = BETA_1 * mean + (1 - BETA_1) * slope
        square = BETA_2 * square + (1 - BETA_2) * slope**2
        root = np.sqrt(square) / np.sqrt(1 - BETA_2**taken)
        return learning_rate / (1 - BETA_1**taken) * mean / (root + EPSILON)

    return step
