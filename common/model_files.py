"""Model files: the folder of a fitted model, written by a run, read by `cohortium predict`; nothing of it is executed.

- model.json: what the model is, in study units: terms, estimates, what the training patients were like
- study.toml: the study as run
- objects/: what a site scores with (common/codec.py), each named by its sha256: the model, the models below it,
  harmonisations, equations that fill gaps, the background of SHAP values
- weights/: weight files of the networks that draw regions on its images and measure them, each named by its sha256
- card.md: the model card
- SHA256SUMS: of model.json, study.toml and objects, as ``sha256sum --check`` reads it
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from cohortium.common.codec import unpack
from cohortium.common.declared_files import validate
from cohortium.common.errors import ModelError, StudyError, WireError
from cohortium.common.study import Study, load_study
from cohortium.common.study_data import Keys, Name, Sha256
from cohortium.common.study_networks import NetworkFile

FORMAT = "cohortium-model/2"
SUMS, DESCRIPTION, STUDY = "SHA256SUMS", "model.json", "study.toml"
LISTED = re.compile(r"([0-9a-f]{64})  (model\.json|study\.toml|objects/([0-9a-f]{64})\.coh)")
"""A line of SHA256SUMS: no other name is ever opened, so none can lead out of the folder."""
AGAIN = "copy the whole folder of the model from the run again"

Numbers = tuple[float, ...]
Why = str


Table = TypeVar("Table", bound=Keys)


def _sized(table: Table, size: int, *lists: tuple[Any, ...]) -> Table:
    """The table, where each of its lists is of one size."""
    if any(len(items) != size for items in lists):
        raise ValueError("its lists differ in length")
    return table


class StudyName(Keys):
    """The study that a model is of."""

    name: Name
    hash: Sha256


class Training(Keys):
    """What the training patients of a model were like, column by column; scale 0 where that is not known."""

    columns: tuple[str, ...]
    centre: Numbers
    scale: Numbers

    @model_validator(mode="after")
    def _one_of_each_column(self) -> Self:
        return _sized(self, len(self.columns), self.centre, self.scale)


class Axis(Keys):
    """A predictor, and points of its values: of the ends of a straight line, or of levels, the reference first."""

    variable: str
    points: Annotated[tuple[tuple[float | int | str, float], ...], Field(min_length=1)]


class Nomogram(Keys):
    """Points; see strategies/nomogram.py. `columns` and `slopes` give the contribution of a patient's values."""

    axes: tuple[Axis, ...]
    points_per_unit: float
    lowest: float
    columns: tuple[str, ...]
    slopes: Numbers

    @model_validator(mode="after")
    def _one_slope_a_column(self) -> Self:
        return _sized(self, len(self.columns), self.slopes)


class Covariance(Keys):
    """Of the coefficients on the standardised scale, intercept first where `intercept`; and what it says of patients.

    `information` patients' worth of information lie about `middle`, standardised (strategies/applicability.py).
    """

    matrix: tuple[Numbers, ...]
    intercept: bool
    information: float
    middle: Numbers
    degrees_of_freedom: float | None

    @model_validator(mode="after")
    def _square(self) -> Self:
        size = len(self.middle) + self.intercept
        return _sized(_sized(self, size, self.matrix), size, *self.matrix)


class Baseline(Keys):
    """Cumulative hazard of a patient whose score is 0, in the endpoint's unit."""

    time: Numbers
    cumulative_hazard: Numbers

    @model_validator(mode="after")
    def _one_hazard_a_time(self) -> Self:
        return _sized(self, len(self.time), self.cumulative_hazard)


class Description(Keys):
    """model.json; a text in place of a table says why there is none."""

    format: Literal["cohortium-model/2"]
    name: Name
    study: StudyName
    kind: str
    endpoint: str
    outcome: Literal["binary", "survival", "continuous"]
    model: Sha256
    columns: tuple[str, ...]
    terms: tuple[str, ...]
    estimates: Numbers
    cutoff: float | None
    patients: int | None
    covariance: Covariance | Why
    nomogram: Nomogram | Why
    baseline: Baseline | Why
    training: dict[Name, Training]
    shares: dict[str, float] = Field(description="of the training patients with a level, by term")
    constant: tuple[str, ...] = Field(description="terms of one value only in training")
    features: dict[Name, tuple[str, ...]] = Field(description="columns of each feature set, in their order")
    libraries: dict[str, str] = Field(default_factory=dict, description="versions of what measures its images")
    background: Sha256 | None = Field(default=None, description="public rows that SHAP values are against, an object")

    @model_validator(mode="after")
    def _of_its_columns(self) -> Self:
        columns, training = len(self.columns), self.training.get(self.name)
        if isinstance(self.covariance, Covariance):
            _sized(self, columns, self.covariance.middle)
        return _sized(self, columns, training.columns) if training else self


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A model as it was read; `objects` by their digest."""

    folder: Path
    description: Description
    study: Study
    objects: Mapping[str, Mapping[str, Any]]


def write_model(
    folder: Path, description: Mapping[str, Any], study: Study, objects: Mapping[str, bytes], card: str
) -> None:
    """Write the folder of a model; SHA256SUMS last, since nothing is read without it."""
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    files = {f"objects/{digest}.coh": data for digest, data in sorted(objects.items())}
    files[DESCRIPTION] = (json.dumps(description, indent=1, allow_nan=False) + "\n").encode()
    files[STUDY] = study.to_toml().encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "card.md").write_text(card, encoding="utf-8")
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())]
    (folder / SUMS).write_text("".join(sums), encoding="ascii")


def read_model(folder: Path) -> SavedModel:
    """Read and check the folder of a model.

    Raises
    ------
    ModelError
        It is none, of another format, incomplete, or changed.
    """
    digests = _listed(folder)
    files = {name: _checked(folder, name, digest) for name, digest in digests.items()}
    if missing := {DESCRIPTION, STUDY} - set(files):
        raise ModelError(f"model {folder}: {SUMS} does not list {sorted(missing)[0]}; {AGAIN}")
    description = _description(folder, files[DESCRIPTION])
    try:
        study = load_study(folder / STUDY)
    except StudyError as wrong:
        raise ModelError(f"model {folder}: its study cannot be read by this version: {wrong}") from None
    if study.hash != description.study.hash or description.name not in study.model:
        raise ModelError(f"model {folder}: {STUDY} is not the study of this model; {AGAIN}")
    objects = {}
    for name, data in files.items():
        if name.startswith("objects/"):
            try:
                objects[digests[name]] = unpack(data)
            except WireError as broken:
                raise ModelError(f"model {folder}: {name}: {broken}; {AGAIN}") from None
    return SavedModel(folder=folder, description=description, study=study, objects=objects)


def _listed(folder: Path) -> dict[str, str]:
    """Digest of each file that SHA256SUMS lists."""
    if not folder.is_dir():
        raise ModelError(f"model {folder}: there is no such folder; give the folder of a model, OUT/models/NAME")
    if not (folder / SUMS).exists():
        older = (folder / DESCRIPTION).exists()
        why = (
            f"was written by a version before {FORMAT}; run the study again"
            if older
            else "is no model; give OUT/models/NAME"
        )
        raise ModelError(f"model {folder}: {why}")
    listed = {}
    for number, line in enumerate(_read(folder, SUMS).decode("ascii", "replace").splitlines(), start=1):
        found = LISTED.fullmatch(line)
        if found is None or (found[3] and found[3] != found[1]):
            raise ModelError(f"model {folder}: {SUMS} line {number} names no file of a model; {AGAIN}")
        listed[found[2]] = found[1]
    return listed


def _checked(folder: Path, name: str, digest: str) -> bytes:
    data = _read(folder, name)
    if (found := hashlib.sha256(data).hexdigest()) != digest:
        raise ModelError(
            f"model {folder}: {name} is damaged or changed (sha256 {found[:12]}, not {digest[:12]}); {AGAIN}"
        )
    return data


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as broken:
        raise ModelError(f"model {folder}: {name} cannot be read ({broken.strerror}); {AGAIN}") from None


def _description(folder: Path, data: bytes) -> Description:
    try:
        tables = json.loads(data)
    except (ValueError, RecursionError):
        raise ModelError(f"model {folder}: {DESCRIPTION} is not JSON; {AGAIN}") from None
    if not isinstance(tables, dict) or tables.get("format") != FORMAT:
        found = tables.get("format") if isinstance(tables, dict) else None
        raise ModelError(
            f"model {folder}: format {str(found)[:40]!r}, this version reads {FORMAT!r}; "
            "run the study again, or predict with the version that wrote it"
        )
    return validate(Description, tables, source=f"model {folder}: {DESCRIPTION}", error=ModelError)


def add_weights(models: Path, study: Study) -> None:
    """Copy the weight files that models in OUT/models measure images with beside them, where the study's lie here."""
    for name in study.model:
        for used in weight_files(study, _feature_sets(study, name)):
            source, target = study.resolve(used.file), models / name / "weights" / used.sha256
            if source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def weight_files(study: Study, feature_sets: Iterable[str]) -> list[NetworkFile]:
    """Weight files of networks that embed pictures for these feature sets, or draw the regions they look at."""
    sets = [study.features[name] for name in feature_sets]
    regions = {getattr(study.region[region], "of", region) for settings in sets for region in settings.regions}
    weights = [getattr(table, "weights", None) for table in [*sets, *(study.region[name] for name in sorted(regions))]]
    return [file for file in weights if isinstance(file, NetworkFile)]


def _feature_sets(study: Study, model: str) -> set[str]:
    """Feature sets of a model and the models below it."""
    below = study.model[model].models_below
    return {*study.model[model].feature_sets, *(used for name in below for used in _feature_sets(study, name))}
