"""Parts and folds: the published rule, on real patients, whatever the order of a file."""

import hashlib
import hmac
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortium.common.cohort import assign_folds, assign_parts, keyed_hash, site_offset
from cohortium.common.errors import SiteError
from cohortium.common.study import load_study, parse_study

STUDIES = Path(__file__).parents[1] / "data" / "studies"
IDS = [f"p{i:04d}" for i in range(500)]


def test_the_keyed_hash_is_the_published_one():
    # printf 'cleveland\x1fcleveland-001' | openssl dgst -sha256 -hmac 'cohortium/1/part/7'   (OpenSSL 3)
    assert keyed_hash("part", 7, "cleveland", "cleveland-001") == 0x1DBE5EF71A7C2D32
    # printf 'va\x1fva-001' | openssl dgst -sha256 -hmac 'cohortium/1/fold/7'
    assert keyed_hash("fold", 7, "va", "va-001") == 0x7BF566884C268208


def test_parts_follow_the_definition():
    study = load_study(STUDIES / "uci_heart")
    digests = [hmac.new(b"cohortium/1/part/7", f"va\x1f{i}".encode(), hashlib.sha256).digest() for i in IDS]
    internal = [int.from_bytes(digest[:8], "big") / 2**64 < 0.3 for digest in digests]
    assert (assign_parts(study, "va", IDS) == "internal").tolist() == internal
    assert set(assign_parts(study, "switzerland", IDS)) == {"external"}


def test_the_part_column_decides_where_there_is_one():
    study = load_study(STUDIES / "tcga_brca")
    parts = assign_parts(study, "west", ["a", "b", "c", "d"], ["train", "test", "TEST", ""])
    assert parts.tolist() == ["train", "internal", "", ""]


def test_numbers_name_a_part_however_they_are_written():
    tables = tomllib.loads((STUDIES / "tcga_brca" / "study.toml").read_text())
    tables["split"]["part_column"] = {"column": "fold", "train": 0, "internal": 1}
    parts = assign_parts(parse_study(tables), "west", ["a", "b", "c"], [0, "0.0", "1"])
    assert parts.tolist() == ["train", "train", "internal"]


def test_a_site_of_no_study_is_told_the_nearest():
    with pytest.raises(SiteError, match=r"site 'clevland' is not in \[split\].*did you mean 'cleveland'"):
        assign_parts(load_study(STUDIES / "uci_heart"), "clevland", IDS)


def test_folds_follow_the_definition():
    classes = np.arange(500) % 3 == 0
    folds = assign_folds(7, "va", 2, IDS, classes, 5)
    for value in (True, False):
        members = [i for i in range(500) if classes[i] == value]
        by_hash = sorted(
            members, key=lambda i: hmac.digest(b"cohortium/1/fold/7", f"va\x1f{IDS[i]}".encode(), "sha256")
        )
        assert [folds[i] for i in by_hash] == [(rank + 2) % 5 for rank in range(len(members))]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.text(max_size=8), st.integers(0, 1)), unique_by=lambda row: row[0], max_size=40),
    st.integers(2, 10),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_folds_are_even_in_each_class_and_blind_to_order(rows, folds, offset, random):
    def dealt(rows):
        return assign_folds(1, "s", offset, [i for i, _ in rows], [c for _, c in rows], folds)

    shuffled = random.sample(rows, len(rows))
    assert dict(zip(rows, dealt(rows), strict=True)) == dict(zip(shuffled, dealt(shuffled), strict=True))
    for value in (0, 1):
        sizes = np.bincount(dealt([row for row in rows if row[1] == value]), minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def test_inner_folds_are_independent_of_the_outer_ones():
    outer = assign_folds(7, "va", 0, IDS, np.zeros(500), 5)
    inner = assign_folds(7, "va", 0, IDS, np.zeros(500), 5, label="lasso/selected")
    # 500 patients in a 5 x 5 table of two independent partitions: about 100 agree, sd 9
    assert 60 < (outer == inner).sum() < 140


def test_offsets_count_the_sorted_training_sites():
    study = load_study(STUDIES / "uci_heart")
    assert [site_offset(study, site) for site in ("cleveland", "hungarian", "va")] == [0, 1, 2]
