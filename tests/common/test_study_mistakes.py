"""Mistakes in a study file: each names table, key, value and remedy; random edits give nothing but StudyErrors."""

import copy
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortium.common.errors import StudyError
from cohortium.common.study import parse_study

STUDIES = Path(__file__).parents[1] / "data" / "studies"
EXAMPLES = {
    name: tomllib.loads((STUDIES / name / "study.toml").read_text()) for name in ("uci_heart", "tcga_brca", "sarcoma")
}
GONE = object()
DRAWN = {
    "source": "model", "image": "ct", "network": "unet", "channels": [8, 16, 32], "strides": [2, 2],
    "patch": [32, 32, 32], "weights": {"file": "w.pt", "sha256": "0" * 64},
}  # fmt: skip


def edited(example: str, place: str, value: Any) -> dict:
    """An example with one key set, or removed; a place is ``model.full.kind``, list positions are numbers."""
    tables = copy.deepcopy(EXAMPLES[example])
    *above, last = [int(part) if part.isdigit() else part for part in place.split("/")]
    here = tables
    for part in above:
        here = here[part] if isinstance(part, int) else here.setdefault(part, {})
    if value is GONE:
        del here[last]
    else:
        here[last] = value
    return tables


MISTAKES = [
    ("uci_heart", "study/primary", "diseas", "[study] primary = 'diseas': no such endpoint; did you mean 'disease'?"),
    ("uci_heart", "study/sed", 1, "[study] sed: unknown key; did you mean 'seed'?"),
    ("uci_heart", "study/seed", "7", "[study] seed = '7': should be a whole number"),
    ("uci_heart", "study/seed", 2**60, "[study] seed = 1152921504606846976: should be less than or equal to"),
    ("uci_heart", "study/name", "a/b", "[study] name = 'a/b': should be letters, digits, _ and -, a letter first"),
    ("uci_heart", "privcy", {"minimum_count": 5}, "[privcy] unknown key; did you mean 'privacy'?"),
    ("uci_heart", "split", GONE, "split: required key is missing; add it"),
    (
        "uci_heart",
        "endpoint/disease/kind",
        "binry",
        "[endpoint.disease] kind = 'binry': is not known; did you mean 'bin",
    ),
    ("uci_heart", "endpoint/disease/column", GONE, "[endpoint.disease] column: required key is missing; add it"),
    ("uci_heart", "endpoint/disease/kind", GONE, "[endpoint.disease] kind: required key is missing; add it"),
    ("uci_heart", "endpoint/disease/negative", 1.0, "positive and negative are both 1; they must differ"),
    ("tcga_brca", "endpoint/survival/horizon", [5, 1], "horizon = [5.0, 1.0]: must ascend"),
    ("tcga_brca", "endpoint/survival/event", "time_days", "time and event are both column 'time_days'"),
    ("uci_heart", "variable/0/range", [110, 18], "[[variable]] 'age' range = [110.0, 18.0]: the first number must be"),
    ("uci_heart", "variable/0/range", [18, "x"], "[[variable]] 'age' range[2] = 'x': should be a number"),
    ("uci_heart", "variable/0/range", [18, float("inf")], "[[variable]] 'age' range[2] = inf: should be a finite"),
    ("uci_heart", "variable/0/levels", [1, 2], "levels belong to binary and categorical variables"),
    ("uci_heart", "variable/1/levels", [1, "1.0"], "levels = [1, '1.0']: a level is given twice"),
    ("uci_heart", "variable/1/levels", [1, 2, 3], "a binary variable has two, the reference first"),
    ("uci_heart", "variable/1/range", [0, 1], "range belongs to continuous variables"),
    ("uci_heart", "variable/2/levels", GONE, "[[variable]] 'chest_pain' a categorical variable needs levels"),
    ("uci_heart", "variable/2/levels", [1, True], "levels[2] = True: should be a number or a text"),
    ("uci_heart", "variable/2/missing", "median", "missing = 'median' does not fit a categorical variable; use one of"),
    ("uci_heart", "variable/1/name", "age", "[[variable]] 'age' name: is given 2 times; keep one"),
    ("uci_heart", "variable/1/name", "part", "is a column of our own; choose another name"),
    (
        "uci_heart",
        "model/full/predictors",
        ["agee"],
        "[model.full] predictors = 'agee': no such predictor; did you mean",
    ),
    ("uci_heart", "model/full/predictors", ["age", "age"], "a predictor is given twice; keep one"),
    ("uci_heart", "model/full/predictors", [], "[model.full] predictors = []: is empty; name at least 1"),
    ("uci_heart", "model/full/wqx", "efron", "[model.full] wqx: unknown key; use one of"),
    ("uci_heart", "model/full/kind", "logit", "[model.full] kind = 'logit': is not known; did you mean 'logistic'?"),
    (
        "uci_heart",
        "model/full/kind",
        "cox",
        "is a binary endpoint, a cox model needs a survival one; change kind or endpoint",
    ),
    ("uci_heart", "model/full/endpoint", "death", "[model.full] endpoint = 'death': no such endpoint"),
    (
        "uci_heart",
        "model/full/selection",
        ["laso"],
        "selection[1].method = 'laso': is not known; did you mean 'lasso'?",
    ),
    ("uci_heart", "model/full/selection", [{"method": "lasso", "lamda": 1}], "unknown key; did you mean 'lambda'?"),
    (
        "uci_heart",
        "model/a b",
        {"kind": "logistic", "predictors": ["age"]},
        "[model.a b] name 'a b': should be letters",
    ),
    ("tcga_brca", "model/cox/selection", ["correlation"], "selection[1] = 'correlation': works on binary endpoints"),
    (
        "tcga_brca",
        "model/cox/selection",
        ["screen"],
        "[model.cox] selection[1].test = 't': does not work on a survival",
    ),
    (
        "uci_heart",
        "model/full/selection",
        [{"method": "screen", "test": "cox"}],
        "test = 'cox': needs a survival endpoint",
    ),
    ("sarcoma", "model/radiomics_score/predictors", ["model.fused"], "the models use each other"),
    ("sarcoma", "model/fused/predictors", ["features.radiomcs"], "did you mean 'features.radiomics'?"),
    ("sarcoma", "features/radiomics/bin_count", GONE, "give bin_count or bin_width = {image = width}, one of the two"),
    ("sarcoma", "features/radiomics/bin_width", {"ct": 25.0}, "give bin_count or bin_width"),
    ("sarcoma", "features/radiomics/images", ["pett"], "[features.radiomics] images = 'pett': no such image; did you"),
    ("sarcoma", "features/deep/regions", ["liver"], "[features.deep] regions = 'liver': no such region"),
    (
        "sarcoma",
        "features/deep/weights",
        {"file": "w", "sha256": "1"},
        "[features.deep.weights] sha256 = '1': should be 64",
    ),
    (
        "sarcoma",
        "features/deep/weights",
        {"file": "w", "sha26": "1"},
        "[features.deep.weights] sha26: unknown key; did you mean 'sha256'?",
    ),
    ("sarcoma", "image/mr/window_hu", [0, 1], "window_hu belongs to CT, this is MR; use normalise"),
    ("sarcoma", "image/ct/normalise", "zscore", "window_hu and normalise exclude each other; keep one"),
    ("sarcoma", "region/rim", {"source": "ring", "of": "tumor", "outer_mm": 5.0}, "did you mean 'tumour'?"),
    ("sarcoma", "harmonise/features", ["radiomic"], "[harmonise] features = 'radiomic': no such feature set"),
    ("uci_heart", "split/external", ["va"], "site 'va' is in train and in external; keep one"),
    ("uci_heart", "split/internal_fraction", 1.0, "[split] internal_fraction = 1.0: should be less than 1"),
    ("tcga_brca", "split/internal_fraction", 0.3, "internal_fraction and part_column exclude each other; keep one"),
    ("tcga_brca", "split/part_column/internal", "train", "two parts have the same value; each needs its own"),
    ("uci_heart", "split/train", ["va", "cleveland"], "2 training sites, but minimum_sites = 3"),
    ("uci_heart", "federation/quorum", ["vq"], "[federation] quorum = 'vq': no such site of the study; did you mean"),
    ("uci_heart", "privacy/released_numbers", 0, "[privacy] released_numbers = 0: should be greater than or equal to"),
    ("uci_heart", "validation/bootstrap", 10, "[validation] bootstrap = 10: too few for an interval; take 100 or more"),
    ("uci_heart", "model/selected/selection", [{"method": "lasso", "mixing": 0}], "mixing = 0: should be greater"),
    ("tcga_brca", "model/cox/kind", "lasso", 'kind cox with strata = "none" and selection = ["lasso"]'),
    ("sarcoma", "region/liver", {"source": "model", "image": "ct"}, "[region.liver] network: required key is missing"),
    (
        "sarcoma",
        "region/liver",
        {**DRAWN, "network": "unett"},
        "[region.liver] network = 'unett': is not known; did you mean 'unet'?",
    ),
    ("sarcoma", "region/liver", {**DRAWN, "kernels": [3]}, "[region.liver] kernels: unknown key; did you mean"),
    ("sarcoma", "region/liver", {**DRAWN, "image": "ctt"}, "image = 'ctt': no such image with a grid of its own; did"),
    ("sarcoma", "region/liver", {**DRAWN, "image": "pet", "window_hu": [0, 1]}, "belongs to CT, and image 'pet'"),
    ("sarcoma", "region/liver", {**DRAWN, "patch": [30, 32, 32]}, "patch = [30, 32, 32]: the deepest level has"),
    ("sarcoma", "region/tumour", DRAWN, "images = 'pet': region 'tumour' is drawn on image 'ct'; give [image.pet]"),
    ("sarcoma", "harmonise/protect", ["age"], "[harmonise] protect = 'age': no such variable"),
    ("uci_heart", "validation/compare", [["full", "fll"]], "[validation] compare = 'fll': no such model; did you mean"),
    ("uci_heart", "validation/compare", [["full", "full"]], "compares a model with itself; name two models"),
    ("uci_heart", "validation/compare", [["full", "selected"], ["selected", "full"]], "is named more than once"),
    ("uci_heart", "validation/cutoff", 2.0, "is no probability"),
    ("uci_heart", "validation/cutoff", "youdn", 'should be "youden", "median", "log_rank" or a number'),
    ("tcga_brca", "validation/cutoff", "youden", 'needs a binary primary endpoint; use "median" or a number'),
    ("uci_heart", "validation/subgroups", ["age"], "subgroups = 'age': no such binary or categorical variable"),
    ("uci_heart", "validation/survival", "disease", "[validation] survival = 'disease': no such survival endpoint"),
    (
        "uci_heart",
        "validation/analysis",
        [{"model": "full", "endpoint": "disease", "where": {"sex": 2}}],
        "[[validation.analysis]] 1 where.sex = '2': no such level; use one of 0, 1",
    ),
    (
        "uci_heart",
        "validation/analysis",
        [{"model": "full", "endpoint": "disease", "where": {"sex": 1, "chest_pain": 4}}],
        "[[validation.analysis]] 1 where = 'sex, chest_pain': a subset is one level of one variable; name one",
    ),
    ("uci_heart", "privacy/minimum_sites", 2, "minimum_sites = 2: a secure sum over fewer than 3 sites"),
]


@pytest.mark.parametrize(("example", "place", "value", "message"), MISTAKES)
def test_a_mistake_is_named(example, place, value, message):
    with pytest.raises(StudyError) as caught:
        parse_study(edited(example, place, value), source="folder/study.toml")
    assert str(caught.value).startswith("folder/study.toml")
    assert message in str(caught.value)


def test_all_mistakes_come_at_once():
    tables = edited("uci_heart", "study/seed", "seven")
    tables["privacy"]["minimum_count"] = 0
    tables["model"]["full"]["kindd"] = "logistic"
    with pytest.raises(StudyError) as caught:
        parse_study(tables)
    head, *lines = str(caught.value).splitlines()
    assert head == "study.toml has 3 mistakes:"
    assert [line.split()[0] for line in lines] == ["[study]", "[model.full]", "[privacy]"]


def test_two_sites_may_do_without_masks():
    tables = edited("uci_heart", "split/train", ["va", "cleveland"])
    tables["privacy"] |= {"secure_aggregation": False, "minimum_sites": 2}
    assert parse_study(tables).opt_ins == ("secure_aggregation",)


# words of the file and values of every TOML type: what a hand or a programme may write in the wrong place
WORDS = st.sampled_from(
    ["age", "kind", "name", "lasso", "binary", "model.full", "features.deep", "file", "", "\x00", "é"]
)
LEAVES = st.one_of(
    WORDS,
    st.text(string.printable, max_size=4),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.sampled_from([10**400, -(2**63), 1e308, -0.0]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=5
)


def places(tables: Any, above: tuple = ()) -> list[tuple]:
    """Every key and index below the top."""
    if isinstance(tables, dict):
        below = tables.items()
    elif isinstance(tables, list):
        below = enumerate(tables)
    else:
        return []
    return [place for key, value in below for place in [(*above, key), *places(value, (*above, key))]]


PLACES = {name: places(tables) for name, tables in EXAMPLES.items()}


@st.composite
def edits(draw):
    name = draw(st.sampled_from(sorted(EXAMPLES)))
    tables = copy.deepcopy(EXAMPLES[name])
    for _ in range(draw(st.integers(1, 3))):
        here = tables
        *above, last = draw(st.sampled_from(PLACES[name]))
        try:
            for part in above:
                here = here[part]
            if draw(st.booleans()) and isinstance(here, dict):
                here[draw(WORDS)] = draw(VALUES)
            elif draw(st.booleans()):
                del here[last]
            else:
                here[last] = draw(VALUES)
        except (KeyError, IndexError, TypeError):  # an earlier edit took that place away
            continue
    return tables


@settings(max_examples=400, deadline=None, derandomize=True)
@given(edits())
def test_random_edits_give_a_study_or_a_study_error(tables):
    try:
        study = parse_study(tables)
    except StudyError as error:
        told = str(error)
    else:
        told = "study.toml"
        assert parse_study(tomllib.loads(study.to_toml())).hash == study.hash
    assert told.startswith("study.toml")
    assert all(len(line) < 600 for line in told.splitlines())


def test_stacks_that_leave_no_fold_to_fit_on():
    tables = copy.deepcopy(EXAMPLES["uci_heart"])
    tables["split"] = {"train": tables["split"]["train"], "folds": 3}
    del tables["validation"]
    tables["model"] = {
        name: {"kind": "logistic", "predictors": [below]}
        for name, below in {"a": "age", "b": "model.a", "c": "model.b"}.items()
    }
    with pytest.raises(StudyError, match=r"folds = 3: model 'a' .* leave out 3 folds; use 4 or more, or stack"):
        parse_study(tables)
    tables["model"]["b"]["stack"] = "apparent"
    parse_study(tables)


def test_few_training_sites_are_told_with_and_without_masks():
    tables = copy.deepcopy(EXAMPLES["uci_heart"])
    tables["split"]["train"] = tables["split"]["train"][:2]
    tables["privacy"] = {"secure_aggregation": False}
    with pytest.raises(StudyError, match=r"2 training sites, but minimum_sites = 3; .* \(1 at least\)"):
        parse_study(tables)
    tables["privacy"]["minimum_sites"] = 2
    parse_study(tables)
