"""`cohortium predict`: a new patient's risk by a model of a finished run, on this machine."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cohortium.common.errors import ModelError

if TYPE_CHECKING:
    from cohortium.client.predict.saved import Model
    from cohortium.client.predict.score import Prediction

FORMAT = "cohortium-prediction/1"


def predict(
    model_dir: Annotated[Path, typer.Argument(help="Folder of a model: OUT/models/NAME of a run.")],
    values: Annotated[list[str] | None, typer.Option("--set", help="VARIABLE=VALUE of one patient; repeat.")] = None,
    patients: Annotated[Path | None, typer.Option(help="CSV table, a row a patient, instead of --set.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="NAME=PATH of an image, as the study names it.")] = None,
    mask: Annotated[list[str] | None, typer.Option(help="REGION=PATH, or IMAGE/REGION=PATH.")] = None,
    roi: Annotated[list[str] | None, typer.Option(help="REGION=NAME of its contour or segment, or a label.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write instead of the screen.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Score one patient, or a table of patients, with a model of a finished run; nothing leaves this machine."""
    from cohortium.client.predict import patients as given
    from cohortium.client.predict.saved import open_model
    from cohortium.client.predict.score import predict as score

    typed = [*(values or ()), *(image or ()), *(mask or ()), *(roi or ())]
    if patients and typed:
        raise ModelError("--patients goes without --set, --image, --mask and --roi; give these as columns of the table")
    if not patients and not typed:
        raise ModelError("no patient: give --set VARIABLE=VALUE for one, or --patients TABLE.csv for many")
    model = open_model(model_dir)
    if patients:
        people = given.in_table(patients, model.needs)
    else:
        one = given.typed(given.assignments(values or (), "--set"), model.saved.study, model.needs)
        files = given.paths(given.assignments(image or (), "--image"), given.IMAGE, model.saved.study)
        files |= given.paths(given.assignments(mask or (), "--mask"), given.MASK, model.saved.study)
        contours = {given.ROI + name: text for name, text in given.assignments(roi or (), "--roi").items()}
        people = [one._replace(given={**one.given, **files, **contours})]
    found = score(model, people)
    if all(prediction.score is None for prediction in found):
        raise ModelError("; ".join(f"patient {p.patient_id}: {p.refused}" for p in found[:20]))
    for prediction in found:
        for text in [*prediction.warnings, *([f"not scored: {prediction.refused}"] if prediction.refused else [])]:
            typer.echo(f"warning: patient {prediction.patient_id}: {text}", err=True)
    if as_json:
        text = json.dumps(_plain(model, found), indent=1, allow_nan=False) + "\n"
    else:
        text = _table(model, found) if patients else _page(model, found[0])
    if out:
        out.write_text(text, encoding="utf-8", newline="")
    else:
        typer.echo(text, nl=False)


def _plain(model: "Model", found: "list[Prediction]") -> dict[str, Any]:
    """As JSON; ``{"undefined": why}`` where there is no figure."""
    description = model.saved.description
    about = {key: getattr(description, key) for key in ("name", "kind", "endpoint", "outcome", "cutoff")}
    study = {"name": description.study.name, "hash": description.study.hash}
    return {
        "format": FORMAT,
        "model": {**about, "study": study},
        "patients": [_patient(prediction, _score_name(model)) for prediction in found],
    }


def _patient(prediction: "Prediction", score: str) -> dict[str, Any]:
    if prediction.score is None:
        return {"patient_id": prediction.patient_id, "refused": prediction.refused}
    survival, points = prediction.survival, prediction.points
    return {
        "patient_id": prediction.patient_id,
        score: prediction.score,
        "interval": _or_why(prediction.interval, list),
        "group": prediction.group or {"undefined": "the model has no cut-off"},
        "survival": _or_why(survival, lambda at: [{"time": t, "probability": p} for t, p in at]),
        "points": _or_why(
            points,
            lambda axes: {
                "total": sum(points for _, _, points in axes),
                "predictors": [{"variable": v, "value": value, "points": points} for v, value, points in axes],
            },
        ),
        "contributions": _or_why(
            prediction.contributions,
            lambda of: {
                "expected": of[0],
                "predictors": [{"variable": v, "value": value, "contribution": added} for v, value, added in of[1]],
            },
        ),
        "filled": list(prediction.filled),
        "warnings": list(prediction.warnings),
    }


def _or_why(figure: Any, plain: Any) -> Any:
    return {"undefined": figure} if isinstance(figure, str) else plain(figure)


def _score_name(model: "Model") -> str:
    return {"binary": "risk", "continuous": "prediction"}.get(model.saved.description.outcome, "linear_predictor")


def _number(model: "Model", value: Any) -> str:
    """A score as written: risks and linear predictors on their grid; a number in its own unit with seven digits."""
    return f"{value:.7g}" if model.saved.description.outcome == "continuous" else f"{value:.4f}"


def _table(model: "Model", found: "list[Prediction]") -> str:
    """CSV, a row a patient; a figure that does not exist is empty."""
    horizons = next((p.survival for p in found if isinstance(p.survival, list)), [])
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header = ["patient_id", _score_name(model), "low", "high", "group", *(f"survival.{t:g}" for t, _ in horizons)]
    writer.writerow([*header, "points", "filled", "warnings", "refused"])
    for p in found:
        if p.score is None:
            writer.writerow([p.patient_id, *[""] * (len(header) + 2), p.refused])
            continue
        low, high = ("", "") if isinstance(p.interval, str) else (_number(model, end) for end in p.interval)
        survival = [] if isinstance(p.survival, str) else ["" if s is None else f"{s:.4f}" for _, s in p.survival]
        points = "" if isinstance(p.points, str) else f"{sum(points for _, _, points in p.points):.1f}"
        row = [p.patient_id, _number(model, p.score), low, high, p.group or "", *survival, points]
        writer.writerow([*row, "; ".join(p.filled), "; ".join(p.warnings), ""])
    return stream.getvalue()


def _with_value(name: str, value: float | str) -> str:
    return f"  {name} = {value:.4g}" if isinstance(value, float) else f"  {name} = {value}"


def _page(model: "Model", p: "Prediction") -> str:
    """One patient, for reading."""
    assert p.score is not None  # a lone patient who is refused is an error
    description = model.saved.description
    unit = getattr(model.saved.study.endpoint[description.endpoint], "unit", "")
    lines = [
        (
            "model",
            f"{description.name} ({description.kind}) for {description.endpoint}; study {description.study.name}",
        ),
        (
            _score_name(model).replace("_", " "),
            _number(model, p.score) + (f" {unit}" if unit and description.outcome == "continuous" else ""),
        ),
    ]
    if isinstance(p.interval, str):
        lines.append(("interval", f"no interval: {p.interval}"))
    else:
        against = {
            "survival": ", against a patient with mean values",
            "continuous": ", of the mean of such patients; a single one varies more",
        }.get(description.outcome, "")
        low, high = (_number(model, end) for end in p.interval)
        lines.append(("interval", f"{low} to {high} (95 %{against})"))
    if p.group:
        lines.append(("group", f"{p.group} (high from {description.cutoff:.4g} on)"))
    if isinstance(p.survival, list):
        for time, probability in p.survival:
            told = "beyond the follow-up of the study" if probability is None else f"{probability:.4f}"
            lines.append((f"survival {time:g} {unit}", told))
    elif description.outcome == "survival":
        lines.append(("survival", f"none: {p.survival}"))
    if isinstance(p.points, str):
        lines.append(("points", f"none: {p.points}"))
    else:
        lines.append(("points", f"{sum(points for _, _, points in p.points):.1f} in all"))
        lines += [(_with_value(name, value), f"{points:.1f}") for name, value, points in p.points]
    if not isinstance(p.contributions, str):
        expected, variables = p.contributions
        lines.append(("contributions", f"to the linear predictor; {expected:.4f} before them"))
        lines += [(_with_value(name, value), f"{added:+.4f}") for name, value, added in variables]
    lines += [("filled", text) for text in p.filled]
    lines.append(("", "Made for research; not a medical device."))
    width = max(len(name) for name, _ in lines) + 2
    return "".join(f"{name:<{width}}{text}\n" if name else f"{text}\n" for name, text in lines)
