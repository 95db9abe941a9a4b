"""The flow of patients adds up, and what is declared hides small reasons."""

from hypothesis import given
from hypothesis import strategies as st

from cohortium.sites.flow import Exclusion, Flow


def test_given_is_excluded_plus_used():
    flow = Flow.of(3, [Exclusion("a", "x"), Exclusion("b", "y"), Exclusion("c", "y")])
    assert flow == Flow(given=6, excluded={"y": 2, "x": 1}, used=3)


def test_small_reasons_merge():
    assert Flow(20, {"a": 9, "b": 3, "c": 2}, 6).declared(5).excluded == {"a": 9, "other": 5}
    assert Flow(20, {"a": 9, "b": 6, "c": 2}, 3).declared(5).excluded == {"a": 9, "other": 8}
    assert Flow(20, {"a": 9, "c": 2}, 9).declared(5).excluded == {"other": 11}
    assert Flow(20, {"c": 2}, 18).declared(5).excluded == {"other": 2}
    assert Flow(20, {}, 20).declared(5).excluded == {}


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "other"]), st.integers(1, 20)), st.integers(1, 10))
def test_declared_counts_are_large_and_add_up(excluded, minimum):
    flow = Flow(sum(excluded.values()) + 7, excluded, 7)
    declared = flow.declared(minimum)
    assert declared.given == sum(declared.excluded.values()) + declared.used == flow.given
    assert all(n >= minimum for n in declared.excluded.values()) or list(declared.excluded) == ["other"]
