"""Study: what the sites agree on, read from study.toml, validated once, and known by its hash.

`load_study` is the only way in; every mistake of the file comes back in one StudyError.
"""

import graphlib
import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import rfc8785
import tomli_w
from pydantic import Field, PrivateAttr, model_validator

from cohortium.common.declared_files import file_or_folder, read_toml, refusal, validate
from cohortium.common.errors import StudyError
from cohortium.common.study_analysis import FederationOptions, Privacy, Validation
from cohortium.common.study_checks import cross_checks
from cohortium.common.study_data import Endpoint, Header, Imputation, Keys, Name, Split, TableOne, Variable
from cohortium.common.study_images import FeatureSet, Harmonise, Image, Region
from cohortium.common.study_models import Model

FILE_NAME = "study.toml"
OptIn = Literal[
    "secure_aggregation", "score_resolution", "event_time_days", "on_departure", "leave_one_site_out", "by_site", "tau2"
]
OPT_INS: tuple[OptIn, ...] = get_args(OptIn)


class Study(Keys):
    """A validated study; attribute names are the keys of study.toml (docs/study-file.md). Frozen; lists are tuples."""

    study: Header
    variable: tuple[Variable, ...] = ()
    endpoint: Annotated[dict[Name, Endpoint], Field(min_length=1)]
    image: dict[Name, Image] = Field(default_factory=dict)
    region: dict[Name, Region] = Field(default_factory=dict)
    features: dict[Name, FeatureSet] = Field(default_factory=dict)
    harmonise: Harmonise | None = None
    # left out of the hash where there is none: a study without it is the study it always was
    imputation: Imputation | None = Field(default=None, exclude_if=lambda value: value is None)
    table_one: TableOne | None = Field(default=None, exclude_if=lambda value: value is None)
    split: Split
    model: Annotated[dict[Name, Model], Field(min_length=1)]
    validation: Validation = Field(Validation(), validate_default=True)
    privacy: Privacy = Privacy()
    federation: FederationOptions = FederationOptions()

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tables: Any) -> Any:
        """Defaults that depend on other tables: a model's endpoint is the primary one, the cut-off follows its kind."""
        if not isinstance(tables, dict):
            return tables
        primary = _get(tables, "study", "primary")
        filled = dict(tables)
        if isinstance(models := tables.get("model"), dict) and isinstance(primary, str):
            filled["model"] = {
                name: {"endpoint": primary, **model} if isinstance(model, dict) else model
                for name, model in models.items()
            }
        if isinstance(validation := tables.get("validation", {}), dict):
            survival = isinstance(primary, str) and _get(tables, "endpoint", primary, "kind") == "survival"
            filled["validation"] = {"cutoff": "median" if survival else "youden", **validation}
        return filled

    @property
    def ranks_table_one(self) -> bool:
        """Whether Table 1 has Mann-Whitney tests."""
        return self.table_one is not None and self.table_one.rank_tests

    @cached_property
    def canonical(self) -> bytes:
        """RFC 8785 JSON of the study with all defaults: what `hash` is of, and what an approval stores."""
        return rfc8785.dumps(self.model_dump(mode="json", by_alias=True))

    @cached_property
    def hash(self) -> str:  # the name that study-format.md gives it
        """Sha256 of `canonical`, 64 hexadecimal digits; where the file lies makes no difference."""
        return hashlib.sha256(self.canonical).hexdigest()

    def to_toml(self) -> str:
        """The study as run: study.toml with defaults and overrides filled in; it loads to the same hash."""
        return tomli_w.dumps(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    def with_overrides(self, *, seed: int | None = None, **header: Any) -> "Study":
        """Another study, with another hash: `seed` and other keys of [study] replaced, all validated anew."""
        tables = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        tables["study"] |= header | ({} if seed is None else {"seed": seed})
        return parse_study(tables, source=FILE_NAME, folder=self._folder)

    def with_sites(self, *, train: Sequence[str], external: Sequence[str]) -> "Study":
        """Another study over other sites, all validated anew."""
        tables = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        tables["split"] |= {"train": list(train), "external": list(external)}
        return parse_study(tables, source=FILE_NAME, folder=self._folder)

    def resolve(self, file: str) -> Path:
        """Where a file named in the study lies: relative to the folder of study.toml."""
        return self._folder / file

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Variables by name, in the order of the file."""
        return {variable.name: variable for variable in self.variable}

    def terms(self, variable: str) -> tuple[str, ...]:
        """Names of a variable's design columns, e.g. ``("chest_pain=2", "chest_pain=3")``; see `Variable.terms`."""
        return self.variables[variable].terms

    def endpoint_of(self, model: str) -> Endpoint:
        """The endpoint that a model predicts."""
        return self.endpoint[self.model[model].endpoint]

    @property
    def outcome_kind(self) -> Literal["binary", "survival", "continuous"]:
        """Kind of the primary endpoint."""
        return self.endpoint[self.study.primary].kind

    @cached_property
    def model_order(self) -> tuple[str, ...]:
        """Names of the models, each after the models whose scores it uses; otherwise in the order of the file."""
        below = {name: model.models_below for name, model in self.model.items()}
        return tuple(graphlib.TopologicalSorter(below).static_order())

    @property
    def opt_ins(self) -> tuple[str, ...]:
        """Keys whose values each site must opt into when it approves: they let more out than the defaults do."""
        privacy = self.privacy
        wider = (
            not privacy.secure_aggregation,
            privacy.score_resolution == "exact",
            privacy.event_time_days < Privacy().event_time_days,
            self.federation.on_departure == "continue",
            self.validation.leave_one_site_out,
            self.validation.by_site,
            any(getattr(model, "tau2", "dl") == "reml" for model in self.model.values()),
        )
        return tuple(key for key, asked in zip(OPT_INS, wider, strict=True) if asked)

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites, sorted."""
        return self.split.sites

    def sites_of(self, part: str) -> tuple[str, ...]:
        """Sites that can hold patients of a part, sorted."""
        return tuple(site for site in self.sites if part in self.parts_of(site))

    def hides_its_sites(self, part: str) -> bool:
        """Whether enough sites hold a part for a sum over it to be nobody's own data."""
        return len(self.sites_of(part)) >= self.privacy.minimum_sites

    def parts_of(self, site: str) -> tuple[str, ...]:
        """Parts that a site's patients can belong to."""
        if site in self.split.external:
            return ("external",)
        if self.split.part_column is not None:
            return tuple(self.split.part_column.parts.values())
        return ("train",) if self.split.internal_fraction is None else ("train", "internal")


def load_study(path: Path | str) -> Study:
    """Read and validate a study file, or the study.toml of a folder.

    Raises
    ------
    StudyError
        Names every mistake with file, table, key, value and remedy.
    """
    file = file_or_folder(path, FILE_NAME)
    return parse_study(read_toml(file, role="study file", error=StudyError), source=str(file), folder=file.parent)


def parse_study(tables: dict[str, Any], *, source: str = FILE_NAME, folder: Path | None = None) -> Study:
    """Validate a study's tables, as `tomllib.loads(text)` or `json.loads(Study.canonical)` gives them.

    `source` names the file in messages; `folder` is where relative paths of the study start.
    """
    study = validate(Study, tables, source=source, error=StudyError)
    # the type checker sees this module under two names, common.study and cohortium.common.study
    if mistakes := cross_checks(study):  # pyright: ignore[reportArgumentType]
        raise refusal(source, mistakes, StudyError)
    study._folder = folder or Path()
    return study


def study_schema() -> dict[str, Any]:
    """JSON schema of study.toml (``cohortium study schema``)."""
    schema = Study.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": FILE_NAME}


def _get(tables: Any, *keys: str) -> Any:
    for key in keys:
        tables = tables.get(key) if isinstance(tables, dict) else None
    return tables
