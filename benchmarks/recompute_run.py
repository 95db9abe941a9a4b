"""Recompute run: a finished run as `recompute` sees it: what was asked and published, and the patients' own scores."""

import json
import re
import tomllib

import pandas as pd
import pooled_binary as binary
import pooled_survival as survival

DAYS_PER_UNIT = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}


class Run:
    """A finished run: what it published, what it was asked, and the patients' scores."""

    def __init__(self, out):
        self.results = json.loads((out / "results.json").read_text())
        self.study = tomllib.loads((out / "study.toml").read_text())
        frames = [
            pd.read_csv(path, dtype={"patient_id": str}).assign(site=path.parent.name)
            for path in sorted(out.glob("sites/*/predictions.csv"))
        ]
        self.patients = pd.concat(frames, ignore_index=True)
        privacy = self.study["privacy"]
        self.minimum, self.exact = privacy["minimum_count"], privacy["score_resolution"] == "exact"

    def cohort(self, name, endpoint):
        """Patients of a cohort whose endpoint is known."""
        part = "train" if name.startswith(("cross_validated", "leave_one_site_out")) else re.match(r"\w+", name)[0]
        chosen = (self.patients["part"] == part) & self.patients["site"].isin(self.results["held_by"][name])
        level = re.search(r"/subgroup:(.+)=(.+)$", name) or re.search(r"/analysis:.*,(.+)=(.+)$", name)
        if level:
            chosen &= self.patients[f"subgroup.{level[1]}"].map(_level) == _level(level[2])
        return self.patients[chosen & self.patients[self.outcome(endpoint)[-1]].notna()]

    def outcome(self, endpoint):
        """Columns of an endpoint: outcome, or time and event."""
        table = self.study["endpoint"][endpoint]
        return [table["time"], table["event"]] if table["kind"] == "survival" else [table["column"]]

    def kind(self, endpoint):
        """``binary``, ``survival`` or ``continuous``."""
        return self.study["endpoint"][endpoint]["kind"]

    def scores(self, patients, cohort, model):
        """The scores a cohort is judged by: of the final model but for cross-validation."""
        if cohort.startswith("leave_one_site_out"):
            return patients[f"loso.{model}"].to_numpy()
        final = f"fit.{model}" if f"fit.{model}" in patients and cohort.startswith("train") else f"score.{model}"
        return patients[final].to_numpy()

    def endpoint(self, cohort, model):
        """The endpoint a model is held against in a cohort."""
        asked = re.search(r"/analysis:.+->([^,]+)", cohort)
        return asked[1] if asked else self.results["models"][model]["endpoint"]

    def step(self, endpoint):
        """Width of the grid of times, in the endpoint's unit."""
        return self.study["privacy"]["event_time_days"] / DAYS_PER_UNIT[self.study["endpoint"][endpoint]["unit"]]

    def cutoff_rule(self, model):
        """How the cut-off of a survival model was chosen; none of other models."""
        survival_model = self.kind(self.results["models"][model]["endpoint"]) == "survival"
        return self.study.get("validation", {}).get("cutoff", "median") if survival_model else None

    def training(self):
        """The cohort that cut-offs come from."""
        return "cross_validated" if "cross_validated" in self.results["held_by"] else "train"


def _level(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def labelled(run, model, cohort):
    """Outcome, score and published bins of a cohort; the bins are None where there is no ROC curve."""
    patients = run.cohort(cohort, run.endpoint(cohort, model))
    y = patients[run.outcome(run.endpoint(cohort, model))[0]].to_numpy().astype(int)
    score, roc = run.scores(patients, cohort, model), run.results["models"][model]["cohorts"][cohort].get("roc")
    bins, off = binary.bins_of(y, score, roc) if isinstance(roc, list) else (None, 0.0)
    return patients, y, score, bins, off


def followed(run, model, cohort, endpoint):
    """Patients of a cohort, their times on the study's grid, events and scores."""
    patients, columns = run.cohort(cohort, endpoint), run.outcome(endpoint)
    step = run.step(endpoint)
    time, event = survival.coarse(patients[columns[0]], step), patients[columns[1]].to_numpy().astype(int)
    return patients, time, event, run.scores(patients, cohort, model)
