"""Door: the only way in and out of a site while a study runs.

`answer` takes one request of the coordinator and gives one reply. It checks that this site approved the study and the
roster, lets the guard look at what is asked and at what was computed, masks it, and writes a line to the ledger before
anything leaves. No other code of a site hands numbers to the wire.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from cohortium.client.figures import finished_figures
from cohortium.client.predictions import write_predictions
from cohortium.client.standing import Standing, ledger_line, open_standing
from cohortium.common.codec import pack, unpack
from cohortium.common.errors import CohortiumError, Overflow, SumRefused, WireError
from cohortium.common.federation import Statistic
from cohortium.common.ledger import Ledger
from cohortium.strategies import registry, views

Reply = dict[str, Any]

# the last digits of a matrix product depend on the number of threads; all engines must agree to the last one
threadpoolctl.threadpool_limits(1)


def answer(request: bytes, *, site_file: Path, workspace: Path) -> bytes:
    """Answer one request.

    Parameters
    ----------
    request : codec bytes of ``{"kind", "study", "run", ...}``
    site_file, workspace : Path
        The site's own; they never come from the request.

    Returns
    -------
    Codec bytes: the reply, or ``{"refused": [[item, what, why], ...]}`` or ``{"overflow": [item, ...]}``. A refusal
    holds no value of a patient.
    """
    try:
        message = unpack(request)
        handle = HANDLERS.get(str(message.get("kind")))
        if handle is None:
            raise WireError("a request of a kind that this site does not know; install the coordinator's version")
        standing = open_standing(site_file, workspace, str(message.get("study")), str(message.get("run")))
    except (SumRefused, WireError) as refusal:
        sent = pack(_refusal(refusal))
        if workspace.is_dir():
            Ledger(workspace).append(ledger_line({}, {"refused": []}, sent))
        return sent
    try:
        reply = handle(standing, message)
    except (SumRefused, WireError) as refusal:
        reply = _refusal(refusal)
    sent = pack(reply)
    standing.ledger.append(ledger_line(message, reply, sent, roster=standing.roster.hash, by=standing.approvals))
    return sent


def _refusal(problem: CohortiumError) -> Reply:
    if isinstance(problem, SumRefused):
        return {"refused": [[None, problem.what, problem.why]]}
    return {"refused": [[None, "message", str(problem)]]}


def _hello(standing: Standing, message: Mapping[str, Any]) -> Reply:
    return {"hello": standing.sums.hello(message["study"], message["run"])}


def _flow(standing: Standing, message: Mapping[str, Any]) -> Reply:
    """Declared figures: approved with the study, sent once outside any sum."""
    del message
    return {
        "flow": standing.flow.declared(standing.study.privacy.minimum_count).plain(),
        "features": list(standing.context.table.feature_names),
        "made_by": standing.made_by,
    }


def _sum(standing: Standing, message: Mapping[str, Any]) -> Reply:
    parameters = unpack(message["parameters"])
    items = [unpack(item) for item in parameters["items"]]
    standing.install(parameters["objects"])
    # what may be summed over one set of sites only is computed here, never taken from the server
    slot = sorted({item["view"]["rows"]["part"] for item in items})
    if standing.study.privacy.secure_aggregation and list(message.get("slot", ())) != slot:
        raise SumRefused("slot", "the request names other parts than it asks about")
    shares, refused = [], []
    for index, item in enumerate(items):
        try:
            shares.append(_share(standing, item))
        except SumRefused as refusal:
            refused.append([index, refusal.what, refusal.why])
    if refused:
        return {"refused": refused}
    arrays = [np.asarray(field) for share in shares for field in share]
    if not standing.study.privacy.secure_aggregation:
        return {"arrays": arrays}
    try:
        return standing.sums.masked(message, lambda: [array.reshape(-1) for array in arrays])
    except Overflow as overflow:
        # which array did not fit, so that only its bound is widened
        owners = [index for index, share in enumerate(shares) for _ in share]
        return {"overflow": [owners[overflow.array]]}


def _share(standing: Standing, item: Mapping[str, Any]) -> Any:
    statistic: Statistic = registry.find(item["statistic"])
    standing.guard.admit(statistic.name, item["view"], standing.context)
    rows = views.build(item["view"], standing.context)
    share = statistic.local(rows, **item["parameters"])
    standing.guard.cells(statistic.name, share)
    return share


def _unmask(standing: Standing, message: Mapping[str, Any]) -> Reply:
    return standing.sums.unmask(message)


def _figures(standing: Standing, message: Mapping[str, Any]) -> Reply:
    parameters = unpack(message["parameters"])
    standing.install(parameters["objects"])
    return {"figures": finished_figures(standing, parameters["spec"])}


def _finish(standing: Standing, message: Mapping[str, Any]) -> Reply:
    """The end of a run: each patient's scores to the site's own disk, the run's key away."""
    parameters = unpack(message["parameters"])
    standing.install(parameters["objects"])
    write_predictions(standing.context, parameters["models"], standing.workspace / "predictions.csv")
    if standing.study.privacy.secure_aggregation:
        standing.sums.close(message["run"])
    standing.forget_run()
    return {"done": True}


HANDLERS: dict[str, Callable[[Standing, Mapping[str, Any]], Reply]] = {
    "hello": _hello,
    "flow": _flow,
    "sum": _sum,
    "unmask": _unmask,
    "figures": _figures,
    "finish": _finish,
}
