"""Site calls: asks the sites of a run, with retries, keeps every outcome in the journal, and counts the cost.

A resumed run is handed the recorded outcomes first; the set-up with the sites is made when the first new question
comes.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cohortium.common.codec import pack, unpack
from cohortium.common.errors import SumVoid, WireError
from cohortium.common.federation import Statistic
from cohortium.common.study import Study
from cohortium.common.sum_layout import Layout
from cohortium.common.sum_server import ServerSum
from cohortium.common.sum_setup import Hello, roster_of, threshold
from cohortium.common.sum_slots import slots_of
from cohortium.common.transport import Failure, Transport
from cohortium.server.journal import Journal
from cohortium.server.question import Question
from cohortium.server.replies import all_there, fits, held_back, raise_refusal, read_reply

Mode = Literal["whole", "survivors"]


class SiteCalls:
    """The coordinator's conversation with the sites of one run.

    Parameters
    ----------
    study : Study
    transport : Transport
    journal : Journal
    """

    def __init__(self, study: Study, transport: Transport, journal: Journal) -> None:
        self.study = study
        self.sites = tuple(study.sites)
        self.cost: dict[str, Any] = {
            "secure_sums": 0,
            "messages": 0,
            "bytes_up_by_site": dict.fromkeys(self.sites, 0),
            "bytes_down_by_site": dict.fromkeys(self.sites, 0),
        }
        self._transport = transport
        self._journal = journal
        self._run = secrets.token_hex(16)
        self._roster: tuple[Hello, ...] | None = None
        self._named: dict[tuple[str | int, ...], tuple[str, ...]] = {}  # survivors of each round that was to be opened
        self._number = 0  # of the last sum asked in this run; never used twice
        self._enclosed: list[bytes] = []  # published since the last request that reached all sites
        self._digests: list[str] = []  # of everything published, for the journal

    # --- what the sites are given -----------------------------------------------------------------------------

    def enclose(self, data: bytes) -> None:
        """Send an object along with the next request."""
        self._enclosed.append(data)
        self._digests.append(hashlib.sha256(data).hexdigest())

    def mode_of(self, statistic: Statistic) -> Mode:
        """Whether a sum of this statistic goes on without a site that drops out."""
        spare = len(self.sites) - threshold(len(self.sites), self.study.privacy.minimum_sites)
        survivors = statistic.mode == "survivors" and self.study.federation.on_departure == "continue" and spare > 0
        return "survivors" if survivors and self.study.privacy.secure_aggregation else "whole"

    # --- what the sites are asked -----------------------------------------------------------------------------

    def declared(self) -> dict[str, dict[str, Any]]:
        """Each site's declared figures: flow of patients and names of its features."""
        return self._recorded("flow", b"", lambda: self._retried(lambda: self._ask_all({"kind": "flow"})))["replies"]

    def figures(self, site: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Finished figures of a cohort that lies at one site."""
        content = pack({"site": site, "spec": dict(spec)})

        def ask() -> dict[str, Any]:
            reply = self._ask_all({"kind": "figures"}, sites=(site,), content={"spec": dict(spec)})
            return {"replies": reply["replies"][site]}

        return self._recorded("figures", content, lambda: self._retried(ask), sites=(site,))["replies"]

    def finish(self, models: Sequence[Mapping[str, str]]) -> None:
        """Let the sites write their predictions and forget the run."""
        self._recorded(
            "finish",
            pack({"models": list(models)}),
            lambda: self._ask_all({"kind": "finish"}, content={"models": list(models)}),
        )

    def sum(self, mode: Mode, questions: Sequence[Question], layout: Layout) -> dict[str, Any]:
        """One sum over all sites.

        Returns
        -------
        ``{"totals": flat arrays}``, ``{"refused": [[item, what, why], ...]}`` or ``{"overflow": [item, ...]}``.

        Raises
        ------
        SumVoid
            Sites stayed away, also after the study's retries; the run can be resumed.
        """
        asked = [question.digest for question in questions]
        content = pack({"asked": asked, "layout": layout.plain(), "mode": mode})
        return self._recorded(
            "sum",
            content,
            lambda: self._retried(lambda: self._once(mode, questions, layout)),
            questions=questions,
            layout=layout,
        )

    # --- how ----------------------------------------------------------------------------------------------------

    def _recorded(
        self,
        kind: str,
        content: bytes,
        ask: Any,
        *,
        questions: Sequence[Question] = (),
        layout: Layout | None = None,
        sites: Sequence[str] = (),
    ) -> dict[str, Any]:
        digest = hashlib.sha256(
            pack({"study": self.study.hash, "kind": kind, "content": content, "objects": self._digests})
        ).hexdigest()
        entry = self._journal.replay(digest)
        if entry is None:
            before = {key: dict(value) if isinstance(value, dict) else value for key, value in self.cost.items()}
            outcome = ask()
            entry = {"outcome": outcome, "cost": _difference(self.cost, before)}
            self._journal.record(
                digest,
                entry,
                {
                    "kind": kind,
                    "statistics": sorted({question.statistic.name for question in questions}),
                    "asked": sorted({(question.part, question.statistic.name) for question in questions}),
                    "numbers": sum(e.length for e in layout.entries) if layout else 0,
                    "sites": list(outcome.get("contributors", sites or self.sites)),
                    "outcome": next((k for k in ("refused", "overflow") if k in outcome), "answered"),
                    "bytes_up": entry["cost"]["bytes_up_by_site"],
                    "bytes_down": entry["cost"]["bytes_down_by_site"],
                },
            )
        else:
            _add(self.cost, entry["cost"])
        return entry["outcome"]

    def _retried(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        attempts = 1 + self.study.federation.retries
        for attempt in range(attempts):
            try:
                return ask()
            except SumVoid as void:
                self._roster = None  # a site may have lost its key of the run; a new set-up costs one message
                if attempt == attempts - 1:
                    raise SumVoid(f"{void} ({attempts} attempts); once the sites are back, resume the run") from void
        raise AssertionError("unreachable")

    def _once(self, mode: Mode, questions: Sequence[Question], layout: Layout) -> dict[str, Any]:
        """One attempt with a number t of its own."""
        parameters = pack({"items": [question.item for question in questions], "objects": list(self._enclosed)})
        self.cost["secure_sums"] += 1
        if not self.study.privacy.secure_aggregation:
            return self._plain(parameters, layout, len(questions))
        self._set_up()
        assert self._roster is not None
        self._number += 1
        slot: tuple[str | int, ...] = slots_of(mode, [unpack(question.item) for question in questions])
        opened = self._journal.survivors(slot)
        one = ServerSum(
            study=self.study.hash,
            run=self._run,
            mode=mode,
            t=self._number,
            roster=self._roster,
            slot=slot,
            statistic=" ".join(sorted({question.statistic.name for question in questions})),
            parameters=parameters,
            layout=layout,
            minimum_sites=self.study.privacy.minimum_sites,
            among=opened or self._named.get(slot),
        )
        replies = self._ask({"kind": "sum", **one.request}, self.sites)
        if refused := held_back(replies, len(questions)):
            self._enclosed_reached(replies)
            return refused
        for site, reply in replies.items():
            if isinstance(reply, dict):
                one.receive(site, reply)
        if mode == "survivors":
            self._check_quorum(one.contributors)
            if opened and one.contributors != opened:
                absent = ", ".join(site for site in opened if site not in one.contributors)
                raise SumVoid(f"this round was opened over {', '.join(opened)}, and no others; no answer from {absent}")
            totals = self._open(one)
        else:
            all_there(replies)
            totals = one.total()
        self._enclosed_reached(replies)
        return {"totals": totals, "contributors": list(one.contributors)}

    def _open(self, one: ServerSum) -> list[NDArray[Any]]:
        """The total over the survivors, who sign who they are where a site is missing, and then give their shares.

        Raises
        ------
        SumRefused
            Too few sites would do so; says why one would not.
        SumVoid
            Too few sites answered.
        """
        signing = one.sign_requests()
        self._named[one.query.slot] = one.contributors  # asked again, it is asked of no others
        replies: dict[str, dict[str, Any] | Failure] = {}
        try:
            if signing:
                replies |= self._each(signing, "sign", one.receive_signature)
            opening = one.unmask_requests()
            # on disk before any site opens the round, which it does for one set of survivors, in whichever run
            self._journal.name_survivors(one.query.slot, one.contributors)
            replies |= self._each(opening, "unmask", one.receive_unmask)
            return one.total()
        except SumVoid:
            held_back(replies, 0)
            raise

    def _each(
        self, requests: Mapping[str, dict[str, Any]], kind: str, receive: Callable[[str, dict[str, Any]], None]
    ) -> dict[str, dict[str, Any] | Failure]:
        replies = self._ask_each({site: {"kind": kind, **request} for site, request in requests.items()})
        for site, reply in replies.items():
            if isinstance(reply, dict):
                receive(site, reply)
        return replies

    def _check_quorum(self, answered: Sequence[str]) -> None:
        """A round of a network goes on without a site, but not without one that the study's quorum names."""
        absent = [site for site in self.study.federation.quorum if site not in answered]
        if absent:
            raise SumVoid(
                f"no answer from {', '.join(absent)}, which federation.quorum demands in every round of a network; "
                "nothing was learned"
            )

    def _plain(self, parameters: bytes, layout: Layout, items: int) -> dict[str, Any]:
        """A study that its sites approved without masks: the same request, added in the clear."""
        replies = self._ask(
            {"kind": "sum", "study": self.study.hash, "run": self._run, "parameters": parameters}, self.sites
        )
        if refused := held_back(replies, items):
            self._enclosed_reached(replies)
            return refused
        for site, reply in replies.items():
            if isinstance(reply, dict) and not fits(reply.get("arrays"), layout):
                replies[site] = Failure("answered with arrays of another size")
        shares = [reply["arrays"] for reply in all_there(replies).values()]
        self._enclosed_reached(replies)
        return {"totals": [np.sum(field, axis=0).reshape(-1) for field in zip(*shares, strict=True)]}

    def _set_up(self) -> None:
        """Fresh keys of all sites for this run, signed by their identities."""
        if self._roster is None:
            replies = self._ask({"kind": "hello", "study": self.study.hash, "run": self._run}, self.sites)
            raise_refusal(replies)
            self._roster = roster_of(reply["hello"] for reply in all_there(replies).values())

    def _ask_all(
        self, request: dict[str, Any], *, sites: tuple[str, ...] | None = None, content: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask for something that is no sum; every site must answer."""
        parameters = {"parameters": pack({**content, "objects": list(self._enclosed)})} if content is not None else {}
        header = {"study": self.study.hash, "run": self._run}
        replies = self._ask({**request, **header, **parameters}, sites or self.sites)
        raise_refusal(replies)
        answered = all_there(replies)
        if content is not None and sites is None:
            self._enclosed_reached(replies)
        return {"replies": answered}

    def _enclosed_reached(self, replies: Mapping[str, Any]) -> None:
        if all(isinstance(reply, dict) for reply in replies.values()) and len(replies) == len(self.sites):
            self._enclosed.clear()

    def _ask(self, request: Mapping[str, Any], sites: Sequence[str]) -> dict[str, dict[str, Any] | Failure]:
        same = {**request}
        return self._ask_each(dict.fromkeys(sites, same))

    def _ask_each(self, requests: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any] | Failure]:
        """One exchange: a request to each of some sites, and what they answered."""
        packed: dict[int, bytes] = {}  # equal requests are packed once
        sent = {site: packed.setdefault(id(request), pack(request)) for site, request in requests.items()}
        self.cost["messages"] += 1
        replies: dict[str, dict[str, Any] | Failure] = {}
        for site, data in self._transport.ask(sent, timeout_s=self.study.federation.round_timeout_s).items():
            self.cost["bytes_down_by_site"][site] += len(sent[site])
            if isinstance(data, Failure):
                replies[site] = data
                continue
            self.cost["bytes_up_by_site"][site] += len(data)
            try:
                replies[site] = read_reply(data, requests[site]["kind"], site)
            except WireError as broken:
                replies[site] = Failure(str(broken))
        return dict(sorted(replies.items()))


def _difference(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: {site: n - before[key][site] for site, n in value.items()}
        if isinstance(value, dict)
        else value - before[key]
        for key, value in now.items()
    }


def _add(cost: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            for site, n in value.items():
                cost[key][site] += n
        else:
            cost[key] += value
