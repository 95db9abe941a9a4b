"""Bundle gate: a hospital runs only what it installed, whatever bundle the coordinator sends.

Flower puts an app bundle first on the import path of the process that answers a message; a bundle with its own
`cohortium/client/app.py` would take the site over. The gate replaces the two functions of Flower's client process that
unpack a bundle and load an app from it: a bundle that is not the one of the installed version is refused before a byte
of it is written, and the app that answers is always the installed one. Both names are private to Flower; the version is
pinned and tests/client/test_bundle_gate.py holds them (docs/decisions/0004-flower-gate.md).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cohortium.common import bundle
from cohortium.common.errors import SumRefused, WireError

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

GUARDED = ("install_from_fab", "get_load_client_app_fn")
"""The two names of `flwr.supernode.runtime.run_clientapp` that the gate replaces."""


def check(content: bytes) -> None:
    """Refuse any bundle but that of the installed version.

    Raises
    ------
    SumRefused
        With both digests; a public text.
    """
    try:
        found = bundle.digest(bundle.contents(content))
    except WireError as error:
        raise SumRefused("app bundle", f"{error}; install the coordinator's version of cohortium") from error
    if found != bundle.approved():
        raise SumRefused(
            "app bundle",
            f"digest {found[:12]} is not that of the version installed here, {bundle.approved()[:12]}; "
            "both sides must install the same version, and no code is taken from a bundle",
        )


def install_from_fab(content: bytes, *_args: Any, **_kwargs: Any) -> Path:
    """Check the bundle; write nothing."""
    check(content)
    return Path()


def get_load_client_app_fn(**_kwargs: Any) -> Callable[[str, str, str], "ClientApp"]:
    """Load the installed app, whatever the bundle names."""

    def load(_fab_id: str, _fab_version: str, _fab_hash: str) -> "ClientApp":
        from cohortium.client.app import app

        return app

    return load


def close() -> None:
    """Put the gate into this process's Flower client.

    Raises
    ------
    RuntimeError
        Flower lacks a name that the gate replaces: an unsupported version must not run ungated.
    """
    from flwr.supernode.runtime import run_clientapp

    for name in GUARDED:
        if not hasattr(run_clientapp, name):
            raise RuntimeError(f"this Flower has no run_clientapp.{name}; install the pinned version")
        setattr(run_clientapp, name, globals()[name])
