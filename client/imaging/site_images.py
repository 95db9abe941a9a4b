"""Site images: the images of all patients of a site to features, side by side, each finished case kept on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cohortium.client.imaging.automatic import drawn_cases
from cohortium.client.imaging.case import CaseFiles
from cohortium.client.imaging.dispatch import measure_cases
from cohortium.client.imaging.processes import Processes
from cohortium.client.imaging.recipe import Recipe
from cohortium.client.imaging.store import Store, content_key, finished
from cohortium.common.errors import SiteError
from cohortium.common.progress import NullProgress
from cohortium.common.study import Study
from cohortium.common.study_images import DeepFeatures
from cohortium.common.study_networks import WeightFile
from cohortium.sites.flow import Exclusion
from cohortium.sites.site_file import Site

if TYPE_CHECKING:
    from cohortium.client.imaging.deep import Backbone

EMBEDDING_LIBRARIES = ("torch", "monai", "numpy")


@dataclass
class SiteImages:
    """What came of a site's images.

    Attributes
    ----------
    names : list of str
        Columns of features.
    rows : dict
        Patient -> values of `names`, for every patient whose images can be used, in the order given.
    cases : dict
        Patient -> name among the finished cases (`Store`), where what was examined lies: findings, volumes, sheet.
    exclusions : list of Exclusion
    weights : dict
        Deep feature set -> its network and where the weights come from, for the site's records.
    computed, kept : int
        Cases measured now, and found finished.
    """

    names: list[str] = field(default_factory=list)
    rows: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    cases: dict[str, str] = field(default_factory=dict)
    exclusions: list[Exclusion] = field(default_factory=list)
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    computed: int = 0
    kept: int = 0


def measure_site(
    study: Study, site: Site, patient_ids: Sequence[str], *, pool: Processes | None, progress: NullProgress, cache: Path
) -> SiteImages:
    """Features of every patient whose images can be used.

    Only the numbers of a case stay in memory: pictures and sheets go through the store of finished cases.

    Parameters
    ----------
    pool : Processes or None
        Processes for the cases; None measures in this one. Networks run in this one either way.
    cache : Path
        Folder of finished cases.

    Raises
    ------
    SiteError
        A folder, right or key of the site is missing; no patient is excluded for that.
    StudyError
        The study asks for something that this version cannot measure.
    """
    recipe = Recipe.of(study)
    cases = [files_of(site, recipe, patient_id) for patient_id in patient_ids]
    check_folders(site, recipe, cases)
    images = SiteImages(names=recipe.radiomics_columns())
    store = Store(cache)
    rows: dict[str, NDArray[np.float64]] = {}
    cases, unusable = draw_regions(study, site, cases, pool=pool, progress=progress, cache=cache)
    with progress.stage(f"{site.name}: images", total=len(cases)) as step:
        for patient_id, found, computed in measure_cases(cases, recipe, store, pool, step):
            images.computed += computed
            if isinstance(found, Exclusion):
                unusable[patient_id] = found
            else:
                images.kept += not computed
                images.cases[patient_id] = found
                # A copy: what the store gives is a view that would hold on to the whole case
                rows[patient_id] = finished(store, found)["values"].copy()
            step.advance()
    # In the order of the patients, whichever process was done first
    images.exclusions = [unusable[p] for p in patient_ids if p in unusable]
    images.rows = {p: rows[p] for p in patient_ids if p in rows}
    _embed_all(study, site, images, store, progress)
    return images


def draw_regions(
    study: Study, site: Site, cases: list[CaseFiles], *, pool: Processes | None, progress: NullProgress, cache: Path
) -> tuple[list[CaseFiles], dict[str, Exclusion]]:
    """Cases with the masks of regions that networks draw, and the patients who have none.

    Raises
    ------
    SiteError
        A disk, share or right is missing, or a weight file is not the study's.
    """
    recipe = Recipe.of(study)
    if not recipe.drawn:
        return cases, {}
    with progress.stage(f"{site.name}: regions", total=len(cases)) as step:
        drawn = []
        for found in drawn_cases(cases, recipe, study.resolve, cache, pool):
            drawn.append(found)
            step.advance()
    failed = {found.patient_id: found for found in drawn if isinstance(found, Exclusion)}
    return [found for found in drawn if isinstance(found, CaseFiles)], failed


def _embed_all(study: Study, site: Site, images: SiteImages, store: Store, progress: NullProgress) -> None:
    """Add the networks' features; torch starts only if an embedding is not among the finished ones."""
    deep = [s for s in study.features.values() if isinstance(s, DeepFeatures)]
    todo = len(images.rows) * sum(len(s.images) * len(s.regions) for s in deep)
    if not todo:
        return
    networks = _Networks(study)
    with progress.stage(f"{site.name}: embeddings", total=todo) as step:
        for number, (patient_id, row) in enumerate(images.rows.items()):
            parts = [row]
            # Sorted: a measured case and one found finished give the same order of columns
            for place, picture in sorted(finished(store, images.cases[patient_id])["pictures"].items()):
                name = place.split("/")[0]
                # A copy: what the store gives is read-only, which torch warns of
                embedding, images.weights[name] = networks.embed(name, picture.copy(), store)
                if number == 0:
                    images.names += [f"features.{place}/{i:04d}" for i in range(len(embedding))]
                parts.append(np.asarray(embedding, dtype=np.float64))
                step.advance()
            images.rows[patient_id] = np.concatenate(parts)


class _Networks:
    """The networks of a study's deep feature sets, each loaded when a picture first needs it."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._sets = {name: s for name, s in study.features.items() if isinstance(s, DeepFeatures)}
        self._loaded: dict[str, Backbone] = {}

    def embed(self, name: str, picture: Any, store: Store) -> tuple[list[float], dict[str, str]]:
        """A picture's features in a set, and what the site records about the network."""
        settings = self._sets[name]
        weights = settings.weights
        if isinstance(weights, WeightFile):
            origin = {"source": weights.format, "licence": weights.licence, "file_sha256": weights.sha256}
        else:
            origin = {"source": "random", "seed": str(self._study.study.seed)}
        digest = hashlib.sha256(picture.tobytes()).hexdigest()
        what = {"picture": [picture.shape, digest], "settings": settings.model_dump(mode="json"), "origin": origin}
        key = content_key(what, EMBEDDING_LIBRARIES)
        if (found := store.get(key)) is None:
            backbone = self._load(name)
            found = {"embedding": backbone.embed(picture, settings.size), "sha256": backbone.sha256}
            store.put(key, found)
        return found["embedding"].tolist(), {"network": settings.network, **origin, "sha256": found["sha256"]}

    def _load(self, name: str) -> "Backbone":
        from cohortium.client.imaging.deep import load_backbone

        if name not in self._loaded:
            self._loaded[name] = load_backbone(
                self._sets[name], seed=self._study.study.seed, resolve=self._study.resolve
            )
        return self._loaded[name]


# --- what a site must have ------------------------------------------------------------------------------------


def files_of(site: Site, recipe: Recipe, patient_id: str) -> CaseFiles:
    """A patient's files by the patterns of site.toml."""
    bases = dict.fromkeys((recipe.grid(image), recipe.base(region)) for image, region in recipe.pairs)
    names = dict.fromkeys([*(image for image, _ in bases), *(image for image, _ in recipe.pairs)])
    for image in names:
        if image not in site.images:
            raise SiteError(f"{site.source}: [images.{image}] is missing; the study measures this image, add its files")
    contoured = [place for place in bases if place not in recipe.drawn]
    for image, region in contoured:
        if region not in site.images[image].mask:
            raise SiteError(
                f"{site.source}: [images.{image}]: mask.{region} is missing; add the pattern of this region's masks"
            )
    return CaseFiles(
        patient_id,
        {image: site.image_file(image, patient_id) for image in names},
        {(image, region): site.mask_file(image, region, patient_id) for image, region in contoured},
        {(image, region): site.images[image].mask[region] for image, region in contoured},
    )


def check_folders(site: Site, recipe: Recipe, cases: list[CaseFiles]) -> None:
    """A folder that is away, or a pattern that finds nobody, is a mistake of the site and excludes no patient."""
    pattern = files_of(site, recipe, "{patient_id}")
    roles = [
        (f"images.{image}", path, [case.images[image] for case in cases]) for image, path in pattern.images.items()
    ]
    roles += [
        (f"images.{place[0]}, mask.{place[1]}", path, [case.masks[place] for case in cases])
        for place, path in pattern.masks.items()
    ]
    for role, path, files in roles:
        here = f"{site.source}: [{role}]: {path}"
        root = _fixed_folder(path)
        try:
            if not root.is_dir():
                raise SiteError(f"{here}: folder {root} does not exist; mount the share or correct the pattern")
            if not any(file.exists() for file in files):
                raise SiteError(f"{here}: none of {len(files)} patients has this file; correct the pattern")
        except OSError as broken:
            raise SiteError(f"{here}: {broken.strerror}; give this account access, or check the disk") from broken


def _fixed_folder(pattern: Path) -> Path:
    """The folder that a pattern names before its first placeholder."""
    fixed = []
    for part in pattern.parts:
        if "{" in part:
            break
        fixed.append(part)
    return Path(*fixed)
