"""The transport over a grid whose nodes misbehave in every way that a deployment has shown."""

import pytest
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from cohortium.common.errors import SumVoid
from cohortium.common.transport import Failure
from cohortium.common.wire import from_record, to_record
from cohortium.server.flower_transport import OFFLINE, SITE_FAILED, FlowerTransport
from cohortium.simulation.engines import InProcessGrid


def echo_app(answers=None):
    """A client app that echoes what it is asked, or fails as ``answers[site]`` says."""
    app = ClientApp()

    @app.query("identify")
    def identify(message, context):
        return Message(to_record(context.node_config["site"].encode()), reply_to=message)

    @app.query("ask")
    def ask(message, context):
        answer = (answers or {}).get(context.node_config["site"])
        if isinstance(answer, Error):
            return Message(answer, reply_to=message)
        return Message(to_record(from_record(message.content)), reply_to=message)

    return app


def grid_of(*sites, answers=None):
    return InProcessGrid(echo_app(answers), {site: {"site": site} for site in sites})


def test_each_site_gets_its_own_request():
    transport = FlowerTransport(grid_of("va", "basel", "oslo"), ["oslo", "va", "basel"], 1.0)
    assert transport.sites == ("basel", "oslo", "va")
    requests = {site: site.encode() * 3 for site in transport.sites}
    assert transport.ask(requests, timeout_s=1.0) == requests


def test_other_nodes_of_the_federation_are_left_alone():
    transport = FlowerTransport(grid_of("va", "basel", "stranger"), ["va", "basel"], 1.0)
    assert set(transport.ask({"va": b"1"}, timeout_s=1.0)) == {"va"}


def test_a_missing_site_is_named_and_nothing_is_asked():
    lines = []
    with pytest.raises(SumVoid, match="oslo did not come online"):
        FlowerTransport(grid_of("va"), ["va", "oslo"], 0.05, say=lines.append, poll_s=0.01)
    assert lines == ["1 of 2 sites online, waiting for oslo"]


def test_a_site_failure_keeps_its_public_text_and_flowers_own_text_stays_behind():
    answers = {
        "va": Error(code=SITE_FAILED, reason="site failed: see its own log"),
        "oslo": Error(code=2, reason="<class 'ValueError'>:<'age = 430'>"),
    }
    transport = FlowerTransport(grid_of("va", "oslo", "basel", answers=answers), ["va", "oslo", "basel"], 1.0)
    replies = transport.ask(dict.fromkeys(transport.sites, b"x"), timeout_s=1.0)
    assert replies["va"] == Failure("site failed: see its own log")
    assert isinstance(replies["oslo"], Failure)
    assert "430" not in replies["oslo"].reason
    assert replies["basel"] == b"x"


class Silent(InProcessGrid):
    """Loses the replies of the sites named in ``silent``; hides those in ``offline``."""

    silent: frozenset[int] = frozenset()
    offline: frozenset[int] = frozenset()

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node not in self.offline]

    def pull_messages(self, message_ids):
        return [reply for reply in super().pull_messages(message_ids) if reply.metadata.src_node_id not in self.silent]


def test_silence_and_absence_are_failures_not_exceptions():
    grid = Silent(echo_app(), {site: {"site": site} for site in ("a", "b", "c")})  # nodes 2, 3, 4
    transport = FlowerTransport(grid, ["a", "b", "c"], 1.0, poll_s=0.01)
    grid.silent, grid.offline = frozenset({2}), frozenset({3})
    replies = transport.ask(dict.fromkeys("abc", b"x"), timeout_s=0.05)
    assert replies == {"a": Failure("no reply within 0 s"), "b": Failure(OFFLINE), "c": b"x"}


def test_a_site_that_returns_under_another_node_is_found_again():
    grid = InProcessGrid(echo_app(), {"a": {"site": "a"}, "b": {"site": "b"}})
    transport = FlowerTransport(grid, ["a", "b"], 1.0)
    grid._contexts[9] = grid._contexts.pop(2)
    assert transport.ask({"a": b"again"}, timeout_s=1.0) == {"a": b"again"}


def test_a_foreign_reply_is_a_failure():
    app = ClientApp()

    @app.query("identify")
    def identify(message, context):
        return Message(to_record(b"a"), reply_to=message)

    @app.query("ask")
    def ask(message, context):
        message.content["more"] = message.content["cohortium"]
        return Message(message.content, reply_to=message)

    transport = FlowerTransport(InProcessGrid(app, {"a": {}}), ["a"], 1.0)
    reply = transport.ask({"a": b"x"}, timeout_s=1.0)["a"]
    assert isinstance(reply, Failure)
    assert "same version" in reply.reason


def test_a_site_that_is_online_but_cannot_answer_is_told_once():
    app = ClientApp()

    @app.query("identify")
    def identify(message, context):
        return Message(Error(code=7, reason="<class 'SumRefused'>"), reply_to=message)

    lines = []
    with pytest.raises(SumVoid):
        FlowerTransport(InProcessGrid(app, {"a": {}}), ["a"], 0.05, say=lines.append, poll_s=0.01)
    assert lines == [
        "a site is online but cannot answer: the site refused the app bundle: it is not the one it approved",
        "0 of 1 sites online, waiting for a",
    ]
