"""Recompute numbers: figures of models that predict a number, from predictions.csv, for `recompute`."""

import numpy as np
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from statsmodels.stats.weightstats import DescrStatsW


def check_figures(table, figures, where, y, predicted):
    """Figures of one model on one cohort."""
    error = predicted - y
    table.compare("patients", where, figures["n"], len(y))
    table.compare("R squared", where, figures["r_squared"], r2_score(y, predicted))
    table.compare("root mean squared error", where, figures["rmse"], root_mean_squared_error(y, predicted))
    table.compare("mean absolute error", where, figures["mae"], mean_absolute_error(y, predicted))
    table.compare("mean absolute error, interval", where, figures["mae_ci"], _interval(np.abs(error)))
    agreement = figures["bland_altman"]
    limits = error.mean() + 1.959963984540054 * error.std(ddof=1) * np.array([-1, 0, 1])
    published = [agreement["lower"], agreement["mean_difference"], agreement["upper"]]
    table.compare("Bland-Altman limits", where, published, limits)
    table.compare("Bland-Altman, interval of the mean", where, agreement["mean_difference_ci"], _interval(error))
    if "undefined" in (figures["correlation"] if isinstance(figures["correlation"], dict) else {}):
        return
    table.compare("correlation", where, figures["correlation"], stats.pearsonr(y, predicted).statistic)
    line, calibration = sm.OLS(y, sm.add_constant(predicted)).fit(), figures["calibration"]
    for i, name in enumerate(("intercept", "slope")):
        table.compare(f"calibration {name}", where, calibration[name], line.params[i])
        table.compare(f"calibration {name}, interval", where, calibration[f"{name}_ci"], line.conf_int()[i])


def check_comparison(table, entry, y, first, second):
    """Paired difference of absolute errors of two models."""
    longer = np.abs(first - y) - np.abs(second - y)
    found, where = DescrStatsW(longer), f"{entry['cohort']}, {entry['a']} against {entry['b']}"
    table.compare("difference of absolute errors", where, entry["difference"], longer.mean())
    differ = np.ptp(longer) > 1e-12 * np.ptp(y)
    interval = list(found.zconfint_mean()) if differ else None
    table.compare("difference of absolute errors, interval", where, entry["ci"], interval)
    table.compare("difference of absolute errors, p", where, entry["p"], found.ztest_mean()[1] if differ else None)


def slope(run, model, cohort):
    """Slope of a cohort's outcome on its prediction, and its standard error."""
    patients = run.cohort(cohort, run.endpoint(cohort, model))
    y = patients[run.outcome(run.endpoint(cohort, model))[0]].to_numpy()
    line = sm.OLS(y, sm.add_constant(run.scores(patients, cohort, model))).fit()
    return line.params[1], line.bse[1]


def _interval(values):
    return stats.ttest_1samp(values, 0).confidence_interval()
