"""Superlink: a federation on the coordinator's machine: made once, started, stopped; sites enrolled.

One folder holds everything. `start` runs two programmes from it: *superlink* (Flower's SuperLink: TLS, only enrolled
node keys) and *executor* (runs the studies). Flower keeps its registrations in memory, so the join files kept under
`enrolled/` are registered again at every start. Sites get `invite.toml` and `roster.toml`; nothing else leaves.
"""

import secrets
import socket
import time
import tomllib
from pathlib import Path

import tomli_w

from cohortium.common import processes
from cohortium.server import certificates
from cohortium.server.control import FederationError, address, connected

INVITE_FORMAT = "cohortium-invite/1"
JOIN_FORMAT = "cohortium-join/1"


def create(folder: Path, host: str, port: int) -> None:
    """Make certificates, the executor's secret and the invite."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = certificates.write(folder, host)
    certificates.write_private(folder / "executor.secret", secrets.token_bytes(32))
    invite = {"format": INVITE_FORMAT, "address": f"{host}:{port}", "ca": authority}
    (folder / "invite.toml").write_text(tomli_w.dumps(invite))


def start(folder: Path, host: str = "127.0.0.1", port: int = 0, *, while_pid: int = 0, timeout_s: float = 60.0) -> str:
    """Start the federation, making it the first time; returns its address once it answers.

    Parameters
    ----------
    host : str
        Name or address under which sites reach the coordinator, where a reverse proxy forwards only /v1/fleet/.
        Flower itself always listens on loopback.
    port : int
        0 takes a free one the first time; a federation keeps its port.
    while_pid : int
        Stop when this process ends; 0 for until `stop`.

    Raises
    ------
    FederationError
        It does not come up; with the end of its log.
    """
    if not (folder / "invite.toml").exists():
        create(folder, host, port or processes.free_port())
    runtime = address(folder)
    processes.clear(folder, ("superlink", "executor"))
    run = {"flower_home": (folder / "flower").resolve(), "while_pid": while_pid}
    secret = ["--superexec-auth-secret-file", "executor.secret"]
    superlink = ["--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key", "--ssl-ca-certfile", "ca.pem"]
    superlink += ["--host", "127.0.0.1", "--port", runtime.rpartition(":")[2]]
    superlink += ["--enable-supernode-auth", "--isolation", "process", "--disable-runtime-dependency-installation"]
    executor = ["--runtime-api-address", runtime, "--root-certificates", "ca.pem"]
    processes.start(folder, "superlink", "flwr.superlink.cli:flower_superlink", [*superlink, *secret], **run)
    processes.start(folder, "executor", "flwr.supercore.cli:flower_superexec", [*executor, *secret], **run)
    deadline = time.monotonic() + timeout_s
    while not _listens(runtime):
        if not processes.running(folder, "superlink") or time.monotonic() > deadline:
            lines = processes.last_lines(folder, "superlink")
            processes.stop(folder)
            raise FederationError(f"the federation did not start at {runtime}; is the port taken?\n{lines}")
        time.sleep(0.1)
    with connected(folder) as control:
        for join_file in sorted((folder / "enrolled").glob("*.toml")):
            join = read_join_file(join_file)
            control.register(join["site"], join["node_key"])
    return tomllib.loads((folder / "invite.toml").read_text())["address"]


def stop(folder: Path) -> list[str]:
    """Stop the federation; returns what was running."""
    return processes.stop(folder)


def read_join_file(path: Path) -> dict[str, str]:
    """What a site hands over to be enrolled: `site`, `identity`, `node_key`; public keys only.

    Raises
    ------
    FederationError
        The file is none.
    """
    try:
        join = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise FederationError(f"join file {path.name} cannot be read: {error}") from error
    if join.get("format") != JOIN_FORMAT or not {"site", "identity", "node_key"} <= set(join):
        raise FederationError(f"{path.name} is no join file of this version; ask the site to run `cohortium site join`")
    return join


def enrol(folder: Path, join_file: Path) -> dict[str, str]:
    """Let a site in: register its node key and keep its join file, which is returned.

    Raises
    ------
    FederationError
        A site of this name is already enrolled under other keys.
    """
    join = read_join_file(join_file)
    kept = folder / "enrolled" / f"{join['site']}.toml"
    if kept.exists():
        if read_join_file(kept) == join:
            return join
        raise FederationError(
            f"a site {join['site']} is already enrolled under other keys; if it made new ones, "
            f"remove {kept.name} from {kept.parent}, restart the federation and enrol it again"
        )
    with connected(folder) as control:
        control.register(join["site"], join["node_key"])
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(join_file.read_text())
    return join


def _listens(runtime: str) -> bool:
    host, _, port = runtime.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, int(port))) == 0
