"""Roster: the sites of a federation and the public identity key of each, in roster.toml, approved by its own hash.

Keys are Ed25519 (RFC 8032), 32 bytes, written as 64 hexadecimal digits. The order of the file makes no difference.
"""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import rfc8785
import tomli_w
from pydantic import model_validator

from cohortium.common.declared_files import read_toml, validate
from cohortium.common.errors import SiteError
from cohortium.common.study_data import Keys, Name, Sha256

PublicKey = Sha256  # both are 32 bytes as lower-case hexadecimal


class RosterSite(Keys):
    """[[site]]: a hospital and its identity."""

    name: Name
    identity: PublicKey


class Roster(Keys):
    """The sites that sum together; sorted by name whatever the order of the file."""

    site: tuple[RosterSite, ...]

    @model_validator(mode="before")
    @classmethod
    def _sorted(cls, tables: Any) -> Any:
        sites: Any = tables.get("site") if isinstance(tables, dict) else None
        named = isinstance(sites, tuple) and all(isinstance(s, dict) and isinstance(s.get("name"), str) for s in sites)
        return {**tables, "site": tuple(sorted(sites, key=lambda site: site["name"]))} if named else tables

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for key in ("name", "identity"):
            values = [getattr(site, key) for site in self.site]
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"site: {key} {twice[0]!r} is given twice; each site has its own")
        return self

    @cached_property
    def identities(self) -> dict[str, str]:
        """Public key (hexadecimal) by site, sorted by name."""
        return {site.name: site.identity for site in self.site}

    @property
    def names(self) -> tuple[str, ...]:
        """Site names, sorted."""
        return tuple(self.identities)

    @cached_property
    def canonical(self) -> bytes:
        """RFC 8785 JSON, what `hash` is of."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @cached_property
    def hash(self) -> str:
        """Sha256 of `canonical`, 64 hexadecimal digits: what a site approves."""
        return hashlib.sha256(self.canonical).hexdigest()

    def write(self, path: Path) -> None:
        """Write roster.toml."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomli_w.dumps(self.model_dump(mode="json")), encoding="utf-8")


def roster_of(identities: Mapping[str, str]) -> Roster:
    """A roster from public keys (hexadecimal) by site."""
    return parse_roster({"site": [{"name": name, "identity": key} for name, key in identities.items()]})


def parse_roster(tables: dict[str, Any], *, source: str = "roster.toml") -> Roster:
    """Validate a roster's tables; all mistakes in one SiteError."""
    return validate(Roster, tables, source=source, error=SiteError)


def load_roster(path: Path | str) -> Roster:
    """Read and validate roster.toml.

    Raises
    ------
    SiteError
        Names every mistake.
    """
    path = Path(path)
    return parse_roster(read_toml(path, role="roster file", error=SiteError), source=str(path))
