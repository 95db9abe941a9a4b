"""A study under differential privacy: noised, charged, labelled; what cannot be noised does not leave."""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from cohortium.cli.main import main
from cohortium.client import door
from cohortium.client.noise import noised_share
from cohortium.common import privacy_plan
from cohortium.common.codec import pack, unpack
from cohortium.common.errors import StudyError, SumRefused
from cohortium.common.privacy_accountant import Accountant, epsilon
from cohortium.common.study import load_study
from cohortium.common.table import Table
from cohortium.simulation.engine_deployment import CommandError, cohortium
from cohortium.simulation.preview import preview
from cohortium.simulation.simulate import simulate
from cohortium.sites.prepared import TABLE, prepared_folder
from cohortium.strategies import registry, views

EPSILON, DELTA = 6.0, 1e-5
MODEL = '[model.full]\nkind = "logistic"\npredictors = ["stage"]\n'
NOISED = f"{MODEL}\n[privacy.dp]\nepsilon = {EPSILON}\ndelta = {DELTA}\n"
SIZES = {"north": 700, "east": 600, "south": 600, "west": 300}
COUNTS = {
    "statistic": "levels.level_counts",
    "view": {
        "kind": "matrix", "rows": {"part": "train", "endpoint": "outcome"}, "group": "outcome",
        "blocks": [{"terms": ["stage"]}],
    },
    "parameters": {"levels": 3, "groups": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("private")
    folder = write_study(place / "study", NOISED, sizes=SIZES)
    return folder, place / "out", simulate(folder, place / "out")


@pytest.fixture
def north(finished):
    _, out, _ = finished
    study = load_study(out)
    table = Table.read(prepared_folder(out / "sites" / "north", study.hash) / TABLE)
    return views.Context(table=table, study=study, site="north", objects={})


def ask(context, folder, *, roster=("east", "north", "south", "west"), **changed):
    item = COUNTS | changed
    statistic = registry.find(item["statistic"])
    return noised_share(statistic, item, context, accountant=Accountant(folder), roster=roster)


def test_every_figure_says_so(finished):
    _, out, results = finished
    assert results["privacy"]["epsilon"] == EPSILON
    assert results["privacy"]["delta"] == DELTA
    label = {"epsilon": EPSILON, "delta": DELTA}
    model = results["models"]["full"]
    figures = [*results["table_one"], *model["coefficients"], *model["cohorts"].values()]
    assert all(figure.get("privacy") == label or "withheld" in figure for figure in figures)
    assert sum("privacy" in figure for figure in figures) == 1 + 3 + 1  # stage, its coefficients, the training cohort
    assert model["cohorts"]["external"]["withheld"]  # one site alone: its figures cannot be noised
    page = (out / "report.html").read_text()
    assert page.count("Differential privacy: epsilon = 6, delta = 1e-05.") >= 4  # the head and the tables
    assert "equal to the pooled fit" not in page
    assert "about ten patients a bin" not in page
    assert results["held_by"] == {"train": ["east", "north", "south"]}
    json.dumps(results, allow_nan=False)


def test_every_site_spent_what_was_approved_and_no_more(finished):
    folder, out, _ = finished
    study = load_study(folder)
    for site in study.sites:
        accountant = Accountant(out / "sites" / site)
        assert len(accountant.charges()) == 1 + privacy_plan.ROUNDS + 1
        # counts carry a site's least noise, 4 steps, which is more than this epsilon asks for
        assert 0.7 * EPSILON < epsilon(accountant.spent(study.hash), DELTA) <= EPSILON


def test_the_noise_is_that_of_the_plan_and_the_figures_are_near(finished, pooled):
    folder, out, results = finished
    rows = pooled(out, folder).query("part == 'train'")
    (entry,) = [entry for entry in results["table_one"] if entry["variable"] == "stage"]
    study = load_study(folder)
    sigma = 2 * privacy_plan.noise_of_a_site(study, "levels.level_counts", 2.0)  # four sites
    for group, outcome in zip(entry["groups"].values(), (0, 1), strict=True):
        for level, count in group["levels"].items():
            truth = ((rows.outcome == outcome) & (rows.stage == int(level))).sum()
            assert abs(count - truth) < 6 * sigma
    auc = results["models"]["full"]["cohorts"]["train"]["auc"]
    assert auc["ci"][0] < auc["estimate"] < auc["ci"][1]


def test_a_retry_gets_the_same_noise_and_other_patients_get_other(north, tmp_path):
    first, again = ask(north, tmp_path), ask(north, tmp_path)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len(Accountant(tmp_path).charges()) == 1
    everyone = np.ones(len(north.table), bool)
    everyone[0] = False
    fewer = views.Context(north.table.take(everyone), north.study, "north", {})
    ask(fewer, tmp_path)
    assert len(Accountant(tmp_path).charges()) == 2
    for levels in range(4, 100):  # ever another question about the same patients
        with suppress(SumRefused):
            ask(north, tmp_path, parameters={"levels": levels, "groups": 2})
    assert len(Accountant(tmp_path).charges()) < 60
    with pytest.raises(SumRefused, match="more than is left"):
        ask(north, tmp_path, parameters={"levels": 100, "groups": 2})
    assert epsilon(Accountant(tmp_path).spent(), DELTA) <= EPSILON


def test_no_finished_figures_leave(finished):
    folder, out, _ = finished
    parameters = pack({"spec": {"cohorts": {}, "table_one": ["external"]}, "objects": []})
    request = {"kind": "figures", "study": load_study(out).hash, "run": "a" * 32, "parameters": parameters}
    site = {"site_file": folder / "sites" / "west" / "site.toml", "workspace": out / "sites" / "west"}
    ((_, what, why),) = unpack(door.answer(pack(request), **site))["refused"]
    assert what == "figures"
    assert "cannot be noised" in why


def test_the_noise_has_the_share_of_the_plan(north, tmp_path):
    exact = registry.find("levels.level_counts").local(views.build(COUNTS["view"], north), **COUNTS["parameters"])
    sigma = privacy_plan.noise_of_a_site(north.study, "levels.level_counts", 2.0)
    noise = [
        np.concatenate([(a - b).ravel() for a, b in zip(ask(north, tmp_path / str(i)), exact, strict=True)])
        for i in range(100)
    ]
    assert np.std(noise) == pytest.approx(sigma, rel=0.1)  # 800 draws: 2.5 %


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"statistic": "moments.power_sums"}, "cannot leave under .* levels.level_counts, noisy_logistic.gradient"),
        ({"roster": ("east", "north", "south")}, "every site of the study must add its noise"),
        ({"view": COUNTS["view"] | {"rows": {"part": "train", "without": [1]}}}, "no folds"),
        ({"view": COUNTS["view"] | {"rows": {"part": "train", "where": ["stage", 1.0]}}}, "no folds, subgroups"),
        ({"view": COUNTS["view"] | {"inner_folds": 5}}, "no folds"),
        ({"view": COUNTS["view"] | {"blocks": [{"features": "x", "harmonise": "y"}]}}, "harmonisation"),
        ({"view": COUNTS["view"] | {"blocks": [{"terms": ["age"]}]}}, "a variable without levels"),
        ({"parameters": {"levels": 1, "groups": 2}}, "fewer levels than it has"),
    ],
)
def test_what_cannot_be_noised_is_refused_and_costs_nothing(north, tmp_path, changed, told):
    with pytest.raises(SumRefused, match=told):
        ask(north, tmp_path, **changed)
    assert Accountant(tmp_path).spent() == 0


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (NOISED.replace('"stage"', '"age"'), "give the variable a range"),
        (NOISED.replace('"stage"', '"stage", "marker"'), "range"),
        (NOISED.replace("logistic", "lasso"), "only logistic models without selection"),
        (NOISED + 'statistics = ["levels.level_counts"]\n', "noisy_logistic.gradient fits it; add it"),
        (NOISED + 'statistics = ["moments.power_sums"]\n', "statistics"),
        (NOISED + "accomplices = 3\n", "must leave two of the 4 sites"),
        ("folds = 5\n" + NOISED, "folds: cannot be noised"),
        (NOISED + '[validation]\nsubgroups = ["stage"]\n', "subgroups: cannot be noised"),
        (NOISED.replace("[privacy.dp]", "[privacy]\nsecure_aggregation = false\n[privacy.dp]"), "too little noise"),
        (NOISED.replace("epsilon = 6.0", "epsilon = 0"), "epsilon"),
    ],
)
def test_a_study_that_noise_cannot_serve(write_study, tmp_path, tables, told):
    with pytest.raises(StudyError, match=told):
        load_study(write_study(tmp_path, tables, sizes=dict.fromkeys(SIZES, 5)))


def test_a_study_without_it_has_no_trace_of_it(write_study, tmp_path):
    study = load_study(write_study(tmp_path, MODEL, sizes=dict.fromkeys(SIZES, 5)))
    assert b'"dp"' not in study.canonical
    assert "[privacy.dp]" not in study.to_toml()


def test_the_preview_shows_what_would_leave(finished):
    _, out, _ = finished
    study = load_study(out)
    table = Table.read(prepared_folder(out / "sites" / "north", study.hash) / TABLE)
    found = preview(study, table, ("*",))
    assert not found.stopped
    assert {leaving.statistic for leaving in found.sums} == set(privacy_plan.SHARES)


# --- engines, and runs that were killed ------------------------------------------------------------------------


def account(out):
    """What every site was charged, whatever the order in which its answers were asked for."""
    sites = sorted((out / "sites").iterdir())
    charges = {site.name: Accountant(site).charges() for site in sites}
    return {name: sorted((c["part"], c["statistic"], c["rho"]) for c in found) for name, found in charges.items()}


def again(folder, out):
    """A second run of a study in the same workspaces, from the beginning: every answer of the sites is a kept one."""
    shutil.rmtree(out / "run")
    (out / "results.json").unlink()
    return simulate(folder, out)


def same(first, second):
    return {key for key in first if first[key] != second[key]} <= {"engine", "cost"}


def test_another_run_gets_the_kept_noise_and_is_charged_nothing(finished, tmp_path):
    folder, out, results = finished
    shutil.copytree(out, tmp_path / "out")
    assert same(results, again(folder, tmp_path / "out"))
    assert account(tmp_path / "out") == account(out)


def test_a_killed_run_spends_nothing_twice(finished, tmp_path):
    folder, out, _ = finished
    killed = tmp_path / "out"
    code = f"import sys; from cohortium.cli.main import main; sys.exit(main(['simulate', {str(folder)!r}, '--out', "
    code += f"{str(killed)!r}, '--quiet', *sys.argv[1:]]))"
    for at, more in ((6, ()), (15, ("--resume",))):
        running = subprocess.Popen([sys.executable, "-c", code, *more])
        while running.poll() is None and len(list(killed.glob("run/journal/*.coh"))) < at:
            time.sleep(0.005)
        assert running.poll() is None
        running.send_signal(signal.SIGKILL)
        running.wait()
    resumed = simulate(folder, killed, resume=True)
    assert account(killed) == account(out)
    assert all(epsilon(Accountant(site).spent(), DELTA) <= EPSILON for site in (killed / "sites").iterdir())
    assert same(resumed, again(folder, killed))


@pytest.mark.deployment
def test_ray_charges_the_same_and_the_same_noise_gives_the_same_results(finished, tmp_path):
    """Noise is fresh in every first run, so that figures differ; what it costs does not."""
    folder, out, _ = finished
    other = tmp_path / "out"
    cohortium(["simulate", str(folder), "--engine", "ray", "--out", str(other), "--quiet"])
    assert account(other) == account(out)
    found = json.loads((other / "results.json").read_text())
    assert same(found, again(folder, other))
    assert account(other) == account(out)


@pytest.fixture(scope="module")
def limited(finished, tmp_path_factory):
    """The study at sites of which one gives all studies together half of its epsilon; stopped there in one process."""
    folder, place = finished[0], tmp_path_factory.mktemp("limited")
    shutil.copytree(folder, place / "study")
    file = place / "study" / "sites" / "east" / "site.toml"
    file.write_text(file.read_text().replace("[site]\n", f"[site]\nepsilon = {EPSILON / 2}\ndelta = {DELTA}\n"))
    with pytest.raises(SumRefused, match="epsilon that this site gives to all studies together"):
        simulate(place / "study", place / "out")
    return place / "study", place / "out"


def test_a_site_s_own_limit_over_all_studies(limited):
    """The fit ends where the site's limit does, whatever the study has left; what was paid for can be asked again."""
    _, out = limited
    assert 0.3 * EPSILON < epsilon(Accountant(out / "sites" / "east").spent(), DELTA) <= EPSILON / 2
    assert 3 < len(account(out)["east"]) < 1 + privacy_plan.ROUNDS


@pytest.mark.deployment
def test_deployed_sites_charge_the_same_and_stop_at_the_same_limit(limited, tmp_path):
    folder, out = limited
    with pytest.raises(CommandError, match="epsilon that this site gives to all studies together"):
        cohortium(["simulate", str(folder), "--engine", "deployment", "--out", str(tmp_path / "out"), "--quiet"])
    assert account(tmp_path / "out") == account(out)


def test_the_log_of_a_site_shows_its_accounts(finished, limited, capsys):
    folder, out, _ = finished
    capsys.readouterr()
    assert main(["site", "log", "--workspace", str(out / "sites" / "north")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "epsilon" in line]
    spent = epsilon(Accountant(out / "sites" / "north").spent(), DELTA)
    assert line.startswith(f"study {load_study(folder).hash[:12]}  epsilon {spent:.3g} spent of 6 (delta 1e-05)")
    site = limited[0] / "sites" / "east" / "site.toml"
    site.write_text(site.read_text().replace("[site]\n", f'[site]\nworkspace = "{limited[1] / "sites" / "east"}"\n'))
    assert main(["site", "log", "--site", str(site), "--json"]) == 0
    together = json.loads(capsys.readouterr().out)["privacy_of_all_studies"]
    assert (together["approved"], together["delta"]) == (EPSILON / 2, DELTA)
    assert together["epsilon"] <= EPSILON / 2
