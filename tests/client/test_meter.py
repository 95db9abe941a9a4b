"""Meter: numbers are counted across processes and runs, each question once, and never beyond the study's budget."""

import pytest

from cohortium.client.meter import Meter
from cohortium.common.errors import SumRefused


def meter(workspace, study="s", limit=100):
    """As a fresh process opens it."""
    return Meter(workspace, study, limit)


def test_a_question_is_charged_once(tmp_path):
    meter(tmp_path).charge({b"a": 40, b"b": 20})
    meter(tmp_path).charge({b"a": 40})
    assert meter(tmp_path).released() == 60


def test_what_exceeds_the_budget_is_refused_and_not_counted(tmp_path):
    meter(tmp_path).charge({b"a": 90})
    with pytest.raises(SumRefused, match=r"90 of released_numbers = 100 numbers have left .* asks for 11 more"):
        meter(tmp_path).charge({b"b": 11})
    meter(tmp_path).charge({b"c": 10})
    assert meter(tmp_path).released() == 100
    meter(tmp_path).charge({b"a": 90})  # asked again: nothing new leaves


def test_which_questions_still_fit(tmp_path):
    meter(tmp_path).charge({b"a": 50})
    assert set(meter(tmp_path).beyond({b"a": 50, b"b": 30, b"c": 30, b"d": 20})) == {b"c"}
    assert meter(tmp_path).released() == 50


def test_each_study_has_a_budget_of_its_own_and_none_counts_nothing(tmp_path):
    meter(tmp_path).charge({b"a": 100})
    meter(tmp_path, study="other").charge({b"a": 100})
    unlimited = meter(tmp_path, study="third", limit=None)
    unlimited.charge({b"a": 10**9})
    assert unlimited.beyond({b"b": 10**9}) == {}
    assert unlimited.released() == 0
