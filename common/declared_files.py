"""Declared files: read TOML, validate it, and name every mistake at once, for study.toml, site.toml and their kin.

A mistake is told as ``study.toml: [model.full] predictors[2] = 'agee': is no variable; did you mean 'age'?``: file,
table, key, value and remedy.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from cohortium.common.errors import CohortiumError

Tables = TypeVar("Tables", bound=BaseModel)

SHOWN_MISTAKES = 40
SHOWN_CHARACTERS = 80
DEEPEST_TABLE = 3  # [split.part_column], [features.deep.weights]: deeper ones are told as keys
PATTERN_WORDS = {
    r"^[A-Za-z][A-Za-z0-9_-]*$": "letters, digits, _ and -, a letter first",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits",
    r"^(cpu|cuda(:[0-9]+)?)$": "cpu, cuda or cuda:N",
}
OUR_WORDS = {
    "tuple": "list",
    "dictionary": "table",
    "integer": "whole number",
    "string": "text",
    "boolean": "true or false",
}


class Mistake(NamedTuple):
    """One mistake of a file: ``table`` as ``[model.full]``, ``key`` as ``predictors[2]``, and what to do about it."""

    table: str
    key: str
    problem: str


def file_or_folder(path: Path | str, name: str) -> Path:
    """The file itself, or the one called `name` in the folder that `path` is."""
    path = Path(path)
    try:
        return path / name if path.is_dir() else path
    except OSError:  # a folder above may not be looked into: reading the file will say so
        return path


def read_toml(path: Path, *, role: str, error: type[CohortiumError]) -> dict[str, Any]:
    """Tables of a TOML file; whatever prevents reading is an `error` that names the path's role and the remedy."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise error(f"{role}: there is no file {path}; give the path of an existing file") from None
    except UnicodeDecodeError:
        raise error(f"{role} {path}: is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as broken:
        raise error(f"{role} {path}: is not TOML: {broken}; correct that line") from None
    except (RecursionError, ValueError) as broken:  # brackets nested too deep, a number of thousands of digits
        raise error(f"{role} {path}: cannot be read as TOML ({type(broken).__name__}); simplify it") from None
    except OSError as broken:
        raise error(f"{role} {path}: cannot be read ({broken.strerror}); check its permissions") from None


def validate(model: type[Tables], tables: dict[str, Any], *, source: str, error: type[CohortiumError]) -> Tables:
    """The tables as a validated `model`; all mistakes in one `error`."""
    try:
        return model.model_validate(_tuples(tables))
    except ValidationError as wrong:
        schema = _schema(model)
        items = wrong.errors(include_url=False)
        mistakes = [_mistake(item, tables, schema) for item in items if not _follows_from_another(item)]
    raise refusal(source, mistakes, error)


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def refusal(source: str, mistakes: Sequence[Mistake], error: type[CohortiumError]) -> CohortiumError:
    """The mistakes of a file as one error to raise, a line each."""
    lines = [_line(mistake) for mistake in dict.fromkeys(mistakes)]
    if len(lines) == 1:
        return error(f"{source}: {lines[0]}")
    more = len(lines) - SHOWN_MISTAKES
    tail = [f"... and {more} more"] if more > 0 else []
    return error("\n  ".join([f"{source} has {len(lines)} mistakes:", *lines[:SHOWN_MISTAKES], *tail]))


def _line(mistake: Mistake) -> str:
    place = " ".join(part for part in (mistake.table, mistake.key) if part)
    return f"{place}: {mistake.problem}" if mistake.key else f"{place} {mistake.problem}".strip()


def nearest(name: object, known: Iterable[object]) -> str:
    """The remedy for a name that is not known: the nearest known one, or the list of them."""
    texts = list(dict.fromkeys(str(item) for item in known))
    folded = {text.lower(): text for text in texts}
    if close := difflib.get_close_matches(str(name)[:SHOWN_CHARACTERS].lower(), folded, n=1, cutoff=0.5):
        return f"did you mean {folded[close[0]]!r}?"
    return f"use one of {', '.join(texts)}" if texts else "there is none to name; remove it"


def shown(value: object) -> str:
    """A value as a message shows it, cut to a line."""
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _tuples(value: Any) -> Any:
    """TOML arrays as tuples, which strict validation asks for."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _follows_from_another(item: Any) -> bool:
    """Pydantic also calls a list too short when its only item was refused; the item's own mistake says enough."""
    return item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]


def _mistake(item: Any, tables: dict[str, Any], schema: dict[str, Any]) -> Mistake:
    """A pydantic error in the words of the file."""
    kind, context, given = item["type"], item.get("ctx", {}), item["input"]
    if item["loc"][-1:] == ("[key]",):  # pydantic's way to point at a name rather than at what it names
        table, _ = _place(item["loc"][:-1], tables)
        return Mistake(table, f"name {shown(given)}", "should be letters, digits, _ and -, a letter first")
    # A mistake of a union is one of the key that tells its kinds apart
    telling = [context["discriminator"].strip("'")] if "discriminator" in context else []
    table, key = _place([*item["loc"], *telling], tables)
    if kind == "extra_forbidden":
        return Mistake(table, key, f"unknown key; {nearest(item['loc'][-1], _known_keys(item['loc'], schema))}")
    if kind == "missing":
        return Mistake(table, key, "required key is missing; add it")
    if kind == "union_tag_not_found":
        return Mistake(table, key, "required key is missing; add it")
    if kind == "union_tag_invalid":
        expected = [text.strip("' ") for text in context["expected_tags"].split(",")]
        value = given if isinstance(given, str) else given[telling[0]]
        return Mistake(table, f"{key} = {shown(value)}", f"is not known; {_one_of(value, expected)}")
    place = f"{key} = {shown(given)}" if key and not isinstance(given, dict) else key
    if kind == "literal_error":
        expected = [text.strip("' ") for text in context["expected"].replace(" or ", ", ").split(", ")]
        return Mistake(table, place, f"is not known; {_one_of(given, expected)}")
    if kind == "value_error":
        return Mistake(table, place, str(context["error"]))
    if kind == "string_pattern_mismatch":
        return Mistake(table, place, f"should be {PATTERN_WORDS.get(context['pattern'], context['pattern'])}")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Mistake(table, place, "should be a table (key = value, ...)")
    if kind == "too_short":
        return Mistake(table, place, f"is empty; name at least {context['min_length']}")
    text = item["msg"].replace("Input should", "should").replace("valid ", "")
    for pydantic_word, ours in OUR_WORDS.items():
        text = text.replace(pydantic_word, ours)
    return Mistake(table, place, text[:1].lower() + text[1:])


def _one_of(value: object, expected: list[str]) -> str:
    close = nearest(value, expected)
    return close if close.startswith("use one of") else f"{close} (one of {', '.join(expected)})"


def _joined(key: str, last: str) -> str:
    return f"{key}.{last}" if key else last


def _place(loc: Sequence[str | int], tables: Any) -> tuple[str, str]:
    """Where in the file a mistake is: table heading, and key within that table."""
    table, name, key = "", "", ""
    in_table = True
    for depth, (part, value) in enumerate(_steps(loc, tables)):
        first = value[0] if isinstance(value, list | tuple) and value else value
        if isinstance(part, int) and in_table and isinstance(value, dict) and isinstance(value.get("name"), str):
            name = value["name"]
        elif isinstance(part, int) and in_table:
            table += f"[{part + 1}]"
        elif isinstance(part, int):
            key += f"[{part + 1}]"
        elif in_table and isinstance(first, dict) and depth < DEEPEST_TABLE:
            table = _joined(table, part)
        else:
            in_table = False
            key = _joined(key, part)
    if name:
        return f"[[{table}]] {shown(name)}", key
    return f"[{table}]" if table else "", key


def _steps(loc: Sequence[Any], tables: Any) -> Iterator[tuple[Any, Any]]:
    """Keys and indices of `loc` with what stands there in the file.

    Between them pydantic puts the tags of unions: what is no key of the file at that point is one, unless last.
    """
    here: Any = tables
    for depth, part in enumerate(loc):
        keys: Any = here if isinstance(here, dict) else range(len(here)) if isinstance(here, list | tuple) else ()
        if part not in keys and depth < len(loc) - 1:
            continue
        here = here[part] if part in keys else None
        yield part, here


def _known_keys(loc: Sequence[str | int], schema: dict[str, Any]) -> list[str]:
    """Keys that the schema knows where the last part of `loc` stands."""
    kinds = [schema]
    for part in loc[:-1]:
        tagged = [kind for kind in kinds if part in _tags(kind)]
        kinds = tagged or [below for kind in kinds for below in _below(kind, part, schema)]
    return [name for kind in kinds for name in kind.get("properties", {})]


def _tags(kind: dict[str, Any]) -> set[str]:
    """By what a union tells this kind from others: a constant key, or its name."""
    return {str(key.get("const")) for key in kind.get("properties", {}).values()} | {kind.get("title", "")}


def _below(kind: dict[str, Any], part: str | int, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Schemas of what stands at a key or an index of `kind`, references and unions resolved."""
    if isinstance(part, int):
        below = kind.get("items", {})
    else:
        named = kind.get("additionalProperties") or next(iter(kind.get("patternProperties", {}).values()), {})
        below = kind.get("properties", {}).get(part, named)
    pending, found = [below], []
    while pending:
        item = pending.pop()
        if not isinstance(item, dict):
            continue
        if "$ref" in item:
            pending.append(schema["$defs"][item["$ref"].rsplit("/", 1)[-1]])
        elif "anyOf" in item or "oneOf" in item:
            pending += item.get("anyOf", []) + item.get("oneOf", [])
        else:
            found.append(item)
    return found
