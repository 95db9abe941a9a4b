"""Fuzz: a fixed few of the damaged inputs that benchmarks/fuzz.py throws at the readers by the hundred thousand."""

import importlib.util
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SPEC = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[2] / "benchmarks" / "fuzz.py")
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)

NAMES = ("codec.unpack", "SumQuery.read", "Layout.read", "study file", "study tables", "site file", "site tables")


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return fuzz.readers(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_input_is_taken_or_refused_with_a_typed_error(readers, name):
    reader = readers[name]

    @settings(max_examples=20 * reader.weight, deadline=timedelta(seconds=5), derandomize=True, database=None)
    @given(st.randoms(use_true_random=True))
    def check(rng):
        fuzz.take(reader, reader.damaged(rng))

    check()


def test_every_reader_is_fuzzed(readers):
    assert set(readers) == set(NAMES)
