"""Naps: Flower still waits where we shorten, and never longer because of us."""

import inspect

from flwr.supercore.inflatable import inflatable_utils
from flwr.supernode import start_client_internal

from cohortium.common import naps


def test_naps_grow_while_idle_and_shrink_when_messages_flow(monkeypatch):
    slept = []
    monkeypatch.setattr(naps.time, "sleep", slept.append)
    clock = naps.Naps()
    for _ in range(60):
        clock.sleep(3)
    assert slept[0] == naps.LOOK_S
    assert slept == sorted(slept)
    assert slept[-1] == 3
    clock.sleep(0.5)
    clock.sleep(3)
    assert slept[-2:] == [naps.REPLY_S, naps.LOOK_S]
    assert clock.monotonic() > 0


def test_contract_with_the_pinned_flower():
    source = inspect.getsource(start_client_internal)
    assert start_client_internal.time.__name__ == "time"
    assert source.count("time.sleep(3)") == 1
    assert source.count("time.sleep(0.5)") == 2
    for name in ("pull_objects", "pull_and_inflate_object_from_tree"):
        assert getattr(inflatable_utils, name).__kwdefaults__["initial_backoff"] == 1


def test_pull_retries_are_shortened(monkeypatch):
    function = inflatable_utils.pull_objects
    monkeypatch.setattr(function, "__kwdefaults__", dict(function.__kwdefaults__))
    other = inflatable_utils.pull_and_inflate_object_from_tree
    monkeypatch.setattr(other, "__kwdefaults__", dict(other.__kwdefaults__))
    naps.shorten_pull_retries()
    assert inspect.signature(function).parameters["initial_backoff"].default == naps.LOOK_S
