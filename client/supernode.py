"""Supernode: a hospital's connection to the federation: its node key and its two processes.

`start` runs two programmes from the workspace: *node* (Flower's SuperNode: talks to the coordinator over TLS under the
site's node key) and *worker* (answers each message behind the bundle gate). They share a secret that never leaves the
workspace; the node's own API listens on loopback only.
"""

import secrets
import time
import tomllib
from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cohortium.common import naps, processes
from cohortium.common.errors import SiteError

JOIN_FORMAT = "cohortium-join/1"
INVITE_FORMAT = "cohortium-invite/1"
READY = "SuperNode ID:"
"""What Flower's SuperNode logs once the coordinator has let it in."""


def folder(workspace: Path) -> Path:
    """Where the connection keeps its key, secret, logs and process ids."""
    return workspace / "online"


def join(site: str, workspace: Path, identity: str, out: Path) -> Path:
    """Make the node key, if there is none yet, and write the file that the coordinator enrols.

    Parameters
    ----------
    identity : str
        The site's public identity key as it stands in a roster.
    out : Path
        The join file; public keys only.
    """
    key_file = folder(workspace) / "node.key"
    if not key_file.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _write_private(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    node_key = _load_node_key(key_file).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    join_file = {"format": JOIN_FORMAT, "site": site, "identity": identity, "node_key": node_key}
    out.write_text(tomli_w.dumps(join_file))
    return out


def start(
    site: str, site_file: Path, workspace: Path, invite: Path, *, while_pid: int = 0, timeout_s: float = 60.0
) -> None:
    """Connect to the federation and stay connected until `stop`.

    Raises
    ------
    SiteError
        No node key, an invite that is none, or the coordinator did not let the node in.
    """
    here = folder(workspace)
    if not (here / "node.key").exists():
        raise SiteError(f"site {site} has no node key; run `cohortium site join` and have the coordinator enrol it")
    address, ca = read_invite(invite)
    processes.clear(here, ("node", "worker"))
    (here / "ca.pem").write_text(ca)
    _write_private(here / "worker.secret", secrets.token_bytes(32))
    (here / "node.log").write_text("")
    api = ["--host", "127.0.0.1", "--port", str(processes.free_port())]
    secret = ["--superexec-auth-secret-file", str(here / "worker.secret")]
    config = {"site": site, "site-file": str(site_file.resolve()), "workspace": str(workspace.resolve())}
    connection = ["--superlink", address, "--root-certificates", str(here / "ca.pem")]
    key = ["--auth-supernode-private-key", str(here / "node.key"), "--node-config", node_config(config)]
    run = {"flower_home": here / "flower", "while_pid": while_pid}
    processes.start(here, "node", "cohortium.client.supernode:main",
                    [*connection, *key, *api, *secret, "--isolation", "process"], **run)  # fmt: skip
    processes.start(here, "worker", "cohortium.client.worker:main",
                    ["--runtime-api-address", f"127.0.0.1:{api[-1]}", "--insecure", *secret], **run)  # fmt: skip
    deadline = time.monotonic() + timeout_s
    while READY not in (here / "node.log").read_text(errors="replace"):
        stopped = [name for name in ("node", "worker") if not processes.running(here, name)]
        if stopped or time.monotonic() > deadline:
            lines = processes.last_lines(here, stopped[0] if stopped else "node")
            processes.stop(here)
            raise SiteError(
                f"site {site} could not connect to {address}; is the federation running and the site enrolled?\n{lines}"
            )
        time.sleep(0.05)


def stop(workspace: Path) -> list[str]:
    """Leave the federation; returns what was running."""
    return processes.stop(folder(workspace))


def read_invite(invite: Path) -> tuple[str, str]:
    """Address and certificate authority of a federation.

    Raises
    ------
    SiteError
        The file is no invite.
    """
    try:
        content = tomllib.loads(invite.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SiteError(
            f"invite {invite.name} cannot be read ({error}); ask the coordinator for invite.toml"
        ) from error
    if content.get("format") != INVITE_FORMAT:
        raise SiteError(f"{invite.name} is no invite of this version; ask the coordinator for invite.toml")
    return content["address"], content["ca"]


def node_config(values: dict[str, str]) -> str:
    """Flower's notation for a node's own configuration: TOML values, quoted."""
    for key, value in values.items():
        if any(character in value for character in "\"'\\\n"):
            raise SiteError(f"{key} = {value!r}: Flower cannot take quotes or backslashes here; choose another path")
    return " ".join(f'{key}="{value}"' for key, value in values.items())


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)


def _load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    key = load_ssh_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SiteError(f"{path.name} is no elliptic-curve key; move it away and run `cohortium site join` again")
    return key


def main() -> None:
    """`flower-supernode` with short naps; same arguments."""
    from flwr.supernode.cli import flower_supernode

    naps.shorten_node_naps()
    naps.shorten_pull_retries()
    flower_supernode()
