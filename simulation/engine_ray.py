"""Ray engine: Flower's simulation engine answers for the sites in worker processes, several at a time.

For many virtual sites. `flwr.simulation.run_simulation` is marked as deprecated in favour of `flwr run`, which can only
start an app from a bundle; a study's body is a closure of this process (progress, overrides), so the function is used
as long as the pinned Flower has it, and its warning, which no user could act on, is silenced.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

from cohortium.common.processes import FLOWER_SWITCHES
from cohortium.common.transport import Transport
from cohortium.server.flower_transport import FlowerTransport
from cohortium.simulation.engines import Places, node_config

T = TypeVar("T")

START_WITHIN_S = 120.0
"""Seconds for ray's workers to come up; they import what a site's door needs."""
RAY_SWITCHES = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise a FutureWarning at every start
    "RAY_DEDUP_LOGS": "0",
    "OMP_NUM_THREADS": "1",
}


class PlacedApp(ClientApp):
    """The site's own client app, told by the number of its virtual node which site it is.

    Parameters
    ----------
    configs : sequence of node configurations
        By ``partition-id``.
    """

    def __init__(self, configs: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        self.configs = tuple(dict(config) for config in configs)

    def __call__(self, message: Message, context: Context) -> Message:
        from cohortium.client.app import app

        own = self.configs[int(context.node_config["partition-id"])]
        here = Context(
            run_id=context.run_id, node_id=context.node_id, node_config=dict(own), state=context.state, run_config={}
        )
        return app(message, here)


def ray(site_files: Places, body: Callable[[Transport], T], *, cpus: int | None = None) -> T:
    """Run a study's body with the sites in ray's worker processes.

    Parameters
    ----------
    site_files : mapping of site name to (site file, workspace)
    body : callable
        The study; runs in a thread of this process, its result is returned and its error raised.
    cpus : int, optional
        Sites that work at the same time; by default every core.
    """
    from flwr.simulation import run_simulation
    from flwr.supercore import telemetry

    os.environ.update(FLOWER_SWITCHES | RAY_SWITCHES)
    telemetry.FLWR_TELEMETRY_ENABLED = "0"  # read from the environment when Flower was imported, before this engine
    logging.getLogger("flwr").setLevel(logging.ERROR)  # also hides the deprecation notice, see above
    outcome: dict[str, Any] = {}
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        # Flower stamps a message with the task it was made in and leaves that unset in simulations
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = grid.run.run_id, context.node_id or 1, 1
        try:
            outcome["result"] = body(FlowerTransport(grid, site_files, START_WITHIN_S))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            outcome["error"] = error

    run_simulation(
        server_app=server,
        client_app=PlacedApp([node_config(site, *site_files[site]) for site in sorted(site_files)]),
        num_supernodes=len(site_files),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": cpus or os.cpu_count() or 1, "logging_level": "ERROR", "log_to_driver": False},
        },
    )
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]
