"""`cohortium study releases`: what a site would let out in a study, for those who have to approve it."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cohortium.cli.study import StudyPath

if TYPE_CHECKING:
    from cohortium.common.study import Study

MASKS = {
    "whole": "all sites of the roster, or not at all",
    "survivors": "the sites that stayed",
    "none": "**NOT MASKED: each site's own numbers**",
}


def releases(
    study: StudyPath,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write; default: the terminal.")] = None,
) -> None:
    """List what every site of a study would release in it, as markdown. Needs the study file alone."""
    from cohortium.common.study import load_study

    text = "\n".join(lines(load_study(study))) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {out}")


def lines(study: "Study") -> Iterator[str]:
    """The page, from the study alone: the same for everyone who holds a study of this hash."""
    yield f"# What a site releases in {study.study.name}"
    yield ""
    yield f"{study.study.title or study.study.name}, study hash `{study.hash}`."
    yield ""
    yield "Made by `cohortium study releases` from the study file alone: the most that the study's stages ask for,"
    yield "whatever the data. `cohortium site preview` says what a site's own data make of it, `cohortium site log`"
    yield "what really left. What each protection gives and does not give: docs/threat-model.md."
    for section in (_rules, _clear, _sums, _finished, _incoming, _staying):
        yield ""
        yield from section(study)


def _rules(study: "Study") -> Iterator[str]:
    privacy, options = study.privacy, study.federation
    unset = "unset: not limited" if privacy.released_numbers is None else f"{privacy.released_numbers:,}"
    dp = privacy.dp
    noise = "none" if dp is None else f"epsilon {dp.epsilon:g}, delta {dp.delta:g} for one patient over all sums"
    exact = "exact, on a grid of 0.0001" if privacy.score_resolution == "exact" else "in bins of about 10 patients"
    yield "## The rules that the study sets"
    yield ""
    yield from _table(
        ("rule", "value"),
        [
            ("sums are masked", "yes" if privacy.secure_aggregation else "**NO**"),
            ("fewest sites of a sum (minimum_sites)", str(privacy.minimum_sites)),
            ("fewest patients of a cell or cohort (minimum_count)", str(privacy.minimum_count)),
            ("scores (score_resolution)", exact),
            ("event times of pooled survival figures (event_time_days)", f"cells of {privacy.event_time_days} days"),
            ("numbers that may be released (released_numbers)", unset),
            ("noise in every sum (differential privacy)", noise),
            ("when a site leaves (on_departure)", options.on_departure),
            ("wider than the defaults: each site must opt in", ", ".join(study.opt_ins) or "nothing"),
        ],
    )


def _clear(study: "Study") -> Iterator[str]:
    yield "## In the clear, from each site by itself"
    yield ""
    yield "- Flow of patients: how many were given, how many excluded for which reason (reasons of fewer than"
    yield f"  {study.privacy.minimum_count} patients together as `other`), how many used."
    if study.features:
        yield f"- Names of the image features ({', '.join(study.features)}) and what made them: software versions,"
        yield "  digests of network weights. No value of a feature."
    if study.privacy.secure_aggregation:
        yield "- A fresh public key for each run, signed by the site's identity key."
    yield "- Refusals: which rule, and what would satisfy it; never a patient's value. That a rule was broken is itself"
    yield "  told."


def _sums(study: "Study") -> Iterator[str]:
    from cohortium.server.release_sizes import LETTERS
    from cohortium.server.releases import releases as all_of
    from cohortium.server.stages.replicates import replicates

    found = all_of(study)
    yield "## Sums over sites"
    yield ""
    yield "Of each, the coordinator learns the total over the sites and, under masks, no site's part of it. One line a"
    yield "statistic; *numbers* is the most that one answer holds, and iterative fits ask it again at every step. A"
    yield "site without a patient of the part answers with zeros under its masks."
    yield ""
    rows = [(one.part, f"`{one.statistic}`", _short(one.purposes), one.formula, MASKS[one.mask]) for one in found]
    yield from _table(("part", "statistic", "for", "numbers", "opens over"), rows)
    used = "".join(sorted({letter for one in found for letter in one.letters}))
    if used:
        yield ""
        yield "What only the data decide:"
        yield from (f"- **{letter}**: {meaning}." for letter, meaning in LETTERS.items() if letter in used)
    yield ""
    if study.privacy.dp is not None:
        yield "Each site adds its noise before it masks; what a study otherwise reports is withheld. One fit a model."
        return
    if study.validation.leave_one_site_out:
        yield "Leave-one-site-out validation asks all sums of the fits once more without each training site. The sum of"
        yield "all sites less that without one is that site's own: whoever reads both totals reads its share."
        yield ""
    yield "How often each model is fitted, on all training patients and on those outside folds or sites left out:"
    yield ", ".join(f"{name} {len(fits)}" for name, fits in replicates(study).items()) + "."


def _finished(study: "Study") -> Iterator[str]:
    from cohortium.server.release_figures import figure_names, study_cohorts

    specs = study_cohorts(study)
    alone = {name: spec for name, spec in specs.items() if not study.hides_its_sites(spec.part)}
    yield "## Finished figures of single sites"
    yield ""
    if study.privacy.dp is not None:
        yield "None: a part that few sites hold is not validated under differential privacy."
        return
    if study.validation.by_site:
        yield "The study has by_site: each site computes the figures of its own patients of each cohort below and sends"
        yield f"them in the clear; those with fewer than {study.privacy.minimum_count} events are withheld."
        yield ""
        rows = [
            (name, ", ".join(model.name for model in spec.models), ", ".join(figure_names(study, spec)))
            for name, spec in specs.items() if "/" not in name and name not in alone
        ]  # fmt: skip
        yield from _table(("cohort", "models", "figures"), rows)
        yield ""
    if not alone:
        beside = "No others" if study.validation.by_site else "None"
        yield f"{beside}: every part lies at {study.privacy.minimum_sites} sites or more."
        return
    yield f"These cohorts lie at fewer than {study.privacy.minimum_sites} sites, so that a sum would be a site's own"
    yield "data. The site computes the figures itself and sends them in the clear, as a paper would print them of that"
    yield f"hospital alone; those of fewer than {study.privacy.minimum_count} patients are withheld."
    yield ""
    rows = [
        (name, ", ".join(study.sites_of(spec.part)), ", ".join(model.name for model in spec.models),
         ", ".join(figure_names(study, spec)))
        for name, spec in alone.items()
    ]  # fmt: skip
    if study.variable:
        parts = dict.fromkeys(spec.part for spec in alone.values())
        rows += [
            (f"Table 1 of {part}", ", ".join(study.sites_of(part)), "-", ", ".join(study.variables)) for part in parts
        ]
    yield from _table(("cohort", "site", "models", "figures"), rows)


def _incoming(study: "Study") -> Iterator[str]:
    yield "## What comes in"
    yield ""
    yield "Numbers and names, no code; each is kept under the digest of its bytes until the run ends."
    yield ""
    rows = []
    for name in study.model_order:
        model = study.model[name]
        widths = {"network": "head", "mlp": "hidden"}.get(model.kind)
        holds = f"weights of layers {', '.join(map(str, getattr(model, widths)))}, 1" if widths else "coefficients"
        holds = "trees" if model.kind == "gradient_boosting" else holds
        rows.append((name, model.kind, ", ".join(model.predictors), f"means, scales and fills of its columns, {holds}"))
    if study.harmonise is not None:
        what = "grand mean, pooled variance, effects of protected covariates"
        rows.append(("ComBat", "harmonisation", ", ".join(study.harmonise.features), what))
    yield from _table(("object", "kind", "of", "holds"), rows)


def _staying(study: "Study") -> Iterator[str]:
    images = f"images ({', '.join(study.image)}), masks, " if study.image else ""
    yield "## What stays at the site"
    yield ""
    yield f"- Every patient's row: {images}variables, endpoints, features, identifiers, dates."
    yield "- Which patients are in which part and fold: each site finds that by itself from the study's seed."
    yield "- Each patient's scores: `predictions.csv` in the site's workspace."
    yield "- Why a single patient was excluded, error messages in full, the site file with its paths and column names."
    if study.harmonise is not None:
        yield "- ComBat's location and scale of the site."
    yield "- The site's keys, approvals and ledger."


def _short(purposes: tuple[str, ...]) -> str:
    """Purposes, those of subgroups counted."""
    whole = [purpose for purpose in purposes if "/" not in purpose]
    parts = len(purposes) - len(whole)
    return "; ".join([*whole, *([f"{parts} subgroups or secondary analyses of it"] if parts else [])])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
