"""Rounds: concurrent server halves share messages, deterministically."""

import pytest

from cohortium.common.rounds import Rounds


def echo(log):
    def send(questions):
        log.append(list(questions))
        return [ValueError(q) if q == "bad" else f"re:{q}" for q in questions]

    return send


def loop(rounds, name, times):
    return lambda: [rounds.ask(f"{name}{i}") for i in range(times)]


def test_questions_of_concurrent_tasks_travel_together():
    log = []
    rounds = Rounds(echo(log))
    results = rounds.together([loop(rounds, "a", 3), loop(rounds, "b", 1), loop(rounds, "c", 2)])
    assert results == [["re:a0", "re:a1", "re:a2"], ["re:b0"], ["re:c0", "re:c1"]]
    assert log == [["a0", "b0", "c0"], ["a1", "c1"], ["a2"]]


def test_nested_tasks_join_the_same_rounds_and_the_order_is_that_of_the_tasks():
    for _ in range(20):  # thread scheduling must not show
        log = []
        rounds = Rounds(echo(log))

        def nested(rounds=rounds):
            first = rounds.ask("n")
            return [first, *rounds.together([loop(rounds, "x", 2), loop(rounds, "y", 1)]), rounds.ask("end")]

        rounds.together([nested, loop(rounds, "a", 4)])
        assert log == [["n", "a0"], ["x0", "y0", "a1"], ["x1", "a2"], ["end", "a3"]]


def test_a_plain_loop_needs_no_tasks():
    log = []
    rounds = Rounds(echo(log))
    assert loop(rounds, "s", 2)() == ["re:s0", "re:s1"]
    assert log == [["s0"], ["s1"]]


def test_an_error_reaches_its_task_and_the_others_finish():
    log = []
    rounds = Rounds(echo(log))
    with pytest.raises(ValueError, match="bad"):
        rounds.together([lambda: rounds.ask("bad"), loop(rounds, "a", 2)])
    assert log == [["bad", "a0"], ["a1"]]
    assert rounds.ask("after") == "re:after"


def test_what_stops_a_message_stops_the_run():
    def send(_questions):
        raise KeyboardInterrupt

    rounds = Rounds(send)
    with pytest.raises(KeyboardInterrupt):
        rounds.together([loop(rounds, "a", 2), loop(rounds, "b", 2)])
