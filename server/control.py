"""Control: Flower's control API of one federation, as the coordinator uses it: sites in, studies started, logs out.

The control API has no accounts in the open version of Flower: whoever reaches it with the authority's certificate may
start and stop runs. It therefore listens on loopback only (see docs/decisions/0005-flower-deployment.md).
"""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from cohortium.common import bundle
from cohortium.common.errors import CohortiumError, SiteError

Value = str | bool


class FederationError(CohortiumError):
    """The federation's folder or its processes are not as they must be; the text says what to do."""


def address(folder: Path) -> str:
    """Where the federation of this folder listens, ``host:port`` on loopback.

    Raises
    ------
    FederationError
        The folder holds no federation.
    """
    try:
        public = tomllib.loads((folder / "invite.toml").read_text())["address"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise FederationError(f"{folder} holds no federation; run `cohortium federation start {folder}`") from error
    return f"127.0.0.1:{public.rpartition(':')[2]}"


@contextmanager
def connected(folder: Path) -> Iterator["Control"]:
    """The federation's control, closed afterwards; its refusals become a `FederationError`."""
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        server_address=address(folder),
        insecure=False,
        root_certificates=(folder / "ca.pem").read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="cohortium")],
    )
    try:
        yield Control(client)
    except httpx.HTTPStatusError as error:
        raise FederationError(f"the federation refused: {error.response.text.strip() or error}") from error
    except httpx.TransportError as error:
        raise FederationError(
            f"the federation at {address(folder)} does not answer ({error}); run `cohortium federation start {folder}`"
        ) from error
    finally:
        client.close()


class Control:
    """What a coordinator asks of Flower (see `connected`)."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def register(self, site: str, node_key: str) -> None:
        """Let a node with this public key (OpenSSH notation) in, under the site's name."""
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key
        from flwr.proto.control_pb2 import RegisterNodeRequest
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        loaded = load_ssh_public_key(node_key.encode())
        if not isinstance(loaded, EllipticCurvePublicKey):
            raise SiteError(f"the node key of site {site} is no elliptic-curve key; make it with `cohortium site join`")
        key = public_key_to_bytes(loaded)
        self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=site))

    def nodes(self) -> dict[str, str]:
        """Status of every enrolled site: `registered` (never came), `online`, `offline`."""
        from flwr.proto.control_pb2 import ListNodesRequest

        return {node.name: node.status for node in self._client.ListNodes(ListNodesRequest()).nodes_info}

    def runs(self) -> dict[int, str]:
        """Status of every run since the federation started, oldest first."""
        from flwr.proto.control_pb2 import ListRunsRequest

        runs = self._client.ListRuns(ListRunsRequest()).run_dict
        by_age = sorted(runs.values(), key=lambda run: run.pending_at)
        return {run.run_id: run.status.sub_status or run.status.status for run in by_age}

    def start_run(self, config: Mapping[str, Value]) -> int:
        """Start the server app with this run configuration; returns the run's number."""
        from flwr.cli.build import build_fab_from_files
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        content, _ = build_fab_from_files(bundle.files())
        request = StartRunRequest(
            fab=fab_to_proto(Fab(bundle.sha256(content), content, {})),
            override_config=user_config_to_proto(dict(config)),
        )
        return self._client.StartRun(request).run_id

    def logs(self, run_id: int) -> Iterator[str]:
        """What the server app prints, as it prints it, until the run ends."""
        from flwr.proto.control_pb2 import StreamLogsRequest

        for part in self._client.StreamLogs(StreamLogsRequest(run_id=run_id, after_timestamp=0.0)):
            yield part.log_output

    def outcome(self, run_id: int) -> tuple[str, str]:
        """How a run ended: (`completed`, `failed` or `stopped`; details)."""
        from flwr.proto.control_pb2 import ListRunsRequest

        status = self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id].status
        return status.sub_status or status.status, status.details

    def stop_run(self, run_id: int) -> None:
        """End a run; what it has finished stays in its folder."""
        from flwr.proto.control_pb2 import StopRunRequest

        self._client.StopRun(StopRunRequest(run_id=run_id))
