"""Model bundle: a fitted model with its preprocessing and a model card, in OUT/models/NAME, for `cohortium predict`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cohortium.common.study import Study
from cohortium.server.results import json_ready
from cohortium.server.stages.fitted import FittedModel

FORMAT = "cohortium-model/1"


def write_bundles(
    study: Study,
    fitted: Mapping[str, FittedModel],
    content: Mapping[str, Any],
    published: Mapping[str, bytes],
    out: Path,
) -> None:
    """Write one folder a model: ``model.json`` (recipe, coefficients), ``weights.npz`` (networks), ``card.md``.

    A model with others below it names them by their digest; the published objects that a recipe needs (harmonisations, equations that fill gaps)
    are written beside it in ``objects/``.
    """
    digests = {model.digest: name for name, model in fitted.items()}
    for name, model in fitted.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        recipe = dict(model.final.published)
        if "weights" in recipe:
            np.savez(folder / "weights.npz", weights=recipe.pop("weights"))
        needed = {block[key] for block in recipe["blocks"] for key in ("harmonise", "chain") if block.get(key)}
        for digest in needed:
            (folder / "objects").mkdir(exist_ok=True)
            (folder / "objects" / f"{digest}.coh").write_bytes(published[digest])
        blocks = [
            {**block, "model": digests[block["model"]]} if "model" in block else block for block in recipe["blocks"]
        ]
        bundle = {
            "format": FORMAT,
            "name": name,
            "study": {"name": study.study.name, "hash": study.hash},
            "kind": study.model[name].kind,
            "endpoint": study.model[name].endpoint,
            "outcome": study.endpoint_of(name).kind,
            "columns": list(model.final.columns.names),
            "cutoff": content["cutoffs"].get(name),
            **{**recipe, "blocks": blocks},
        }
        (folder / "model.json").write_text(json.dumps(json_ready(bundle), indent=1) + "\n", encoding="utf-8")
        (folder / "card.md").write_text(_card(study, name, content), encoding="utf-8")


def _card(study: Study, name: str, content: Mapping[str, Any]) -> str:
    """Model card (Mitchell et al., FAT* 2019), short: what it is for, on whom it was made, how well it does."""
    model = content["models"][name]
    lines = [
        f"# {name}",
        "",
        f"Kind: {model['kind']}. Endpoint: {model['endpoint']}. Study: {study.study.title or study.study.name} "
        f"({study.hash[:12]}).",
        "",
        "Made for research. Not a medical device; valid for patients like those below.",
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
    return "\n".join(lines) + "\n"
