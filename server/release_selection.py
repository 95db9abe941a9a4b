"""Release selection: what equations that fill gaps, and selection by ranks, ask of the sites."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from cohortium.common.study import Study
from cohortium.common.study_analysis import Correlation, Screen
from cohortium.common.study_data import Imputation
from cohortium.server.release_sizes import NOBODY, Release, Share, release
from cohortium.strategies import cox_screen, icc, rank_correlation, rank_tests
from cohortium.strategies.chained import Chain, Incomplete, products
from cohortium.strategies.rows import Matrix, Survival
from cohortium.strategies.view_repeated import contours


def ranks(asks: Callable[..., Release], purpose: str, step: Any) -> Iterator[Release]:
    """Sums of a screen by ranks or Cox models, or of Spearman's correlation; ``asks(purpose, statistic, share)``."""
    if isinstance(step, Screen) and step.test == "cox":
        yield asks(purpose, cox_screen.score, lambda p: (_survival(p), {"time_step": None}))
    by_ranks = isinstance(step, Screen) and step.test in ("mann_whitney", "auc")
    spearman = isinstance(step, Correlation) and step.coefficient == "spearman"
    if not by_ranks and not spearman:
        return
    yield asks(purpose, rank_tests.occupancy, lambda p: (_matrix(p), {"grid": rank_tests.GRID}))
    if by_ranks:
        pieces = rank_tests.even_pieces(rank_tests.MOST_CELLS) + rank_tests.MARKS
        cells = {"columns": np.arange(rank_tests.MOST_CELLS), "edges": np.zeros((rank_tests.MOST_CELLS, pieces + 1))}
        yield asks(purpose, rank_tests.histogram, lambda p: (_matrix(p), {"edges": _edges(p)}))
        yield asks(
            f"{purpose}, near the threshold",
            rank_tests.split,
            lambda p: (_matrix(max(p, rank_tests.MOST_CELLS)), cells),  # as large for any number of columns
        )
    else:
        scores = rank_tests.MOST_BINS
        yield asks(
            purpose,
            rank_correlation.products,
            lambda p: (_matrix(p), {"edges": _edges(p), "scores": np.zeros((p, scores))}),
        )


def agreements(study: Study, feature_sets: Sequence[str], purpose: str) -> Iterator[Release]:
    """Sums of the agreement of contours: one for each feature set that was measured with others."""
    for name in feature_sets:
        if others := contours(study, name):

            def share(f: int, k: int = others + 1) -> Share:
                return icc.Repeated(np.empty((0, f, k))), {"centre": np.zeros(f), "scale": np.ones(f)}

            yield release(study, "train", f"{purpose}, features.{name}", icc.agreement, share, "f")


def table_ranks(study: Study, part: str, purpose: str, columns: int) -> Iterator[Release]:
    """Sums of the Mann-Whitney tests of Table 1."""
    grid = {"grid": np.zeros((columns, len(rank_tests.GRID)))}
    yield release(study, part, purpose, rank_tests.occupancy, lambda: (_matrix(columns), grid))
    # one more edge than bins, as in what is sent
    edges = {"edges": np.zeros((columns, rank_tests.MOST_BINS + 1))}
    yield release(study, part, purpose, rank_tests.histogram, lambda: (_matrix(columns), edges))


def equations(study: Study, columns: int, variables: Sequence[str]) -> Iterator[Release]:
    """Sums of chained equations over the terms of the models' variables, for each column, cycle and imputation."""
    targets = sum(len(study.terms(name)) for name in variables if study.variables[name].missing == "chained")
    if targets == 0:
        return
    settings = study.imputation or Imputation()
    times = targets * settings.cycles * settings.imputations
    rows = Incomplete(np.empty((0, columns)), NOBODY.astype(np.int64))
    nothing = np.zeros(columns)
    chain = Chain(nothing, nothing, nothing, np.arange(0), np.empty((0, columns + 1)), np.empty(0), 0)._asdict()
    purpose = f"equations that fill gaps, {times} times"
    yield release(study, "train", purpose, products, lambda: (rows, {"chain": chain, "target": 0}))


def _edges(columns: int) -> np.ndarray:
    return np.zeros((columns, rank_tests.MOST_BINS + 1))


def _matrix(columns: int) -> Matrix:
    return Matrix(np.empty((0, columns)), NOBODY.astype(np.int64))


def _survival(columns: int) -> Survival:
    return Survival(np.empty((0, columns)), NOBODY, NOBODY)
