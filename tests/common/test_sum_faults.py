"""Faults: whatever becomes of the messages, a sum is right over the sites it names, or there is none.

A network and a server that deliver, drop, delay, repeat, reorder and forge what they like, between honest sites and the
server's half. Nothing is ever delivered unless a rule delivers it. A server that lies is in it, too: it names any
survivors to any site, brings it every share and signature that exists, and has one site on its side. Bonawitz et al.
2017, section 6.2.
"""

from collections import Counter

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cohortium.common import sum_survivors
from cohortium.common.errors import SumRefused, SumVoid, WireError
from cohortium.common.sum_layout import Entry, Layout
from cohortium.common.sum_query import SumQuery
from cohortium.common.sum_setup import threshold
from tests.common.conftest import World
from tests.common.test_secure_sum import known_sums, opened

LAYOUT = Layout((Entry("i8", 3, 0),))
SLOTS = ("train network 1", "train network 2")
SEEN: Counter[str] = Counter()  # what came about in all plays, so that the model is seen to reach it


class Network(RuleBasedStateMachine):
    """Sums of 3 to 5 sites; `requests` and `replies` hold every message that was ever sent, true or forged."""

    @initialize(sites=st.integers(3, 5))
    def begin(self, sites):
        self.world = World(sites)
        self.least = threshold(sites, 3)
        rng = np.random.default_rng(sites)
        self.numbers = {name: rng.integers(-(2**50), 2**50, 3) for name in self.world.names}
        self.sums, self.requests, self.replies = [], [], []
        self.true = []  # (kind, transcript, slots, survivors, reply) of every answer that a site gave
        self.shifts = {}  # what a forger added to a site's masked numbers, by sum and site, where it was received

    # --- what the server's half does, whenever it likes -----------------------------------------------------------

    @rule(mode=st.sampled_from(["whole", "survivors", "survivors"]), slot=st.sampled_from(SLOTS))
    def ask(self, mode, slot):
        one = self.world.sum(LAYOUT, mode, slot=("train",) if mode == "whole" else (slot,))
        self.sums.append(one)
        self.requests += [("masked", one, name, one.request) for name in self.world.names]

    @precondition(lambda self: self.sums)
    @rule(data=st.data())
    def go_on(self, data):
        """Name the survivors and ask for signatures or shares, whether or not it is time."""
        one = data.draw(st.sampled_from(self.sums))
        if one.query.mode == "whole":
            return
        for kind, ask in (("sign", one.sign_requests), ("unmask", one.unmask_requests)):
            try:
                self.requests += [(kind, one, name, request) for name, request in ask().items()]
            except SumVoid:
                SEEN["void"] += 1

    # --- what the network does ------------------------------------------------------------------------------------

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def deliver(self, data):
        """A request to its site: late, again, out of order, or never."""
        self.to_site(*data.draw(st.sampled_from(self.requests)))

    @precondition(lambda self: self.replies)
    @rule(data=st.data(), stray=st.integers(0, 9))
    def bring(self, data, stray):
        """A reply to the server, now and then as if another site had sent it."""
        reply = data.draw(st.sampled_from(self.replies))
        self.to_server(*reply, sender=data.draw(st.sampled_from(self.world.names)) if stray == 0 else None)

    @precondition(lambda self: self.sums)
    @rule(data=st.data())
    def run(self, data):
        """One sum from end to end, without the messages of the sites that are away from one of its steps on."""
        one = data.draw(st.sampled_from(self.sums[-2:]))
        spare = len(self.world.names) - self.least
        leaving = data.draw(st.sets(self.a_name(), min_size=min(spare, 1), max_size=spare))
        step = data.draw(st.sampled_from(["masked", "sign", "unmask", "never"]))
        away: set[str] = set()
        for kind in ("masked", "sign", "unmask"):
            away = leaving if kind == step else away
            before = len(self.replies)
            for request in [r for r in self.requests if r[0] == kind and r[1] is one and r[2] not in away]:
                self.to_site(*request)
            for reply in self.replies[before:]:
                self.to_server(*reply)
            if one.query.mode == "survivors" and kind != "unmask":
                try:
                    asked = one.sign_requests() if kind == "masked" else one.unmask_requests()
                except SumVoid:
                    break
                self.requests += [("sign" if kind == "masked" else "unmask", one, v, r) for v, r in asked.items()]
        self.check(one)

    # --- forgers --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def forge_request(self, data):
        """A term of a request is another one."""
        kind, one, name, request = data.draw(st.sampled_from(self.requests))
        terms = {
            "t": st.integers(0, 9),
            "mode": st.sampled_from(["whole", "survivors"]),
            "slot": st.sampled_from([["train"], *([slot] for slot in SLOTS)]),
            "statistic": st.just("cox.terms"),
            "roster": st.just([entry for entry in request["roster"] if entry["site"] != data.draw(self.a_name())]),
            "survivors": st.lists(self.a_name(), unique=True).map(sorted),
        }
        field = data.draw(st.sampled_from(sorted(terms)))
        self.requests.append((kind, one, data.draw(self.a_name()), {**request, field: data.draw(terms[field])}))
        del name

    @precondition(lambda self: any(one.query.mode == "survivors" for one in self.sums))
    @rule(data=st.data())
    def lie(self, data):
        """Any survivors, to some sites, with every share and signature of them that exists; one site signs anything."""
        one = data.draw(st.sampled_from([one for one in self.sums if one.query.mode == "survivors"]))
        there = sorted(data.draw(st.sets(self.a_name(), min_size=self.least)))
        terms = {**one.query.plain(), "parameters_digest": one.query.parameters_digest, "survivors": there}
        tid = one.query.transcript(self.least)
        masked = {r["site"]: r["blobs"] for kind, t, *_, r in self.true if kind == "masked" and t == tid}
        signed = {r["site"]: r["sig"] for kind, t, _, s, r in self.true if kind == "sign" and (t, s) == (tid, there)}
        insider = self.world.names[-1]
        signed |= {insider: sum_survivors.sign(self.world.identities[insider], tid, there)}
        for name in sorted(data.draw(st.sets(st.sampled_from(there), min_size=1))):
            blobs = {u: masked[u][name] for u in there if u in masked}
            self.to_site("sign", one, name, terms)
            self.to_site("unmask", one, name, {**terms, "blobs": blobs, "signatures": signed})

    @precondition(lambda self: self.replies)
    @rule(data=st.data(), place=st.integers(0, 55))
    def forge_reply(self, data, place):
        """A reply has a byte changed, in its numbers, its shares, its transcript or its signature."""
        kind, one, name, reply = data.draw(st.sampled_from(self.replies))
        forged = {**reply}
        field = data.draw(st.sampled_from(sorted(set(reply) - {"site"})))
        if field == "y":
            forged["y"] = reply["y"].copy()
            forged["y"][place % reply["y"].size] ^= 1 << place % 8
        elif field in ("tid", "sig"):
            forged[field] = changed(reply[field], place)
        elif field in ("blobs", "b"):
            forged[field] = {u: changed(value, place) for u, value in reply[field].items()}
        else:
            forged[field] = {u: {d: changed(v, place) for d, v in of.items()} for u, of in reply[field].items()}
        self.replies.append((kind, one, name, forged))

    # --- what must hold -------------------------------------------------------------------------------------------

    def a_name(self):
        return st.sampled_from(self.world.names)

    def to_site(self, kind, one, name, request):
        try:
            if kind == "masked":
                reply = self.world.masked(name, request, [self.numbers[name]])
            else:
                reply = getattr(self.world, kind)(name, request)
        except (SumRefused, WireError):
            SEEN[f"{kind} refused"] += 1
            return
        SEEN[kind] += 1
        self.replies.append((kind, one, name, reply))
        survivors, tid = request.get("survivors"), self.transcript(request)
        self.true.append((kind, tid, tuple(request["slot"]), survivors, reply))
        if kind == "unmask":
            assert set(reply["b"]) == set(survivors)
            assert all(set(of) == set(self.world.names) - set(survivors) for of in reply["s"].values())

    def transcript(self, request):
        return SumQuery.read(request).transcript(self.least)

    def to_server(self, kind, one, name, reply, sender=None):
        receive = {"masked": one.receive, "sign": one.receive_signature, "unmask": one.receive_unmask}[kind]
        sent_by, had = sender or name, set(one.contributors)
        receive(sent_by, reply)
        if kind == "masked" and one.contributors != tuple(sorted(had)):
            true = [r for k, t, *_, r in self.true if (k, t, r["site"]) == ("masked", reply["tid"], sent_by)]
            assert true  # nothing but a site's own answer, to this very request, is added
            self.shifts[id(one), sent_by] = LAYOUT.lanes(reply["y"])[0] - LAYOUT.lanes(true[0]["y"])[0]
        self.check(one)

    def check(self, one):
        """A total is that of the contributors, and of what a forger of a site's own numbers added to them."""
        try:
            (total,) = one.total()
        except SumVoid:
            return
        there = one.contributors
        SEEN[f"total {one.query.mode} {'all' if len(there) == len(self.world.names) else 'some'}"] += 1
        assert len(there) >= (len(self.world.names) if one.query.mode == "whole" else self.least)
        shift = sum((self.shifts[id(one), v] for v in there), np.zeros(7, np.uint64))
        assert not shift[3:].any()  # the sentinels
        right = sum(self.numbers[v] for v in there) + shift[:3].view(np.int64)
        np.testing.assert_array_equal(total, right)

    def teardown(self):
        """One set of survivors a sum and a round at each site; and no more can be formed than one total a sum."""
        for place, kinds in ((1, ("sign", "unmask")), (2, ("unmask",))):
            bound = {}
            for answer in getattr(self, "true", ()):
                if answer[0] in kinds:
                    there = bound.setdefault((answer[4]["site"], answer[place]), answer[3])
                    assert there == answer[3]
        for tid in {t for _, t, *_ in getattr(self, "true", ())}:
            given = {kind: [r for k, t, *_, r in self.true if (k, t) == (kind, tid)] for kind in ("masked", "unmask")}
            have = [reply["site"] for reply in given["masked"]]
            assert len(set(have)) == len(have)  # no number serves twice
            if any("blobs" in reply for reply in given["masked"]):
                for insider in (None, self.world.names[-1]):  # whom the server has on its side
                    honest = [name for name in have if name != insider]
                    known = opened(self.world.names, given["unmask"], self.least, insider, have)
                    sums = known_sums(self.world.names, honest, *known)
                    assert len(sums) <= 1
                    for coefficients in sums:
                        assert set(coefficients.values()) <= {0, 1}
                        assert sum(coefficients.values()) >= self.least - (insider is not None)


def changed(data, place):
    at = place % len(data)
    return data[:at] + bytes([data[at] ^ 1 << place % 8]) + data[at + 1 :]


Network.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None, derandomize=True)
TestNetwork = Network.TestCase


def test_the_model_reaches_every_outcome():
    """After the plays above, in the same process."""
    if SEEN:
        reached = {"masked", "sign", "unmask", "total whole all", "total survivors all", "total survivors some"}
        assert reached <= set(SEEN)
        assert {"masked refused", "sign refused", "unmask refused", "void"} <= set(SEEN)
