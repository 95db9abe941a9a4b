"""Items of further statistics: screening of survival, Table 1's ranks, numbers as outcome, networks, searches."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import data
import numpy as np
import references_further as references
import references_penalised as penalised
from federations import Part, at_sites
from item import Federate, Item
from scipy import special

from cohortium.common.heads import Head
from cohortium.strategies import (
    continuous_figures,
    correlation,
    cox_screen,
    fedavg,
    lasso_cox,
    logistic,
    mann_whitney,
    meta_analysis,
    moments,
    screening,
    stepwise,
    stratified_log_rank,
    validation,
)
from cohortium.strategies.rows import FoldedSurvival, Labelled, Matrix, Scored, ScoredSurvival, Survival
from cohortium.strategies.validation_settings import Settings

EXACT = Settings(score_resolution="exact", decision_thresholds=references.THRESHOLDS)
EPOCHS = 20


def _survival() -> dict[str, np.ndarray]:
    frame = data.gbsg2()
    x = data.standardised(frame, references.GBSG2)
    return {"x": x, "time": frame["time"].to_numpy(), "event": frame["event"].to_numpy(float)}


def _cox_screen(federate: Federate) -> dict[str, Any]:
    found = cox_screen.score_tests(federate(at_sites(Survival, data.gbsg2(), **_survival())))
    return {"chi2": found.chi2, "p": found.p}


def _ranks(federate: Federate, x: np.ndarray) -> mann_whitney.MannWhitney:
    frame = data.breast_cancer()
    sites = federate(at_sites(Matrix, frame, x=x, group=frame["y"].to_numpy(np.int64)))
    known = moments.fit(sites, x.shape[1])
    return mann_whitney.compare(sites, known.mean, known.sd)


def _counted(federate: Federate) -> dict[str, Any]:
    return {"log_p": np.log(_ranks(federate, references.counted(data.breast_cancer())).p)}


def _bounded(federate: Federate) -> dict[str, Any]:
    found = _ranks(federate, data.breast_cancer()[references.FEATURES].to_numpy())
    return {"least": found.least, "most": found.most, "outside": np.zeros(30)}


def _numbers(federate: Federate) -> dict[str, Any]:
    frame, y, predicted = references.predictions()
    error = predicted - y[:, None]
    longer = np.abs(error)[:, :1] - np.abs(error)[:, 1:]
    x = np.column_stack([y, predicted, error, np.abs(error), longer])
    sites = federate(at_sites(Matrix, frame, x=x, group=np.zeros(len(y), np.int64)))
    figures, (compared,) = continuous_figures.validate_continuous(sites, ["a", "b"], [("a", "b")], Settings())
    both = [figures["a"], figures["b"]]
    line, limits = [of["calibration"] for of in both], [of["bland_altman"] for of in both]
    same = ("r_squared", "rmse", "mae", "mae_ci", "correlation", "correlation_ci")
    return {
        **{name: [of[name] for of in both] for name in same},
        "line": [[of["intercept"], of["slope"]] for of in line],
        "line_ci": [[of["intercept_ci"], of["slope_ci"]] for of in line],
        "agreement": [[of["lower"], of["mean_difference"], of["upper"]] for of in limits],
        **{name: compared[name] for name in ("difference", "z", "p")},
    }


def _brier_parts(federate: Federate) -> dict[str, Any]:
    frame, score, y = references.risk()
    fold = np.zeros(len(y), np.int64)
    sites = federate(at_sites(Scored, frame, score=score[:, None], y=y.astype(float), fold=fold))
    found = validation.validate_binary(sites, ["a"], EXACT)["a"]
    return {
        **{name: found["brier_parts"][name] for name in ("reliability", "resolution", "uncertainty")},
        "ece": found["calibration"]["ece"], "scaled": found["brier_scaled"],
        "avoided": found["decision_curve"]["interventions_avoided"],
    }  # fmt: skip


def _cox_net(federate: Federate) -> dict[str, Any]:
    frame = data.gbsg2()
    sites = at_sites(FoldedSurvival, frame, **_survival(), fold=penalised.folds(frame))
    path = lasso_cox.fit(federate(sites), 8, n_lambda=12, folds=penalised.FOLDS, mixing=penalised.MIXING)
    return {"lambdas": path.lambdas, "coefficients": path.coefficients[:, 1:], "cv_deviance": path.cv_deviance}


def _labelled(columns: Sequence[str]) -> list[Labelled]:
    frame = data.breast_cancer()
    x, fold = data.standardised(frame, list(columns)), np.zeros(len(frame), np.int64)
    return at_sites(Labelled, frame, x=x, y=frame["y"].to_numpy(float), fold=fold)


def _pruned(federate: Federate) -> dict[str, Any]:
    frame = data.breast_cancer()
    x = data.standardised(frame, references.FEATURES)
    sites = federate(at_sites(Matrix, frame, x=x, group=frame["y"].to_numpy(np.int64)))
    kept = correlation.prune(correlation.gram(sites), screening.t_test(sites, 30).t, references.CORRELATED)
    return {"kept": np.isin(np.arange(30), kept)}


def _stepwise(federate: Federate) -> dict[str, Any]:
    sites, names = federate(_labelled(references.SEVEN)), references.SEVEN

    def one(chosen: stepwise.Variables) -> stepwise.Fitted | None:
        columns = [k for k, name in enumerate(names) if name in chosen]
        fit = logistic.fit(Part(sites, columns), len(columns))
        return stepwise.Fitted(fit.log_likelihood, len(columns) + 1)

    def fits(sets: Sequence[stepwise.Variables]) -> list[stepwise.Fitted | None]:
        return sites.together([lambda chosen=chosen: one(chosen) for chosen in sets])

    found = stepwise.by_p(fits, names, enter=references.ENTER, remove=references.REMOVE)
    return {"kept": [name in found.variables for name in names], "last_p": found.steps[-1]["p"]}


def _network(federate: Federate, *, rounds: int, epochs: int, batch: int) -> dict[str, Any]:
    head = Head(inputs=5)
    fit = fedavg.fit(
        federate(_labelled(references.SEVEN[:5])), head, seed=4, rounds=rounds, local_epochs=epochs, batch_size=batch,
        optimizer="sgd", learning_rate=references.RATE,
    )  # fmt: skip
    x = data.standardised(data.breast_cancer(), references.SEVEN[:5])
    start = head.initial_weights(np.random.default_rng(4))
    return {"weights": fit.weights, "start": start, "risk": special.expit(fit.linear_predictor(x))}


def _one_step_a_round(federate: Federate) -> dict[str, Any]:
    return _network(federate, rounds=references.STEPS, epochs=1, batch=1000)


def _local_epochs(federate: Federate) -> dict[str, Any]:
    return _network(federate, rounds=10, epochs=EPOCHS, batch=32)


def _reml(federate: Federate) -> dict[str, Any]:
    fit = meta_analysis.fit(federate(_labelled(references.SEVEN[:3])), 3, between="reml")
    return {"tau2": fit.tau2, "coefficients": fit.coefficients, "se": fit.standard_errors}


def _by_grade(federate: Federate) -> dict[str, Any]:
    frame, score, grade = references.nodes()

    def of(chosen: np.ndarray) -> Any:
        rows = {"score": score[chosen, None], "time": frame["time"].to_numpy()[chosen]}
        event = frame["event"].to_numpy(float)[chosen]
        return federate(at_sites(ScoredSurvival, frame[chosen], **rows, event=event))

    levels = {"grade": [of(grade == level) for level in np.unique(grade)]}
    settings = Settings(cutoffs={"a": references.HIGH})
    whole = of(grade > 0)  # the levels are federations of their own here, so that nothing shares a round
    in_turn: Any = SimpleNamespace(sum=whole.sum, together=lambda tasks: [task() for task in tasks])
    test = stratified_log_rank.figures(in_turn, levels, ["a"], settings)["a"]["grade"]
    return {"chi2": test["chi2"], "p": test["p"]}


BREAST, GBSG2 = "breast_cancer, 4 sites", "gbsg2, 4 sites"
CERTIFIED = "scikit-learn ElasticNet in Newton steps on statsmodels PHReg, KKT <= 1e-11"
ITEMS = (
    Item(name="screening by Cox score tests, stratified by site", data=GBSG2, ours=_cox_screen,
         theirs=references.cox_screen, reference="statsmodels PHReg, score and information at 0"),
    Item(name="Mann-Whitney test of Table 1, columns of few values: log p", data=BREAST, ours=_counted,
         theirs=references.mann_whitney, reference="scipy.stats.mannwhitneyu"),
    Item(name="Mann-Whitney test of Table 1, 30 features: p inside the bounds of its bins", data=BREAST,
         ours=_bounded, theirs=references.mann_whitney_inside, reference="scipy.stats.mannwhitneyu", target=0.0),
    Item(name="correlation pruning after t-tests, 30 features: the set that is kept", data=BREAST, ours=_pruned,
         theirs=references.pruned, reference="scipy.stats.ttest_ind, numpy.corrcoef", target=0.0),
    Item(name="Cox elastic net, stratified by site: path, 5-fold cross-validated deviance", data=GBSG2, ours=_cox_net,
         theirs=references.cox_net, reference=CERTIFIED, target=1e-7),
    Item(name="stepwise logistic regression by p: the model, the p of its last step", data=BREAST, ours=_stepwise,
         theirs=references.stepwise_by_p, reference="statsmodels Logit, model after model"),
    Item(name="meta-analysis of local logistic fits by REML: tau2, means, SE",
         data="breast_cancer, 4 sites of which 3 can fit", ours=_reml, theirs=references.reml,
         reference="statsmodels Logit, scipy root of the restricted score"),
    Item(name="log-rank test stratified by a variable", data=GBSG2, ours=_by_grade,
         theirs=references.log_rank_by_grade, reference="statsmodels survdiff"),
    Item(name="numbers as outcome: R squared, errors, correlation, calibration, limits of agreement, paired test",
         data=BREAST, ours=_numbers, theirs=references.numbers, reference="scikit-learn, scipy, statsmodels OLS"),
    Item(name="Brier score in parts, calibration error of tenths, interventions avoided", data=BREAST,
         ours=_brier_parts, theirs=references.brier_parts, reference="scikit-learn, counting"),
    Item(name="FedAvg network, one full-batch step a round: weights", data=BREAST, ours=_one_step_a_round,
         theirs=references.logistic_head, target=1e-5,
         reference="gradient descent on pooled rows; ours trains in float32, hence 1e-5"),
    Item(name="FedAvg network, 20 local epochs a round, NOT equal: largest distance of a risk from pooled training",
         data=BREAST, ours=_local_epochs, theirs=references.logistic_risk, target=1e-5,
         reference="statsmodels Logit; averaging after local epochs ends elsewhere, here to show how far"),
)  # fmt: skip
