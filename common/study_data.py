"""Study data: the tables of study.toml about patients: variables, endpoints, parts; and what all tables share.

The attribute names are the keys of the file; see docs/study-file.md. What one table can know of itself is checked here,
what concerns several tables in study_checks.py.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

LARGEST_INTEGER = 2**53 - 1
"""Whole numbers beyond it have no exact RFC 8785 form, so they could not be hashed."""

MISSING_BY_KIND = {
    "continuous": ("refuse", "median", "mean", "indicator", "chained"),
    "binary": ("refuse", "median", "mean", "mode", "indicator", "chained"),
    "categorical": ("refuse", "mode", "indicator", "chained"),
}
DAYS_PER_UNIT = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}

Integer = Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=80)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError("the first number must be below the second")
    return bounds


Bounds = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Keys(BaseModel):
    """A table of a file: frozen, no unknown keys, no silent conversions, no infinities."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def level_text(value: object) -> str:
    """The text by which values are compared: 1, 1.0, "1" and "1.0" are one level.

    Texts keep their case and inner spaces; a text that is a plain decimal number counts as that number.
    """
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,15}(\.[0-9]{0,15})?", text):
            return text
        value = float(text)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _level(value: Any) -> int | float | str:
    """A level as declared: a whole number, a number or a text; 1.0 becomes 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("should be a number or a text")
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("should not be empty: an empty cell is a missing value")
        return value
    if not abs(value) <= LARGEST_INTEGER:  # refuses NaN too
        raise ValueError("should be a finite number below 2^53")
    return int(value) if float(value).is_integer() else value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, tuple) else (value,)


Level = Annotated[Any, PlainValidator(_level, json_schema_input_type=int | float | str)]
Horizons = Annotated[
    tuple[Positive, ...], BeforeValidator(_as_list, json_schema_input_type=Positive | tuple[Positive, ...])
]


class Header(Keys):
    """[study]: names, the primary endpoint and the seed of everything random."""

    name: Name
    title: str = ""
    primary: str
    seed: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] = 0
    patients: Annotated[int, Field(ge=1, le=LARGEST_INTEGER)] | None = Field(
        None, description="size of a generated cohort, where it is not the planned one; set by simulate --patients"
    )


class Variable(Keys):
    """[[variable]]: one column every site provides, in the study's units and codes."""

    name: Name
    kind: Literal["continuous", "binary", "categorical"]
    unit: str = ""
    range: tuple[float, float] | None = None
    levels: tuple[Level, ...] = Field((), validate_default=True)
    missing: Literal["refuse", "median", "mean", "mode", "indicator", "chained"] = "refuse"

    @model_validator(mode="before")
    @classmethod
    def _default_levels(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("kind") == "binary" and "levels" not in given:
            return {**given, "levels": (0, 1)}
        return given

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind == "continuous" and self.levels:
            raise ValueError("levels belong to binary and categorical variables; remove them or change kind")
        if self.kind != "continuous" and self.range is not None:
            raise ValueError("range belongs to continuous variables; give levels instead")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range = {list(self.range)}: the first number must be below the second")
        if self.kind == "binary" and len(self.levels) != 2:
            raise ValueError(f"levels = {list(self.levels)}: a binary variable has two, the reference first")
        if self.kind == "categorical" and len(self.levels) < 2:
            raise ValueError("a categorical variable needs levels, at least two, the reference first")
        if len({level_text(level) for level in self.levels}) != len(self.levels):
            raise ValueError(f"levels = {list(self.levels)}: a level is given twice (1, 1.0 and '1' are the same)")
        if self.missing not in MISSING_BY_KIND[self.kind]:
            allowed = ", ".join(MISSING_BY_KIND[self.kind])
            raise ValueError(f"missing = {self.missing!r} does not fit a {self.kind} variable; use one of {allowed}")
        return self

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the design columns: ``age``; ``sex`` (levels 0, 1); ``chest_pain=2``, ...; reference level first."""
        if self.kind == "continuous" or [level_text(level) for level in self.levels] == ["0", "1"]:
            return (self.name,)
        return tuple(f"{self.name}={level_text(level)}" for level in self.levels[1:])

    @property
    def level_index(self) -> dict[str, int]:
        """Position of each level by its `level_text`."""
        return {level_text(level): i for i, level in enumerate(self.levels)}


class TableOne(Keys):
    """[table_one]: what Table 1 says beside means, quartiles and counts."""

    rank_tests: bool = Field(default=False, description="Mann-Whitney test of each continuous variable")


class Imputation(Keys):
    """[imputation]: how ``missing = "chained"`` is filled: cycles of the equations, and how many imputed data sets."""

    cycles: Annotated[int, Field(ge=1, le=50)] = 10
    imputations: Annotated[int, Field(ge=1, le=50)] = 1


class BinaryEndpoint(Keys):
    """[endpoint.NAME] of kind binary: `positive` counts as 1.

    With `negative` unset, 0 is the negative of ``positive = 1``; of any other positive, every other value given is.
    """

    kind: Literal["binary"]
    column: Name
    positive: Level = 1
    negative: Level | None = None

    @model_validator(mode="after")
    def _two_values(self) -> Self:
        if self.negative is not None and level_text(self.negative) == level_text(self.positive):
            raise ValueError(f"positive and negative are both {self.positive!r}; they must differ")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a site must provide."""
        return (self.column,)


class SurvivalEndpoint(Keys):
    """[endpoint.NAME] of kind survival: a right-censored time and its event indicator (0 or 1).

    `competing` are further values of the event column: events after which this one cannot happen any more.
    """

    kind: Literal["survival"]
    time: Name
    event: Name
    unit: Literal["days", "weeks", "months", "years"] = "days"
    horizon: Horizons = ()
    # left out of the hash where there are none: a study without them is the study it always was
    competing: tuple[Level, ...] = Field(default=(), exclude_if=lambda value: not value)

    @model_validator(mode="after")
    def _two_columns(self) -> Self:
        if self.time == self.event:
            raise ValueError(f"time and event are both column {self.time!r}; they must differ")
        if list(self.horizon) != sorted(set(self.horizon)):
            raise ValueError(f"horizon = {list(self.horizon)}: must ascend, each once")
        codes = [level_text(code) for code in self.competing]
        if len(set(codes)) < len(codes) or {"0", "1"} & set(codes):
            raise ValueError(f"competing = {codes}: values of {self.event!r} other than 0 and 1, each once")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a site must provide."""
        return (self.time, self.event)

    @property
    def days_per_unit(self) -> float:
        """Length of `unit` in days (a year is 365.25 days, a month a twelfth of it)."""
        return DAYS_PER_UNIT[self.unit]


class ContinuousEndpoint(Keys):
    """[endpoint.NAME] of kind continuous: a number in the study's unit; a patient outside `range` is excluded."""

    kind: Literal["continuous"]
    column: Name
    unit: str = ""
    range: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _range_ascends(self) -> Self:
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range = {list(self.range)}: the first number must be below the second")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a site must provide."""
        return (self.column,)


Endpoint = Annotated[BinaryEndpoint | SurvivalEndpoint | ContinuousEndpoint, Field(discriminator="kind")]


class PartColumn(Keys):
    """A column of the site's own table that says which part a patient belongs to, and the values it uses."""

    column: Name
    train: Level
    internal: Level | None = None
    external: Level | None = None

    @property
    def parts(self) -> dict[str, str]:
        """Part by the `level_text` of its value."""
        values = {"train": self.train, "internal": self.internal, "external": self.external}
        return {level_text(value): part for part, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        given = [value for value in (self.train, self.internal, self.external) if value is not None]
        if len(given) < 2:
            raise ValueError("only train is named; name the value of internal or external too")
        if len(self.parts) != len(given):
            raise ValueError("two parts have the same value; each needs its own")
        return self


class Split(Keys):
    """[split]: which sites train, which are external, and what is held out at the training sites."""

    train: Annotated[tuple[Name, ...], Field(min_length=1)]
    external: tuple[Name, ...] = ()
    internal_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    part_column: PartColumn | None = None
    folds: Annotated[int, Field(ge=2, le=50)] | None = None
    # left out of the hash where it is 1: a study without it is the study it always was
    repeats: Annotated[int, Field(ge=1, le=50, exclude_if=lambda value: value == 1)] = 1

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.internal_fraction is not None and self.part_column is not None:
            raise ValueError("internal_fraction and part_column exclude each other; keep one")
        if self.repeats > 1 and self.folds is None:
            raise ValueError(f"repeats = {self.repeats} repeats a cross-validation, and there is none; give folds")
        for key in ("train", "external"):
            names = getattr(self, key)
            if len(set(names)) != len(names):
                raise ValueError(f"{key} = {list(names)}: a site is given twice; keep one")
        if both := sorted(set(self.train) & set(self.external)):
            raise ValueError(f"site {both[0]!r} is in train and in external; keep one")
        return self

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites of the study, sorted."""
        return tuple(sorted((*self.train, *self.external)))
