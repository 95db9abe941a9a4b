"""Door: the only way in and out of a site while a study runs.

`answer` takes one request of the coordinator and gives one reply. It checks that this site approved the study and the
roster, lets the guard look at what is asked and at what was computed, masks it, and writes a line to the ledger before
anything leaves. No other code of a site hands numbers to the wire.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from cohortium.client import disclosure
from cohortium.client.cohorts import cohort_of
from cohortium.client.figures import COHORT, FLOW, TABLE, charge, finished_figures
from cohortium.client.noise import account_of, noised_share
from cohortium.client.predictions import write_predictions
from cohortium.client.site_log import keep_traceback
from cohortium.client.standing import Standing, open_standing
from cohortium.common.codec import pack, unpack
from cohortium.common.errors import CohortiumError, Overflow, SumRefused, WireError
from cohortium.common.federation import Statistic
from cohortium.common.ledger import Ledger
from cohortium.common.sum_setup import read_roster
from cohortium.common.sum_slots import slots_of
from cohortium.strategies import registry, views

Reply = dict[str, Any]


@dataclass
class About:
    """What a message is about, as this site found and checked it: a line of its ledger, which believes no label."""

    kind: str = "unreadable"
    study: str = ""
    run: str = ""
    roster: str = ""
    approved_by: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()  # of the sum that this message goes into
    numbers: int = 0
    columns: int = 0  # of the second moments that were asked for over the fewest patients a column, and these patients
    patients: int = 0

    def squares(self, columns: int, patients: int) -> None:
        """Note second moments, if none of the message are wider for their patients."""
        if columns and columns * self.patients >= self.columns * patients:
            self.columns, self.patients = columns, patients

    def line(self, reply: Reply, sent: bytes) -> dict[str, Any]:
        """The ledger's line of a message that is about to leave: no number of it, but its size and digest."""
        return {
            **{key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()},
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "outcome": next((word for word in ("refused", "overflow") if word in reply), "sent"),
            "bytes": len(sent),
            "sha256": hashlib.sha256(sent).hexdigest(),
        }


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
    holds no value of a patient; a request that nothing can be made of is refused too, and why stays in the site's log.

    Raises
    ------
    OSError, sqlite3.Error
        The site's disk failed, so that nothing may leave; the same request can be asked again.
    """
    about = About()
    try:
        message = unpack(request)
        kind = str(message.get("kind"))
        if kind not in HANDLERS:
            raise WireError("a request of a kind that this site does not know; install the coordinator's version")
        about.kind = kind
        standing = open_standing(site_file, workspace, str(message.get("study")), str(message.get("run")))
        about.study, about.run = standing.study.hash, standing.run
        about.roster, about.approved_by = standing.roster.hash, standing.approvals
        _nothing_forgotten(workspace)
        reply = HANDLERS[kind](standing, message, about)
    except (SumRefused, WireError) as refusal:
        reply = _refusal(refusal)
    except (OSError, sqlite3.Error):
        raise
    except Exception:  # noqa: BLE001 - whatever a request sets off, its text may hold a patient's value and stays here
        keep_traceback(workspace)
        reply = _refusal(WireError("nothing can be made of this request; the reason is in the site's own log"))
    sent = pack(reply)
    if workspace.is_dir():
        Ledger(workspace).append(about.line(reply, sent))
    return sent


def _nothing_forgotten(workspace: Path) -> None:
    """Refuse while a database is older than the ledger: masks would serve twice, and what was spent be spent again."""
    if forgotten := Ledger(workspace).set_back():
        raise SumRefused(
            "restored database",
            f"{', '.join(forgotten)} of this site is older than its ledger, or gone, and no longer knows all that was "
            "answered; put its newest copy back. If there is none, the site must be enrolled anew with an empty "
            "workspace",
        )


def _refusal(problem: CohortiumError) -> Reply:
    if isinstance(problem, SumRefused):
        return {"refused": [[None, problem.what, problem.why]]}
    return {"refused": [[None, "message", str(problem)]]}


def _hello(standing: Standing, message: Mapping[str, Any], about: About) -> Reply:
    del about
    used = standing.flow.declared(standing.study.privacy.minimum_count).used
    return {"hello": standing.sums.hello(message["study"], message["run"], patients=used)}


def _flow(standing: Standing, message: Mapping[str, Any], about: About) -> Reply:
    """Declared figures: approved with the study, sent once outside any sum."""
    del message, about
    flow = standing.flow.declared(standing.study.privacy.minimum_count).plain()
    charge(standing, FLOW, flow, flow)
    return {
        "flow": flow,
        "features": list(standing.context.table.feature_names),
        "made_by": standing.made_by,
    }


def _sum(standing: Standing, message: Mapping[str, Any], about: About) -> Reply:
    parameters = unpack(message["parameters"])
    items = [unpack(item) for item in parameters["items"]]
    standing.install(parameters["objects"])
    # what may be summed over one set of sites only is computed here, never taken from the server
    about.statistics = tuple(sorted({registry.find(item["statistic"]).name for item in items}))
    about.parts = tuple(sorted({item["view"]["rows"]["part"] for item in items}))
    if standing.study.privacy.secure_aggregation:
        _check_mode(standing, message["mode"], about.statistics)
        if list(message["slot"]) != list(slots_of(message["mode"], items)):
            raise SumRefused("slot", "the request names other parts than it asks about, or other rounds")
        if message["statistic"] != " ".join(about.statistics):
            raise SumRefused("statistic", "the request names other statistics than it asks for")
    standing.meter.check_misfits()
    shares, charges, refused = [], [], []
    for index, item in enumerate(items):
        try:
            question = hashlib.sha256(parameters["items"][index]).digest()
            shares.append(_share(standing, item, message, about, question))
            charges.append((question, sum(np.asarray(field).size for field in shares[-1])))
        except SumRefused as refusal:
            refused.append([index, refusal.what, refusal.why])
    if not refused:
        full = standing.meter.beyond(dict(charges))
        refused = [[i, full[q].what, full[q].why] for i, (q, _) in enumerate(charges) if q in full]
    if refused:
        return {"refused": refused}
    arrays = [np.asarray(field) for share in shares for field in share]
    about.numbers = sum(array.size for array in arrays)
    if not standing.study.privacy.secure_aggregation:
        if not all(np.isfinite(array).all() for array in arrays):  # as the encoding of a masked sum asks
            raise SumRefused(" ".join(about.statistics), "a number is not finite; nothing was sent")
        standing.meter.charge(dict(charges))
        return {"arrays": arrays}

    def flat() -> list[NDArray[Any]]:  # asked for once the roster is found as approved and signed
        disclosure.check_patients(standing.study, (item["view"] for item in items), read_roster(message["roster"]))
        return [array.reshape(-1) for array in arrays]

    try:
        cohorts = [cohort_of(standing, part) for part in about.parts]
        reply = standing.sums.masked(message, flat, cohorts)
    except Overflow as overflow:
        # which array did not fit, so that only its bound is widened
        owners = [index for index, share in enumerate(shares) for _ in share]
        place = owners[overflow.array]
        standing.meter.misfit(charges[place][0] + pack({"layout": message["layout"]}))  # which holds the bound
        return {"overflow": [place]}
    standing.meter.charge(dict(charges))  # nothing was refused, and nothing has left yet
    about.sites = tuple(entry["site"] for entry in message["roster"])
    return reply


def _check_mode(standing: Standing, mode: str, statistics: tuple[str, ...]) -> None:
    """A sum goes on without a site only in rounds of networks, and where all sites agreed to it with the study."""
    agreed = standing.study.federation.on_departure == "continue"
    if mode != "whole" and not (agreed and all(registry.find(name).mode == "survivors" for name in statistics)):
        raise SumRefused("mode", "this sum does not go on without a site that drops out; ask it of the whole roster")


def _share(
    standing: Standing, item: Mapping[str, Any], message: Mapping[str, Any], about: About, question: bytes
) -> Any:
    statistic: Statistic = registry.find(item["statistic"])
    standing.guard.admit(statistic.name, item["view"], standing.context)
    if standing.study.privacy.dp is not None:
        return noised_share(
            statistic,
            item,
            standing.context,
            accountant=account_of(standing.site),
            roster=[hello["site"] for hello in message["roster"]],
        )
    rows = views.build(item["view"], standing.context)
    standing.guard.question(statistic.name, item["view"], item["parameters"], rows)
    about.squares(disclosure.width(statistic.name, item["parameters"], rows), item["view"]["rows"].get("patients"))
    try:
        share = statistic.local(rows, **item["parameters"])
        if not all(np.isfinite(field).all() for field in share):
            raise SumRefused(
                statistic.name,
                "a number is not finite; nothing was sent. Look for missing values in the prepared table",
            )
    except Exception:  # of patients or parameters, whichever: that there is no answer is told
        standing.meter.misfit(question)
        raise
    standing.guard.cells(statistic.name, share)
    return share


def _sign(standing: Standing, message: Mapping[str, Any], about: About) -> Reply:
    standing.guard.survivors(message.get("survivors"))
    return _opened(message, about, standing.sums.sign(message))


def _unmask(standing: Standing, message: Mapping[str, Any], about: About) -> Reply:
    standing.guard.survivors(message.get("survivors"))
    return _opened(message, about, standing.sums.unmask(message))


def _opened(message: Mapping[str, Any], about: About, reply: Reply) -> Reply:
    # a sum is opened only under the terms that its masked answer was made for, which the door checked then
    about.statistics = tuple(message["statistic"].split())
    about.parts = tuple(sorted({slot.split()[0] for slot in message["slot"]}))
    about.sites = tuple(message["survivors"])
    return reply


def _figures(standing: Standing, message: Mapping[str, Any], about: About) -> Reply:
    if standing.study.privacy.dp is not None:
        raise SumRefused("figures", "finished figures of one site cannot be noised; under [privacy.dp] none leave")
    parameters = unpack(message["parameters"])
    standing.install(parameters["objects"])
    spec = parameters["spec"]
    about.statistics = (COHORT,) * bool(spec["cohorts"]) + (TABLE,) * bool(spec["table_one"])
    about.parts = tuple(sorted({*spec["table_one"], *(cohort["part"] for cohort in spec["cohorts"].values())}))
    return {"figures": finished_figures(standing, spec)}


def _finish(standing: Standing, message: Mapping[str, Any], about: About) -> Reply:
    """The end of a run: each patient's scores to the site's own disk, the run's key away."""
    del about
    parameters = unpack(message["parameters"])
    standing.install(parameters["objects"])
    write_predictions(standing.context, parameters["models"], standing.workspace / "predictions.csv")
    if standing.study.privacy.secure_aggregation:
        standing.sums.close(message["run"])
    standing.forget_run()
    return {"done": True}


HANDLERS: dict[str, Callable[[Standing, Mapping[str, Any], About], Reply]] = {
    "hello": _hello,
    "flow": _flow,
    "sum": _sum,
    "sign": _sign,
    "unmask": _unmask,
    "figures": _figures,
    "finish": _finish,
}
