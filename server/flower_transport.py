"""Flower transport: asks sites over a Flower grid; the same code for all three engines.

Flower's own `send_and_receive` sleeps 3 s between looks; rounds are the currency of a study, so this file has its own
push and pull loop. Which node serves which site is learnt from one identify message; a node whose registered name
(given at enrolment) says otherwise is refused. A node that restarts is found again before the next message.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from cohortium.common.errors import SumVoid, WireError
from cohortium.common.transport import Failure
from cohortium.common.wire import ASK, IDENTIFY, from_record, to_record

SITE_FAILED = 1001
"""The client app's own error code; only its text is ours to repeat."""
OFFLINE = "the site is offline: its node must run `cohortium site start`"
FLOWER_FAILURES = {
    1: "the site could not load its installed app: see its own log",
    2: "the site's app failed or refused to start: see its own log",
    3: "the message was lost on its way: ask again",
    4: "no reply within the time limit: see the site's own log",
    5: OFFLINE,
    7: "the site refused the app bundle: it is not the one it approved",
    8: "the site's app process died: see its own log",
}


class FlowerTransport:
    """Ask sites over a Flower grid.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
    expected_sites : iterable of str
        The sites of the study; other nodes of the federation are left alone.
    timeout_s : float
        Seconds to wait for all expected sites to come online.
    say : callable
        Told, in one line, who is waited for, whenever that changes.
    poll_s : float
        Seconds between two looks for replies.

    Raises
    ------
    SumVoid
        Some expected sites did not come online in time; nothing was asked yet.
    """

    def __init__(
        self,
        grid: Grid,
        expected_sites: Iterable[str],
        timeout_s: float,
        *,
        say: Callable[[str], None] = lambda _line: None,
        poll_s: float = 0.1,
    ) -> None:
        self.sites = tuple(sorted(expected_sites))
        self._grid = grid
        self._say = say
        self._poll_s = poll_s
        self._sites_by_node: dict[int, str] = {}
        self._said: set[str] = set()
        self._wait_for(set(self.sites), timeout_s)

    def ask(self, requests: Mapping[str, bytes], *, timeout_s: float) -> dict[str, bytes | Failure]:
        """Send each site its request and collect the answers (see `Transport.ask`)."""
        answers: dict[str, bytes | Failure] = {site: Failure(OFFLINE) for site in requests}
        nodes = self._nodes_of(requests)
        replies = self._exchange(ASK, {nodes[site]: requests[site] for site in requests if site in nodes}, timeout_s)
        for site in requests:
            if site in nodes:
                answers[site] = replies[nodes[site]]
        return answers

    def _nodes_of(self, sites: Iterable[str]) -> dict[str, int]:
        """Online node of each site; nodes that came since the last message are asked who they are."""
        online = {info.node_id: info.name for info in self._grid.get_nodes()}
        if not set(sites) <= {self._sites_by_node.get(node) for node in online}:
            self._identify(online)
        return {site: node for node, site in self._sites_by_node.items() if node in online}

    def _identify(self, online: Mapping[int, str], timeout_s: float = 60.0) -> None:
        """Learn the sites of nodes not met before."""
        strangers = [node for node in online if node not in self._sites_by_node]
        for node, reply in self._exchange(IDENTIFY, dict.fromkeys(strangers, b""), timeout_s).items():
            if isinstance(reply, Failure):  # asked again at the next look
                self._say_once(f"{online[node] or 'a site'} is online but cannot answer: {reply.reason}")
                continue
            site = reply.decode("utf-8", errors="replace")
            if online[node] and online[node] != site:
                self._say_once(
                    f"a node enrolled as {online[node]} calls itself {site}: left out; correct its site.toml"
                )
                continue
            self._sites_by_node = {n: s for n, s in self._sites_by_node.items() if s != site} | {node: site}

    def _wait_for(self, sites: set[str], timeout_s: float) -> None:
        """Return once every site is online."""
        deadline = time.monotonic() + timeout_s
        while missing := sites - set(self._nodes_of(sites)):
            online = f"{len(sites - missing)} of {len(sites)} sites online"
            self._say_once(f"{online}, waiting for {', '.join(sorted(missing))}")
            if time.monotonic() > deadline:
                raise SumVoid(
                    f"{', '.join(sorted(missing))} did not come online within {timeout_s:.0f} s; "
                    "have them run `cohortium site start`, then resume"
                )
            time.sleep(self._poll_s)
        self._say(f"all {len(sites)} sites online")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _exchange(self, kind: str, payloads: Mapping[int, bytes], timeout_s: float) -> dict[int, bytes | Failure]:
        """Push one message a node, pull until all have answered or the time is over."""
        if not payloads:
            return {}
        deadline = time.monotonic() + timeout_s
        # one push a site: a single push of all large messages can exceed the server's request limit
        nodes_by_message: dict[str, int] = {}
        answers: dict[int, bytes | Failure] = {}
        for node, payload in payloads.items():
            message = Message(to_record(payload), node, kind, ttl=timeout_s)
            pushed = next(iter(self._grid.push_messages([message])), None)
            if pushed:
                nodes_by_message[pushed] = node
            else:
                answers[node] = Failure(OFFLINE)
        while nodes_by_message:
            for reply in self._grid.pull_messages(list(nodes_by_message)):
                answers[nodes_by_message.pop(reply.metadata.reply_to_message_id)] = _payload(reply)
            if time.monotonic() > deadline:
                break
            if nodes_by_message:
                time.sleep(self._poll_s)
        return answers | dict.fromkeys(nodes_by_message.values(), Failure(f"no reply within {timeout_s:.0f} s"))


def _payload(reply: Message) -> bytes | Failure:
    if not reply.has_error():
        try:
            return from_record(reply.content)
        except WireError as error:
            return Failure(str(error))
    if reply.error.code == SITE_FAILED:
        return Failure(reply.error.reason or FLOWER_FAILURES[2])
    return Failure(FLOWER_FAILURES.get(reply.error.code, "the message failed in Flower: see the site's own log"))
