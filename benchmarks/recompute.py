"""Recompute: every figure of results.json once more, from the patients' own scores, with other software.

    python benchmarks/recompute.py OUT [OUT ...]

reads OUT/sites/*/predictions.csv, OUT/results.json and, for what the study asked for, OUT/study.toml. It imports
nothing of the package. One line a kind of figure: how many were compared, the largest difference, what is allowed, pass
or fail; the exit code is 1 if one failed.

What is allowed is 1e-9 (relative above 1) wherever the figure is defined by what can
be seen. With binned scores a bin is seen in the published ROC curve: AUC, DeLong, average precision and groups are
recomputed with those bins to 1e-9, and compared with the unbinned scores within the stated bound. The bins of survival
scores are not published; C is compared within its bound, and what has none within a bound computed from how many
patients a bin holds.
"""

import sys
from pathlib import Path

import numpy as np
import pooled_binary as binary
import pooled_sites as sites
import pooled_survival as survival
import recompute_bootstrap as bootstrap
import recompute_explained as explained
import recompute_groups as groups
import recompute_numbers as numbers
import recompute_refit as refit
import recompute_repeats as repeats
import recompute_scores as scores
import recompute_times as times
from recompute_run import DAYS_PER_UNIT, Run, followed, labelled
from recompute_table import EXACT, Table


def check(out):
    """All figures of one run; returns whether they passed."""
    run, table = Run(out), Table()
    for model, published in run.results["models"].items():
        for cohort, figures in published["cohorts"].items():
            if "n" not in figures:
                table.withheld += 1
                continue
            endpoint, where = run.endpoint(cohort, model), f"{model}, {cohort}"
            patients = run.cohort(cohort, endpoint)
            if run.kind(endpoint) == "continuous":
                y = patients[run.outcome(endpoint)[0]].to_numpy()
                numbers.check_figures(table, figures, where, y, run.scores(patients, cohort, model))
                check_heterogeneity(run, table, model, cohort, endpoint, patients, figures)
                continue
            events = patients[run.outcome(endpoint)[-1]].sum()
            table.compare("patients, events", where, [figures["n"], figures["events"]], [len(patients), events])
            if run.kind(endpoint) == "binary":
                check_binary(run, table, model, cohort, figures, where)
            if "survival" in figures:
                check_survival(run, table, model, cohort, endpoint, figures["survival"], where)
            check_heterogeneity(run, table, model, cohort, endpoint, patients, figures)
        repeats.check(run, table, model, published)
        explained.check(run, out, table, model, published)
        refit.check(run, out, table, model, published)
        if "cutoff_test" in published:
            groups.check_chosen(run, table, model, published)
    for entry in run.results["comparisons"]:
        if entry["test"] == "absolute_error":
            patients = run.cohort(entry["cohort"], run.endpoint(entry["cohort"], entry["a"]))
            y = patients[run.outcome(run.endpoint(entry["cohort"], entry["a"]))[0]].to_numpy()
            pair = [run.scores(patients, entry["cohort"], model) for model in (entry["a"], entry["b"])]
            numbers.check_comparison(table, entry, y, *pair)
            continue
        check_comparison(run, table, entry)
    for entry in run.results["interactions"]:
        model = entry["model"]
        if run.kind(run.endpoint(entry["cohort"], model)) == "continuous":
            scores.check_interaction(table, entry, lambda cohort, model=model: numbers.slope(run, model, cohort))
            continue
        scores.check_interaction(
            table, entry, lambda cohort, e=entry: scores.figure(e["figure"], *labelled(run, e["model"], cohort)[1:4])
        )
    for kind in ("comparisons", "interactions"):
        scores.check_adjusted(table, kind, run.results[kind])
    mode = "exact" if run.exact else "binned"
    return table.print(f"{run.results['study']['name']} ({out}), {mode} scores, {len(run.patients)} patients")


def check_binary(run, table, model, cohort, figures, where):
    """Figures of a binary model on one cohort."""
    patients, y, score, bins, off = labelled(run, model, cohort)
    table.compare("Brier score", where, figures["brier"], ((y - binary.on_grid(score) / 1e4) ** 2).mean())
    table.note("ROC points on the pooled curve", where, off, EXACT, 1)
    if bins is None:
        table.compare("AUC, same bins", where, figures["auc"], None)
    else:
        check_ranking(run, table, figures, where, patients, y, score, bins)
    check_calibration(run, table, cohort, figures["calibration"], where, y, score, bins)
    scores.check_accuracy(run, table, figures, where, y, score, bins)
    if bins is not None and run.study["validation"].get("bootstrap"):
        bootstrap.check(table, figures, where, y, score, bins, run.study["validation"]["bootstrap"])
    curve = figures["decision_curve"]
    scores.check_avoided(table, curve, where, y, score)
    model_benefit, everyone = binary.net_benefit(y, score, curve["thresholds"])
    table.compare("net benefit", where, curve["net_benefit"], model_benefit)
    table.compare("net benefit of treating all", where, curve["treat_all"], everyone)
    at = figures["at_cutoff"]
    if "undefined" in at:
        return
    counts, shares = binary.confusion(y, score, at["cutoff"])
    table.compare("confusion at the cut-off", where, [at[k] for k in counts], list(counts.values()), 0)
    for name, value in shares.items():
        table.compare("shares at the cut-off, Wilson", where, at[name], value)
    scores.check_cutoff(table, at, where, y, score)
    if cohort == run.training() and at["rule"] == "youden":
        high = binary.on_grid(score) >= round(at["cutoff"] * 1e4)
        table.note("Youden cut-off: other patients", where, (high != binary.youden(y, bins)).sum(), 0, 1)
        if run.exact:
            table.compare("Youden cut-off", where, at["cutoff"], score[binary.youden(y, bins)].min())
    elif cohort == run.training() and at["rule"] == "median":
        table.compare("median cut-off", where, at["cutoff"], np.sort(score)[int(np.ceil(len(score) / 2)) - 1])


def check_ranking(run, table, figures, where, patients, y, score, bins):
    """AUC and what else depends on the order of the scores."""
    auc, grid = figures["auc"], binary.on_grid(score)
    area, error = binary.auc(y, bins)
    table.compare("AUC, same bins", where, auc["estimate"], area)
    table.compare(
        "DeLong interval, same bins", where, auc["ci"], None if error is None else binary.interval(area, error)
    )
    raw, raw_error = binary.auc(y, grid)
    bound = auc["bound"] + EXACT
    table.compare("AUC, unbinned, stated bound", where, auc["estimate"], raw, bound)
    if error is not None:
        slack = binary.interval_slack(y, grid, bins) + EXACT
        table.compare("DeLong interval, unbinned", where, auc["ci"], binary.interval(raw, raw_error), slack)
    short = max(0.0, binary.doubt(y, grid, bins) - auc["bound"])
    table.note("stated bound too small by", where, max(short, auc["bound"] if run.exact else 0.0), EXACT, 1)
    roc, points, precision = binary.curves(y, bins)
    table.compare("ROC, precision-recall", where, figures["roc"], roc)
    table.compare("ROC, precision-recall", where, figures["pr"], points)
    table.compare("average precision, same bins", where, figures["average_precision"], precision)
    if "folds_mean" in auc:
        folds = [binary.auc(y[f], bins[f])[0] for f in (patients["fold"] == k for k in sorted(set(patients["fold"])))]
        table.compare("AUC, mean of the folds", where, auc["folds_mean"], None if None in folds else np.mean(folds))


def check_calibration(run, table, cohort, figures, where, y, score, bins):
    """Recalibration, integrated calibration index, groups and their test."""
    found = binary.recalibration(y, score) if len(set(y)) == 2 else {}
    table.compare("calibration intercept", where, figures["intercept"], found.get("intercept"))
    table.compare("calibration slope", where, figures["slope"], found.get("slope"))
    for name in ("intercept_ci", "slope_ci"):
        table.compare("calibration intervals", where, figures[name], found.get(name))
    index = binary.ici(y, score, binary.knots(score, bins)) if bins is not None else None
    table.compare("integrated calibration index", where, figures["ici"], index)
    order = np.argsort(score, kind="stable")
    ends = np.cumsum([n for _, _, n in figures["curve"]])
    blocks = np.split(order, ends[:-1])
    table.compare(
        "calibration curve", where, figures["curve"], [[score[b].mean(), y[b].mean(), len(b)] for b in blocks]
    )
    if bins is not None:
        table.compare("groups of ten", where, figures["curve"], binary.groups(y, score, bins, run.minimum))
    test = binary.hosmer_lemeshow(figures["curve"], 2 if cohort.startswith("train") else 0)
    ours = figures["hosmer_lemeshow"]
    if test is None:
        table.compare("Hosmer-Lemeshow", where, ours, None)
    else:
        table.compare("Hosmer-Lemeshow", where, [ours[k] for k in test], list(test.values()))


def check_survival(run, table, model, cohort, endpoint, figures, where):
    """Figures of a score against times and events on one cohort."""
    if "withheld" in figures:
        table.withheld += 1
        return
    if run.kind(endpoint) == "binary":
        endpoint = run.study["validation"]["survival"]
    known = run.study["endpoint"][endpoint]
    patients, time, event, score = followed(run, model, cohort, endpoint)
    check_concordance(run, table, model, known, figures, where, time, event, score)
    context = times.Context(run, table, where, time, event, score, patients, known, run.step(endpoint))
    times.check_scores(context, figures, run.results["models"][model])
    if "cutoff" not in figures:
        return
    if cohort == run.training() and run.cutoff_rule(model) == "median":
        table.compare("median cut-off", where, figures["cutoff"], np.sort(score)[int(np.ceil(len(score) / 2)) - 1])
    high = binary.on_grid(score) >= round(figures["cutoff"] * 1e4)
    times.check_groups(context, figures, high)
    shown = not 0 < min(high.sum(), (~high).sum()) < run.minimum
    for name, members in (("low", ~high), ("high", high)):
        curve, middle = figures["kaplan_meier"][name], figures["median"][name]
        rows = survival.kaplan_meier(time[members], event[members], run.minimum) if members.any() else None
        table.compare("Kaplan-Meier with limits", where, curve, rows)
        table.compare("median survival", where, middle, survival.median(rows) if rows else None)
    for label, key, make in (
        ("log-rank", "log_rank", survival.log_rank),
        ("hazard ratio, high against low", "hazard_ratio", survival.hazard_ratio),
    ):
        reference, ours = make(time, event, high) if shown else None, figures[key]
        if reference is None:
            table.compare(label, where, ours, None)
        else:
            for name, value in reference.items():
                table.compare(label, where, ours.get(name), value)


def check_concordance(run, table, model, known, figures, where, time, event, score):
    """C-index, AUC and Brier score at the horizons."""
    c, error = survival.c_index(time, event, binary.on_grid(score))
    ours = figures["c_index"]
    if c is None or "estimate" not in ours:
        table.compare("C-index", where, ours, c)
    else:
        bound = ours["bound"] + EXACT
        table.compare("C-index, stated bound", where, ours["estimate"], c, bound)
        slack = bound if run.exact else bound + survival.Z * survival.error_slack(time, event, ours["bound"])
        table.compare("interval of C", where, ours["ci"], binary.interval(c, error), slack)
    baseline = run.results["models"][model]["notes"].get("baseline")
    for horizon in known.get("horizon", ()):
        area, name = survival.auc_at(time, event, score, horizon), f"{horizon:.10g}"
        slack = 0.0 if run.exact or area is None else survival.auc_slack(time, event, score, horizon)
        table.compare("AUC at horizons", where, figures["auc_at"][name], area, slack + EXACT)
        expected = None
        if baseline is not None:
            passed = np.asarray(baseline["time"]) <= horizon
            hazard = np.asarray(baseline["cumulative_hazard"])[passed]
            expected = survival.brier_at(time, event, score, horizon, np.exp(-hazard[-1]) if passed.any() else 1.0)
        table.compare("Brier score at horizons", where, figures["brier_at"][name], expected)


def check_heterogeneity(run, table, model, cohort, endpoint, patients, figures):
    """Random-effects summary of the sites' own figures, where a cohort has one."""
    ours = figures.get("heterogeneity") or figures.get("survival", {}).get("heterogeneity")
    if ours is None:
        return
    found = []
    for _, own in patients.groupby("site"):
        columns, score = [own[name].to_numpy() for name in run.outcome(endpoint)], run.scores(own, cohort, model)
        if run.kind(endpoint) == "binary":
            found.append(sites.of_binary(columns[0].astype(int), score, run.minimum))
        elif run.kind(endpoint) == "continuous":
            found.append(sites.of_numbers(columns[0], score, run.minimum))
        else:
            step = run.study["privacy"]["event_time_days"] / DAYS_PER_UNIT[run.study["endpoint"][endpoint]["unit"]]
            found.append(sites.of_survival(survival.coarse(columns[0], step), columns[1], score, run.minimum))
    for figure, record in ours.items():
        theirs = [own[figure] for own in found if own.get(figure)]
        if "undefined" in record:
            table.compare("between sites", f"{model}, {figure}", record, None)
            continue
        for name, value in sites.summary(figure, theirs, record.get("method")).items():
            # the reference's own fits stop at gradients of 1e-8
            table.compare("between sites", f"{model}, {figure}, {name}", record[name], value, 1e-6)


def check_comparison(run, table, entry):
    """One paired DeLong test, with the published bins of both scores and without."""
    if entry["test"] == "concordance":
        timed = [followed(run, entry[k], entry["cohort"], run.endpoint(entry["cohort"], entry[k])) for k in ("a", "b")]
        times.check_difference(run, table, entry, timed)
        return
    where = f"{entry['a']} - {entry['b']}, {entry['cohort']}"
    pair = [labelled(run, entry[k], entry["cohort"])[1:4] for k in ("a", "b")]
    (y, a, a_bins), (_, b, b_bins) = pair
    if "withheld" in entry.get("difference", {}) if isinstance(entry["difference"], dict) else False:
        table.withheld += 1
        return
    if min((y == 0).sum(), (y == 1).sum()) < 2:
        table.compare("paired DeLong, same bins", where, entry["difference"], None)
        return
    test = binary.delong(y, a_bins, b_bins)
    for name in ("difference", "ci", "z", "p"):
        table.compare("paired DeLong, same bins", where, entry[name], test.get(name), EXACT)
    bound = sum(run.results["models"][entry[k]]["cohorts"][entry["cohort"]]["auc"]["bound"] for k in ("a", "b"))
    raw = binary.delong(y, binary.on_grid(a), binary.on_grid(b))
    table.compare("difference of AUCs, unbinned", where, entry["difference"], raw["difference"], bound + EXACT)
    at = [run.results["models"][entry[k]]["cohorts"][entry["cohort"]]["at_cutoff"].get("cutoff") for k in ("a", "b")]
    scores.check_reclassification(table, entry, where, y, (a, b), at)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    passed = [check(Path(out)) for out in sys.argv[1:]]
    print(f"\n{sum(passed)} of {len(passed)} runs agree with the pooled analysis")
    sys.exit(not all(passed))
