"""Engines: three ways to carry the same Flower messages to the sites' doors on one machine.

`in_process` calls the client app directly, `ray` lets Flower's simulation engine start workers for it, `deployment`
starts a real federation through the public commands. Each hands a `Transport` to the body of a study; nothing else in
the programme knows which engine runs.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from cohortium.common.errors import StudyError
from cohortium.common.transport import Transport
from cohortium.server.flower_transport import FlowerTransport

T = TypeVar("T")
Places = Mapping[str, tuple[Path, Path]]
"""Site name -> (site file, workspace)."""

_RUN = 1
_SERVER_NODE = 1


class InProcessGrid(Grid):
    """A Flower grid without a network: a pushed message is answered at once by the client app.

    Nodes answer one after the other in the order of their names, so a run is deterministic.

    Parameters
    ----------
    app : ClientApp
    node_configs : mapping of site name to that node's own configuration
    """

    def __init__(self, app: ClientApp, node_configs: Mapping[str, Mapping[str, str]]) -> None:
        self._app = app
        self._contexts = {
            node: Context(
                run_id=_RUN, node_id=node, node_config=dict(node_configs[site]), state=RecordDict(), run_config={}
            )
            for node, site in enumerate(sorted(node_configs), start=_SERVER_NODE + 1)
        }
        self._message_ids = (f"message-{i}" for i in itertools.count(1))
        self._replies: dict[str, Message] = {}
        # Flower stamps every new message with the task it was made in; here that is this process
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN, _SERVER_NODE, 1

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        for message in messages:
            message_id = next(self._message_ids)
            message.metadata.__dict__["_message_id"] = message_id  # as Flower's own grids do
            self._replies[message_id] = self._app(message, self._contexts[message.metadata.dst_node_id])
            pushed.append(message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        del timeout  # everything is answered when push returns
        return self.pull_messages(self.push_messages(messages))

    def set_run(self, run: object) -> None:
        raise NotImplementedError("an in-process grid is one run")

    @property
    def run(self) -> Run:
        raise NotImplementedError("an in-process grid has no SuperLink that could describe its run")

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError("deprecated by Flower; use flwr.app.Message")


def node_config(site: str, site_file: Path, workspace: Path) -> dict[str, str]:
    """What a node knows of its own site (see `client.app`)."""
    return {"site": site, "site-file": str(site_file.resolve()), "workspace": str(workspace.resolve())}


def run(engine: str, site_files: Places, body: Callable[[Transport], T], **deployed: Any) -> T | dict[str, Any]:
    """Run a study's body on an engine.

    Parameters
    ----------
    engine : {"in-process", "ray", "deployment"}
    site_files : mapping of site name to (site file, workspace)
    body : callable
        The study; gets the transport, its result is returned.
    deployed : study_file, out, roster_file, resume, progress
        What `deployment` hands to the commands instead of the body, which cannot travel.

    Raises
    ------
    StudyError
        There is no such engine.
    """
    if engine == "in-process":
        return in_process(site_files, body)
    if engine == "ray":
        from cohortium.simulation.engine_ray import ray

        return ray(site_files, body)
    if engine == "deployment":
        from cohortium.simulation.engine_deployment import deployment

        return deployment(site_files, **deployed)
    raise StudyError(f"there is no engine {engine!r}; use in-process, ray or deployment")


def in_process(site_files: Places, body: Callable[[Transport], T]) -> T:
    """Run a study's body with all sites in this process, sequentially.

    Parameters
    ----------
    site_files : mapping of site name to (site file, workspace)
    body : callable
        The study; gets the transport, its result is returned.
    """
    from cohortium.client.app import app

    configs = {site: node_config(site, *places) for site, places in site_files.items()}
    return body(FlowerTransport(InProcessGrid(app, configs), site_files, timeout_s=1.0))
