"""Store: finished measurements on a site's disk, each under the sha256 of everything it depends on.

A killed prepare finds its finished cases here, and a study whose settings change finds none of the old ones.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cohortium.common.codec import pack, unpack
from cohortium.common.errors import SiteError, WireError


def content_key(what: Any, libraries: tuple[str, ...]) -> str:
    """sha256 of plain data (JSON) and of the versions of the libraries that turn it into numbers."""
    text = json.dumps({"what": what, "versions": _versions(libraries)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _versions(libraries: tuple[str, ...]) -> dict[str, str]:
    # Looked up on disk each time otherwise, for every case
    return {name: version(name) for name in libraries}


@dataclass(frozen=True)
class Store:
    """A folder of finished measurements; may be written by several processes at once."""

    folder: Path

    def get(self, key: str) -> dict[str, Any] | None:
        """What `put` stored under `key`; None where there is nothing whole."""
        try:
            return unpack(self._file(key).read_bytes())
        except (FileNotFoundError, WireError):
            return None
        except OSError as broken:
            raise self._failed("read", broken) from broken

    def put(self, key: str, measured: dict[str, Any]) -> None:
        """Store numbers, texts and arrays (see `codec`), all or nothing."""
        file = self._file(key)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(".draft")
            draft.write_bytes(pack(measured))
            draft.replace(file)
        except OSError as broken:
            raise self._failed("written", broken) from broken

    def remove(self, prefix: str) -> None:
        """Remove all that is stored under keys that begin so."""
        for file in self._file(prefix).parent.glob(f"{prefix}*"):
            file.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _failed(self, what: str, broken: OSError) -> SiteError:
        return SiteError(
            f"folder of finished cases {self.folder} cannot be {what}: {broken.strerror}; "
            "check its rights and the free space of the disk"
        )


def finished(store: Store, key: str) -> dict[str, Any]:
    """What was kept of a case that is known to be finished.

    Raises
    ------
    SiteError
        Somebody removed it meanwhile.
    """
    if (found := store.get(key)) is None:
        raise SiteError(f"a finished case is gone from {store.folder}; run prepare again")
    return found
