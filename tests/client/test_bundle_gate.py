"""The gate: only the installed version's bundle passes, and nothing is ever loaded from a bundle."""

import inspect
import io
import zipfile

import pytest
from flwr.cli.build import build_fab_from_files
from flwr.supercore.superexec import run_superexec
from flwr.supernode.runtime import run_clientapp

from cohortium.client import bundle_gate
from cohortium.common import bundle
from cohortium.common.errors import SumRefused

# Flower's own builder uses a pattern class that its library renamed
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def built(**extra: bytes) -> bytes:
    """A bundle as Flower builds it, with extra files."""
    files = bundle.files() | {name.replace("__", "/") + ".py": content for name, content in extra.items()}
    return build_fab_from_files(files)[0]


def test_the_thin_bundle_passes_and_is_the_same_every_time():
    assert built() == built()
    assert len(built()) < 2000
    bundle_gate.check(built())


def test_a_bundle_with_its_own_client_app_is_refused(tmp_path):
    attack = built(cohortium__client__app=b"app = 'mine now'", cohortium____init__=b"")
    assert "cohortium/client/app.py" in bundle.contents(attack)
    with pytest.raises(SumRefused, match="no code is taken from a bundle"):
        bundle_gate.install_from_fab(attack, skip_prompt=True)


def test_a_changed_pyproject_is_refused():
    text = bundle.files()["pyproject.toml"].replace(b"cohortium.client.app:app", b"cohortium.client.evil:app")
    with pytest.raises(SumRefused, match="digest"):
        bundle_gate.check(build_fab_from_files({"pyproject.toml": text})[0])


def test_one_name_twice_and_no_zip_and_a_bomb_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("pyproject.toml", bundle.files()["pyproject.toml"])
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pyproject.toml", bytes(10_000_000))
    for content, reason in ((buffer.getvalue(), "twice"), (b"not a zip", "readable"), (bomb.getvalue(), "bytes")):
        with pytest.raises(SumRefused, match=reason):
            bundle_gate.check(content)


def test_the_app_that_answers_is_the_installed_one():
    from cohortium.client.app import app

    load = bundle_gate.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
    assert load("evil/app", "6.6.6", "hash") is app


def test_closing_puts_both_functions_in_place(monkeypatch):
    for name in bundle_gate.GUARDED:
        monkeypatch.setattr(run_clientapp, name, getattr(run_clientapp, name))  # restored afterwards
    bundle_gate.close()
    assert run_clientapp.install_from_fab is bundle_gate.install_from_fab
    assert run_clientapp.get_load_client_app_fn is bundle_gate.get_load_client_app_fn


def test_an_unknown_flower_does_not_run_ungated(monkeypatch):
    monkeypatch.delattr(run_clientapp, "install_from_fab")
    with pytest.raises(RuntimeError, match="install_from_fab"):
        bundle_gate.close()


def test_contract_with_the_pinned_flower():
    # the client process calls exactly these names, before it loads the app and through module globals
    source = inspect.getsource(run_clientapp.run_clientapp)
    assert "install_from_fab(fab.content" in source
    assert "get_load_client_app_fn(" in source
    assert source.index("install_from_fab(") < source.index("load_client_app_fn(\n")
    assert "get_executor(" in inspect.getsource(run_superexec.run_superexec)
