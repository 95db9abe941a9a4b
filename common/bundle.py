"""Bundle: the app that travels from the coordinator to the sites; it names the installed code and holds none.

Flower ships an app bundle (a zip) to every site and would import from it. Ours is one pyproject that refers to the
installed `cohortium`, so both sides can write down its digest without ever exchanging it. The digest covers names and
contents, not the zip's bytes, which differ between builds of zlib.
"""

import hashlib
import io
import tomllib
import zipfile
from importlib.metadata import version

import tomli_w

from cohortium.common.errors import WireError

MAX_BYTES = 65536  # ours has about 600; a zip bomb ends here
_MANIFEST = ".info/CONTENT"

_PYPROJECT = """\
[project]
name = "cohortium-app"
version = "{version}"
dependencies = []

[tool.flwr.app]
publisher = "cohortium"

[tool.flwr.app.components]
serverapp = "cohortium.server.app:app"
clientapp = "cohortium.client.app:app"

[tool.flwr.app.config]
study = ""
roster = ""
out = ""
resume = false
"""


def files() -> dict[str, bytes]:
    """The bundle's one file, in the notation that Flower's builder would give it."""
    tables = tomllib.loads(_PYPROJECT.format(version=version("cohortium")))
    return {"pyproject.toml": tomli_w.dumps(tables).encode()}


def sha256(content: bytes) -> str:
    """Flower's own hash of a bundle."""
    return hashlib.sha256(content).hexdigest()


def digest(files: dict[str, bytes]) -> str:
    """SHA-256 of names and contents, each length-prefixed, in the order of the names."""
    h = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            h.update(len(part).to_bytes(8, "little") + part)
    return h.hexdigest()


def contents(bundle: bytes) -> dict[str, bytes]:
    """Files of a bundle, without Flower's manifest.

    Raises
    ------
    WireError
        Not a zip, or larger than any bundle of ours.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise WireError(f"an app bundle of more than {MAX_BYTES} bytes; ours has one small file")
            names = archive.namelist()
            if len(names) != len(set(names)):
                raise WireError("an app bundle that holds one name twice")
            return {name: archive.read(name) for name in names if name != _MANIFEST}
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise WireError("an app bundle that is no readable zip file") from error


def approved() -> str:
    """Digest of the bundle that belongs to the installed version."""
    return digest(files())
