"""One door: nothing at a hospital but the door makes a reply, and nothing but the app hands bytes to the wire."""

import ast
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[2] / "client"
FILES = sorted(CLIENT.rglob("*.py"))
MAKES_REPLIES = {"door.py"}
PACKS_FOR_DISK = {"imaging/store.py", "noise.py"}  # measured cases in the cache; what a digest is made of
SENDS = {"app.py"}
FLOWER = {"app.py", "bundle_gate.py", "supernode.py", "worker.py"}  # none of the last three sees a table
NETWORK = {
    "socket", "socketserver", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib",
    "grpc", "asyncio", "xmlrpc", "paramiko",
}  # fmt: skip


def imports(path):
    """(module, name) of everything a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            yield from ((node.module or "", alias.name) for alias in node.names)


def users(module, name=None):
    """Files under client/ that import a module, or one name of it."""
    return {
        path.relative_to(CLIENT).as_posix()
        for path in FILES
        for found, what in imports(path)
        if (found == module and (name is None or what == name)) or f"{found}.{what}" == module
    }


def test_only_the_door_packs_a_reply():
    assert users("cohortium.common.codec", "pack") == MAKES_REPLIES | PACKS_FOR_DISK
    assert users("cohortium.client.door") == SENDS


def test_only_the_app_hands_bytes_to_the_wire():
    assert users("cohortium.common.wire", "to_record") == SENDS
    flower = {path for path in FILES if any(found.partition(".")[0] == "flwr" for found, _ in imports(path))}
    assert {path.relative_to(CLIENT).as_posix() for path in flower} == FLOWER


def test_only_the_door_masks_a_sum():
    calls = {
        path.relative_to(CLIENT).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("masked", "sign", "unmask")
    }
    assert calls == MAKES_REPLIES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CLIENT).as_posix())
def test_no_other_way_out_is_imported(path):
    assert not {found.partition(".")[0] for found, _ in imports(path)} & NETWORK
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert not names & {"__import__", "eval", "exec"}
