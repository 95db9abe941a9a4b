"""FedAvg: a network head trained at the sites, its weights averaged by the number of patients.

At each site, `update` trains the broadcast head on the site's rows and answers with its share of the change,
(n_site / N) * delta; at the server, `fit` adds the total to the weights and broadcasts them again (McMahan et al.,
AISTATS 2017, algorithm 1, every site in every round). This is an approximation of pooled training, and equal to it
only for one full-batch step a round; a model of kind `mlp` is the exact one.

A round goes on when a site drops out. The shares then no longer add to one, so they are summed as well and the total
is divided by their sum; which fraction of the patients took part is public that way, and is returned.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cohortium.common.errors import NotIdentifiable, SumVoid
from cohortium.common.federation import Federation, statistic
from cohortium.common.heads import Head, Weights
from cohortium.strategies.rows import Counts, Labelled

DELTA_BOUND = 2.0
"""Largest change of one weight, times the site's share, that a round takes at first; wider ones are asked again."""


class Classes(NamedTuple):
    """Patients without and with the event."""

    patients: Counts  # (2,)


class Update(NamedTuple):
    """A site's share of one round."""

    delta: NDArray[np.float32]  # (n_weights,), times n_site / N
    share: NDArray[np.float64]  # (), n_site / N
    loss: NDArray[np.float64]  # (), mean loss at the broadcast weights, times n_site / N


# --- at each site ---------------------------------------------------------------------------------------------------


@statistic("fedavg.classes", adds_over="rows")
def classes(rows: Labelled) -> Classes:
    """Class counts, for the shares and for balanced weights."""
    events = int(np.sum(rows.y == 1))
    return Classes(np.array([len(rows.y) - events, events], dtype=np.int64))


@statistic("fedavg.update", adds_over="sites", mode="survivors")
def update(
    rows: Labelled,
    *,
    weights: Weights,
    hidden: list[int],
    patients: int,
    class_weights: list[float],
    optimizer: str,
    learning_rate: float,
    local_epochs: int,
    batch_size: int,
    seed: int,
    round_index: int,
) -> Update:
    """Train the broadcast head on a site's rows.

    Parameters
    ----------
    rows : Labelled
        x (n, inputs), standardised.
    weights : (n_weights,) float32
        The head of this round.
    hidden : list of int
        Its hidden widths.
    patients : int
        N, patients of all sites.
    class_weights : [float, float]
        Weight of a patient without and with the event in the loss.
    seed, round_index : int
        Public; with the rows themselves they fix the order of the batches.
    """
    n = len(rows.y)
    if n == 0:
        nothing = np.zeros(())
        return Update(np.zeros(len(weights), dtype=np.float32), nothing, nothing)
    head = Head(inputs=rows.x.shape[1], hidden=tuple(hidden))
    order = _canonical_order(rows)
    x, y = rows.x[order].astype(np.float32), rows.y[order]
    importance = np.where(y == 1, class_weights[1], class_weights[0])
    rng = np.random.default_rng([seed, round_index])
    batches = [
        batch for _ in range(local_epochs) for batch in np.split(rng.permutation(n), range(batch_size, n, batch_size))
    ]
    trained = _train(head, weights, x, y, importance, batches, optimizer=optimizer, learning_rate=learning_rate)
    share = n / patients
    logit = head.linear_predictor(weights, x)
    loss = float(np.mean(importance * (np.logaddexp(0.0, logit) - y * logit)))
    return Update(
        delta=((trained.astype(np.float64) - weights) * share).astype(np.float32),
        share=np.asarray(share),
        loss=np.asarray(loss * share),
    )


def _canonical_order(rows: Labelled) -> NDArray[np.intp]:
    """An order of the rows that depends on what they are, not on where they stand in a site's file."""
    x = np.ascontiguousarray(rows.x)
    digests = [
        blake2b(row.tobytes(), digest_size=8, key=bytes([int(label)])).digest()
        for row, label in zip(x, rows.y, strict=True)
    ]
    return np.argsort(np.array(digests), kind="stable")


def _train(
    head: Head,
    weights: Weights,
    x: NDArray[np.float32],
    y: NDArray[np.float64],
    importance: NDArray[np.float64],
    batches: list[NDArray[np.intp]],
    *,
    optimizer: str,
    learning_rate: float,
) -> Weights:
    """Weights after one step a batch; a fresh optimizer every round, as its state never leaves a site."""
    import torch  # only a site that trains pays for it
    from torch.nn import functional

    torch.set_num_threads(1)  # sums of floats depend on the number of threads; the engines must agree to the bit
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y.astype(np.float32))
    importances = torch.from_numpy(importance.astype(np.float32))
    parameters = [torch.tensor(part, requires_grad=True) for layer in head.layers(weights) for part in layer]
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    stepper = kind(parameters, lr=learning_rate)
    for batch in batches:
        index = torch.from_numpy(batch)
        signal = inputs[index]
        for matrix, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            signal = functional.relu(functional.linear(signal, matrix, bias))
        logit = functional.linear(signal, parameters[-2], parameters[-1])[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logit, labels[index], importances[index])
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    return np.concatenate([part.detach().numpy().ravel() for part in parameters])


# --- at the server --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A trained head."""

    head: Head
    weights: Weights
    losses: tuple[float, ...]
    """Mean training loss over the sites that took part, at the weights before each round."""
    shares: tuple[float, ...]
    """Fraction of the patients whose sites took part in each round."""

    def linear_predictor(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logit of each patient; x (n, inputs), standardised as in training."""
        return self.head.linear_predictor(self.weights, x)

    def risk(self, x: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probability of the event of each patient."""
        return special.expit(self.linear_predictor(x))


def fit(
    federation: Federation,
    head: Head,
    *,
    seed: int,
    rounds: int,
    local_epochs: int = 1,
    batch_size: int = 32,
    optimizer: Literal["adam", "sgd"] = "adam",
    learning_rate: float = 1e-3,
    class_weight: Literal["none", "balanced"] = "none",
    patience: int | None = None,
) -> Trained:
    """Train a head over all sites of the federation; one sum for the class counts and one a round.

    Parameters
    ----------
    federation : Federation
        Its sites answer with `Labelled` rows, x standardised.
    head : Head
    seed : int
        Fixes the initial weights and, with the round and the rows, the order of the batches.
    rounds : int
        Rounds at most.
    class_weight : {"none", "balanced"}
        Balanced weighs a class by N / (2 N_class), from the counts of all sites.
    patience : int, optional
        Stop when the training loss has not fallen below its lowest for this many rounds, and take the weights of
        the lowest. A training that is never stopped ends with its last weights.

    Raises
    ------
    NotIdentifiable
        A class has no patient.
    SumVoid
        No patient's site took part in a round.
    """
    counts = federation.sum(classes).patients
    if counts.min() == 0:
        raise NotIdentifiable(
            f"a network needs patients of both classes; the sites hold {counts[0]} without and "
            f"{counts[1]} with the event"
        )
    patients = int(counts.sum())
    importance = patients / (2.0 * counts) if class_weight == "balanced" else np.ones(2)
    recipe = {
        "hidden": list(head.hidden),
        "patients": patients,
        "class_weights": importance.tolist(),
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "local_epochs": local_epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    weights = best = head.initial_weights(np.random.default_rng(seed))
    losses: list[float] = []
    shares: list[float] = []
    for round_index in range(rounds):
        total = federation.sum(update, bound=DELTA_BOUND, weights=weights, round_index=round_index, **recipe)
        share = float(total.share)
        if share <= 0:
            raise SumVoid(f"round {round_index + 1} of the network: no site with patients took part")
        losses.append(float(total.loss) / share)
        shares.append(share)
        lowest = int(np.argmin(losses))
        if lowest == round_index:
            best = weights
        elif patience is not None and round_index - lowest >= patience:
            return Trained(head=head, weights=best, losses=tuple(losses), shares=tuple(shares))
        weights = (weights + total.delta.astype(np.float64) / share).astype(np.float32)
    return Trained(head=head, weights=weights, losses=tuple(losses), shares=tuple(shares))
