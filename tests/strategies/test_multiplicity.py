"""Multiplicity: equal to statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from cohortium.strategies import multiplicity


@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_equals_statsmodels(m):
    p = np.random.default_rng(m).beta(0.3, 1, m)
    p[: m // 4] = p[0]  # ties
    np.testing.assert_allclose(multiplicity.holm(p), multipletests(p, method="holm")[1], rtol=1e-13)
    np.testing.assert_allclose(multiplicity.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], rtol=1e-13)


def test_a_p_that_is_none_is_left_alone():
    entries = [{"p": 0.01}, {"p": {"undefined": "no variance"}}, {"p": 0.04}]
    found = multiplicity.adjusted(entries)
    assert found[0] == {"p": 0.01, "p_holm": 0.02, "p_bh": 0.02}
    assert found[1] == entries[1]
    assert found[2] == {"p": 0.04, "p_holm": 0.04, "p_bh": 0.04}
    assert multiplicity.adjusted([]) == []
