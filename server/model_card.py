"""Model card (Mitchell et al., FAT* 2019), short: what a model is for, on whom it was made, how well it does."""

from collections.abc import Mapping
from typing import Any

from cohortium.common.study import Study


def card(study: Study, name: str, content: Mapping[str, Any]) -> str:
    """Text of a model's card.md, from what results.json holds."""
    model = content["models"][name]
    lines = [
        f"# {name}",
        "",
        f"Kind: {model['kind']}. Endpoint: {model['endpoint']}. Study: {study.study.title or study.study.name} "
        f"({study.hash[:12]}).",
        "",
        "Made for research. Not a medical device; valid for patients like those below.",
        "",
        "    cohortium predict THIS_FOLDER --set VARIABLE=VALUE ...      # one patient",
        "    cohortium predict THIS_FOLDER --patients TABLE.csv          # a table of patients",
        "",
        "## Patients",
        "",
        *(f"- {site['name']} ({site['role']}): {site['used']} of {site['given']} used" for site in content["sites"]),
        "",
        "## Performance",
        "",
    ]
    for cohort, figures in model["cohorts"].items():
        auc, survival = figures.get("auc"), figures.get("survival")
        if isinstance(auc, dict) and isinstance(auc.get("ci"), list):
            lines.append(f"- {cohort}: AUC {auc['estimate']:.3f} ({auc['ci'][0]:.3f} to {auc['ci'][1]:.3f})")
        elif isinstance(survival, dict) and isinstance(survival.get("c_index", {}).get("ci"), list):
            c = survival["c_index"]
            lines.append(f"- {cohort}: C-index {c['estimate']:.3f} ({c['ci'][0]:.3f} to {c['ci'][1]:.3f})")
        elif isinstance(figures.get("rmse"), float):
            lines.append(f"- {cohort}: RMSE {figures['rmse']:.4g}, mean absolute error {figures['mae']:.4g}")
    return "\n".join(lines) + "\n"
