import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tomli_w
from matplotlib.figure import Figure

from cohortium.common.errors import CohortiumError
from cohortium.server.report.build import build_report, render
from cohortium.server.report.survival_curves import at_risk

VOID = {"meta", "img", "br", "hr", "link", "input"}
SUMS = [
    {
        "sum": i,
        "statistics": ["logistic.terms"],
        "numbers": 120,
        "sites": ["north", "harbour", "university"],
        "bytes": 9,
    }
    for i in range(3)
]


class Page(HTMLParser):
    """Checks that tags close in order, and collects text, ids, links and pictures."""

    def __init__(self, html):
        super().__init__()
        self.open, self.texts, self.ids, self.links, self.pictures, self.tags = [], [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.pictures += [attributes] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def binary_html(_binary_results, _study, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    (run_dir / "run").mkdir()
    (run_dir / "results.json").write_text(json.dumps(_binary_results, allow_nan=False))
    (run_dir / "study.toml").write_text(tomli_w.dumps(_study))
    (run_dir / "run" / "sums.jsonl").write_text("\n".join(map(json.dumps, SUMS)))
    return build_report(run_dir).read_text()


@pytest.fixture(scope="module")
def binary_page(binary_html):
    return Page(binary_html)


@pytest.fixture
def small_results(binary_results):
    """One model in one cohort."""
    model = binary_results["models"]["fused"]
    model["cohorts"] = {"external": model["cohorts"]["external"]}
    return binary_results | {"models": {"fused": model}}


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the figures empty: drawing takes nine tenths of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write(b"<svg/>"))


def test_a_run_folder_gives_one_page_that_needs_nothing_else(binary_html):
    html, page = binary_html, Page(binary_html)
    assert html.startswith("<!DOCTYPE html>")
    assert not re.findall(r"https?://|@import|url\(", html)
    assert "script" not in page.tags
    assert all(picture["src"].startswith("data:image/svg+xml;base64,") for picture in page.pictures)
    assert all(len(picture["alt"]) > 30 for picture in page.pictures)
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(html) < 2e6  # it is mailed


def test_the_same_results_give_the_same_page(survival_results, study):
    assert render(survival_results, study, []) == render(survival_results, study, [])


def test_no_text_shows_a_value_that_is_none_or_no_number(binary_page):
    assert not re.search(r"\b(nan|NaN|None|inf|undefined method|\{\{|\}\})\b", binary_page.text)


def test_every_figure_of_a_binary_model_is_there(binary_page, binary_results):
    fused = binary_results["models"]["fused"]["cohorts"]["external"]
    auc = fused["auc"]
    assert f"{auc['estimate']:.3f} ({auc['ci'][0]:.3f}–{auc['ci'][1]:.3f})" in binary_page.text
    for words in (
        "Brier score", "Calibration slope", "0.970 (0.780–1.160)", "Hosmer–Lemeshow", "Sensitivity",
        "Odds ratio (95% CI)",
        "fused against clinical", "0.071 (0.041–0.101)", "AUC at 1095 days", "Log-rank", "score of deep signature",
    ):  # fmt: skip
        assert words in binary_page.text
    shown = " ".join(picture["alt"] for picture in binary_page.pictures)
    for figure in ("Receiver operating", "Calibration curves", "Decision curves", "Kaplan-Meier", "Forest plot"):
        assert figure in shown


def test_flow_says_given_excluded_and_used(binary_page, binary_results):
    sites = binary_results["sites"]
    assert f"{sum(s['given'] for s in sites)} given by 4 sites" in binary_page.text
    assert "mask is empty: 18" in binary_page.text
    assert "mask is empty 6; age missing 5; other 3" in binary_page.text


def test_table_one_gives_every_group_of_every_cohort(binary_page, binary_results):
    age = binary_results["table_one"][0]["groups"]["1"]
    assert f"Event (n = {age['n'] + 2})" in binary_page.text
    assert f"{age['mean']:.1f} ({age['sd']:.1f})" in binary_page.text
    assert f"{age['median']:.1f} [{age['q1']:.1f}–{age['q3']:.1f}]" in binary_page.text
    stage = binary_results["table_one"][2]["groups"]["0"]
    share = 100 * stage["levels"]["3"] / stage["n"]
    assert f"{stage['levels']['3']} ({share:.1f}%)" in binary_page.text
    assert "p by Student's t test, the chi-squared test, Fisher's exact test" in binary_page.text
    assert "the groups do not differ enough for a test" in binary_page.text


def test_what_is_withheld_or_undefined_is_shown_with_its_reason(binary_page):
    for reason in (
        "fewer than 5 patients in a group",
        "a cell holds fewer than 5 patients",
        "they rank alike",
        "confidence interval undefined: one class has a single patient",
        "4 patients are fewer than minimum_count = 5",
    ):
        assert reason in binary_page.text
    assert "clinical, External validation, calibration" in binary_page.text


def test_numbers_at_risk_are_those_before_the_next_event():
    curve = np.array([[0, 1, 1, 1, 40], [300, 0.9, 0.8, 1, 38], [800, 0.7, 0.6, 0.8, 21]])
    assert [at_risk(curve, time) for time in (0, 1, 300, 301, 800, 801)] == ["40", "38", "38", "21", "21", "–"]


def test_penalised_coefficients_say_once_that_they_have_no_error(small_results, study):
    none = {"undefined": "a penalised estimate has no standard error"}
    rows = [{"term": t, "estimate": 0.2, "se": none, "ci": none, "p": none, "ratio": 1.22, "ratio_ci": none}
            for t in ("features.radiomics/ct/tumour/original_firstorder_Mean", "sex")]  # fmt: skip
    small_results["models"]["fused"] |= {"kind": "lasso", "coefficients": rows}
    page = Page(render(small_results, study, []))
    assert "ct · tumour · original firstorder Mean" in page.text
    assert "standard error and p undefined: a penalised estimate has no standard error" in page.text


def test_who_held_each_cohort_is_shown(small_results, study):
    held_by = {"train": ["north", "harbour"], "external": ["st_mary"], "external/subgroup:sex=1": ["st_mary"]}
    page = Page(render(small_results | {"held_by": held_by}, study, []))
    assert "north, harbour sums over sites" in page.text
    assert "st mary finished figures" in page.text


def test_what_left_each_site_is_shown(binary_page):
    for words in ("812.4 kB", "logistic.terms", "Secure aggregation was on", "c0ffee", "feedfeed", "numpy 2.4.6"):
        assert words in binary_page.text


@pytest.mark.usefixtures("undrawn")
def test_a_page_without_secure_aggregation_says_so(binary_results, study):
    page = Page(render(binary_results | {"secure_aggregation": False}, study, []))
    assert "Secure aggregation was off" in page.text


def test_a_study_of_survival_alone_has_no_figure_of_a_binary_endpoint(survival_results, study):
    study["model"] = {"cox": {"kind": "cox", "endpoint": "overall_survival", "strata": "site", "predictors": ["age"]}}
    page = Page(render(survival_results, study, []))
    for words in ("Hazard ratio (95% CI)", "C-index (95% CI)", "AUC at 1095 days", "Stratified by site", "n < 5"):
        assert words in page.text
    assert "Brier score at 1095 days" in page.text
    shown = " ".join(picture["alt"] for picture in page.pictures)
    assert "Kaplan-Meier" in shown
    assert "Receiver operating" not in shown


def test_a_study_of_a_binary_endpoint_alone_has_no_survival(binary_results, study):
    for model in binary_results["models"].values():
        for record in model["cohorts"].values():
            record.pop("survival", None)
    page = Page(render(binary_results, study, []))
    assert "Kaplan-Meier" not in " ".join(picture["alt"] for picture in page.pictures)
    assert "Survival by risk group" not in page.text


@pytest.mark.usefixtures("undrawn")
def test_every_key_may_be_missing(small_results, study):
    for key in set(small_results) - {"format", "study"}:
        Page(render({k: v for k, v in small_results.items() if k != key}, study, []))
    for key in study:
        Page(render(small_results, {k: v for k, v in study.items() if k != key}, []))
    Page(render({"format": "cohortium-results/1", "study": small_results["study"]}, {}, []))


@pytest.mark.usefixtures("undrawn")
def test_every_figure_may_be_missing_or_withheld(small_results, study):
    for key in list(small_results["models"]["fused"]["cohorts"]["external"]):
        for replaced in (None, {"withheld": "too few"}):
            changed = copy.deepcopy(small_results)
            for record in changed["models"]["fused"]["cohorts"].values():
                record.pop(key, None)
                record |= {key: replaced} if replaced else {}
            page = Page(render(changed, study, []))
            assert replaced is None or "too few" in page.text


@pytest.mark.usefixtures("undrawn")
def test_a_whole_cohort_may_be_withheld(binary_results, study):
    cohorts = binary_results["models"]["fused"]["cohorts"]
    for cohort in cohorts:
        cohorts[cohort] = {"withheld": "fewer than three sites"}
    assert "fewer than three sites" in Page(render(binary_results, study, [])).text


@pytest.mark.usefixtures("undrawn")
def test_names_from_files_cannot_become_markup(binary_results, study):
    study["study"]["title"] = "<script>alert(1)</script>"
    binary_results["sites"][0]["name"] = '"><img src=x>'
    page = Page(render(binary_results, study, []))
    assert "script" not in page.tags
    assert all(picture["src"].startswith("data:") for picture in page.pictures)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(CohortiumError, match=r"results\.json is missing"):
        build_report(tmp_path)
    (tmp_path / "results.json").write_text('{"format": "cohortium-results/9"}')
    with pytest.raises(CohortiumError, match="this version reads 'cohortium-results/1'"):
        build_report(tmp_path)
