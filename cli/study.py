"""Study commands: start a study file, check it, publish its schema; for a coordinator."""

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cohortium.common.errors import StudyError

if TYPE_CHECKING:
    from cohortium.common.study import Study

StudyPath = Annotated[Path, typer.Argument(help="study.toml, or the folder that holds it.")]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder for the new study.toml.")] = Path(),
) -> None:
    """Write a commented study.toml that checks as it is."""
    path = folder / "study.toml"
    if path.exists():
        raise StudyError(f"{path}: exists already; remove it or name another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(resources.files("cohortium.cli").joinpath("study_template.toml").read_text(), encoding="utf-8")
    typer.echo(f"wrote {path}; edit it, then run: cohortium study check {path}")


def check(study: StudyPath) -> None:
    """Validate, and print the hash that sites approve."""
    from cohortium.common.study import load_study

    for line in summary(load_study(study)):
        typer.echo(line)


def schema() -> None:
    """Print the JSON schema."""
    from cohortium.common.study import study_schema

    typer.echo(json.dumps(study_schema(), indent=2))


def summary(study: "Study") -> list[str]:
    """What a person should see of a study before agreeing to it, a line each."""
    split, privacy = study.split, study.privacy
    if split.part_column is not None:
        held_out = f"part by column {split.part_column.column!r}"
    elif split.internal_fraction is not None:
        held_out = f"{split.internal_fraction:.0%} of training sites' patients held out"
    else:
        held_out = "nothing held out at training sites"
    lines = [
        f"study      {study.study.name}" + (f": {study.study.title}" if study.study.title else ""),
        f"hash       {study.hash}",
        f"primary    {study.study.primary} ({study.outcome_kind})",
        f"train      {', '.join(split.train)}",
        f"external   {', '.join(split.external) or 'none'}",
        f"split      {held_out}"
        + (f", {split.folds} folds" if split.folds else "")
        + (f" x {split.repeats}" if split.repeats > 1 else ""),
        f"variables  {', '.join(study.variables) or 'none'}",
        f"features   {', '.join(f'{name} ({f.kind})' for name, f in study.features.items()) or 'none'}",
        *(f"model      {name} ({study.model[name].kind}): {_predictors(study, name)}" for name in study.model_order),
        f"privacy    sums of {privacy.minimum_sites} sites or more, cells of {privacy.minimum_count} patients or more"
        + ("" if privacy.secure_aggregation else ", NOT masked"),
    ]
    lines += [f"opt-in     each site must agree to {key}" for key in study.opt_ins]
    if privacy.released_numbers is None:
        lines.append("warning    privacy.released_numbers is unset: how many numbers leave a site is not limited")
    else:
        lines.append(f"budget     at most {privacy.released_numbers} numbers leave a site, over all runs of this study")
    if study.federation.quorum:
        lines.append(f"quorum     {', '.join(study.federation.quorum)} in every round of a network")
    return lines


def _predictors(study: "Study", model: str) -> str:
    return ", ".join(study.model[model].predictors)
