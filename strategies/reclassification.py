"""Reclassification: does model a move patients the right way against model b? NRI and IDI, from one sum.

Net reclassification improvement with two categories at each model's own cut-off and without categories, integrated
discrimination improvement: Pencina et al., Stat Med 2008 and 2011. All are differences of class means, so that counts
of moves and two moments of the difference in score carry them exactly.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from cohortium.common.errors import Undefined
from cohortium.common.federation import statistic
from cohortium.strategies.rows import Counts, Scored
from cohortium.strategies.score_bins import grid
from cohortium.strategies.validation_settings import Figure, undefined
from cohortium.strategies.wald import interval

NAMES = ("nri", "nri_continuous", "idi")

# --- at each site ---------------------------------------------------------------------------------------------


class Moves(NamedTuple):
    """How scores of model a differ from those of model b, by pair and outcome (0, 1); all exact integers."""

    direction: Counts  # (pairs, 2, 3): lower, equal, higher under a
    category: Counts  # (pairs, 2, 3): called by b only, alike, by a only
    difference: Counts  # (pairs, 2, 2): sums of a - b and of its square, in grid units


@statistic("reclassification.moves", adds_over="rows")
def moves(rows: Scored, *, pairs: Counts, cutoffs: Counts) -> Moves:
    """Count moves from the second model of each pair to the first.

    Parameters
    ----------
    pairs : (k, 2)
        Columns of the scores.
    cutoffs : (models,)
        In grid units.
    """
    outcome, scores = rows.y.astype(np.int64), grid(rows.score)
    high = (scores >= cutoffs).astype(np.int64)
    direction, category = (np.zeros((len(pairs), 2, 3), np.int64) for _ in range(2))
    difference = np.zeros((len(pairs), 2, 2), np.int64)
    for p, (a, b) in enumerate(pairs):
        change = scores[:, a] - scores[:, b]
        np.add.at(direction[p], (outcome, 1 + np.sign(change)), 1)
        np.add.at(category[p], (outcome, 1 + high[:, a] - high[:, b]), 1)
        np.add.at(difference[p, :, 0], outcome, change)
        np.add.at(difference[p, :, 1], outcome, change**2)
    return Moves(direction, category, difference)


# --- at the server --------------------------------------------------------------------------------------------


def net_improvement(moved: Counts) -> dict[str, Figure]:
    """Net reclassification improvement from moves (2, 3): down, none, up, by outcome.

    The interval takes the variance of the net share within each class; z takes it as it is where moves up and down are
    equally likely (Pencina 2008), and is undefined where nobody moves.

    Raises
    ------
    Undefined
        One class only.
    """
    n = _class_sizes(moved)
    down, up = moved[:, 0] / n, moved[:, 2] / n
    net = up - down
    error = float(np.sqrt(((up + down - net**2) / n).sum()))
    return _figure(float(-net[0]), float(net[1]), error, float(np.sqrt(((up + down) / n).sum())))


def discrimination_improvement(moved: Counts, difference: Counts) -> dict[str, Figure]:
    """Integrated discrimination improvement from the sums (2, 2) of differences and their squares, in grid units.

    Raises
    ------
    Undefined
        Fewer than two patients of a class.
    """
    n = _class_sizes(moved, least=2)
    # whole numbers beyond 2**53 lose nothing that the difference of large squares would need
    square = [int(n_k) * int(s2) - int(s1) ** 2 for n_k, (s1, s2) in zip(n, difference, strict=True)]
    variance = np.array([float(s) / int(n_k) / (int(n_k) - 1) / 1e8 for s, n_k in zip(square, n, strict=True)])
    mean = difference[:, 0] / n / 1e4
    error = float(np.sqrt((variance / n).sum()))
    return _figure(float(-mean[0]), float(mean[1]), error, error)


def improvements(sums: Moves, pair: int, *, with_cutoffs: bool) -> dict[str, Figure]:
    """`NAMES` for one pair, undefined where they cannot exist."""
    found: dict[str, Figure] = {}
    none = Undefined("no cut-off was chosen for one of the models")
    for name in NAMES:
        try:
            if name == "idi":
                found[name] = discrimination_improvement(sums.direction[pair], sums.difference[pair])
            elif name == "nri_continuous":
                found[name] = net_improvement(sums.direction[pair])
            else:
                found[name] = net_improvement(sums.category[pair]) if with_cutoffs else undefined(none)
        except Undefined as why:
            found[name] = undefined(why)
    return found


def _class_sizes(moved: Counts, least: int = 1) -> Counts:
    n = moved.sum(1)
    if n.min() < least:
        each = "one patient" if least == 1 else f"{least} patients"
        raise Undefined(f"reclassification needs at least {each} with and {each} without the outcome")
    return n


def _figure(without: float, with_event: float, error: float, null_error: float) -> dict[str, Any]:
    """A difference of class means: its parts, standard error, interval, z and p."""
    estimate = without + with_event
    figure: dict[str, Any] = {"estimate": estimate, "events": with_event, "nonevents": without}
    if error < 1e-12 or null_error < 1e-12:
        none = undefined("the two models treat every patient of a class alike, so there is no variance")
        return figure | dict.fromkeys(("se", "ci", "z", "p"), none)
    z = estimate / null_error
    ci = list(interval(estimate, error))
    return figure | {"se": error, "ci": ci, "z": z, "p": float(2 * stats.norm.sf(abs(z)))}
