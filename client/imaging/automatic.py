"""Automatic: masks of the regions that no site contours, drawn by the study's networks and kept with finished cases.

A mask is a file as a site would have it, so everything after it goes on as with contours. It is known by the bytes of
its image, the weights and the settings; torch starts only where one is not there yet.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from cohortium.client.imaging.case import CaseFiles, volume_of
from cohortium.client.imaging.read import fingerprint
from cohortium.client.imaging.recipe import Recipe
from cohortium.client.imaging.store import content_key
from cohortium.client.imaging.workers import DIED, FAILURES, answer
from cohortium.common.errors import CaseError, SiteError
from cohortium.common.study_networks import ModelRegion
from cohortium.sites.flow import Exclusion
from cohortium.sites.site_file import MaskFile

if TYPE_CHECKING:
    import torch

LIBRARIES = ("torch", "monai", "numpy", "SimpleITK", "connected-components-3d")
FOUND_NOTHING = "network finds no region"


def drawn_cases(
    cases: Sequence[CaseFiles], recipe: Recipe, resolve: Callable[[str], Path], folder: Path, pool: Executor | None
) -> Iterator[CaseFiles | Exclusion]:
    """Each case with its masks, in the order given, or why there is none; a process a case, if there are some.

    Parameters
    ----------
    resolve : callable
        Where a file named in the study lies (``Study.resolve``).
    folder : Path
        Of finished cases.

    Raises
    ------
    SiteError
        A weight file is missing, is another one, or does not fit its network.
    """
    weights = {name: resolve(settings.weights.file) for (_, name), settings in recipe.drawn.items()}
    draw = partial(_drawn, recipe=recipe, weights=weights, folder=folder)
    if pool is None:
        yield from map(draw, cases)
        return
    futures = [pool.submit(draw, files) for files in cases]
    try:
        yield from (answer(future, files.patient_id) for future, files in zip(futures, cases, strict=True))
    except BrokenProcessPool as died:
        raise SiteError(DIED) from died
    finally:
        for future in futures:
            future.cancel()


def with_masks(files: CaseFiles, recipe: Recipe, weights: dict[str, Path], folder: Path) -> CaseFiles:
    """A case with the masks that its files lack of regions that networks draw.

    Parameters
    ----------
    weights : dict
        Region -> weight file.

    Raises
    ------
    CaseError
        The image cannot be used, or ``network finds no region``.
    SiteError
        As in `drawn_cases`.
    """
    lacking: dict[tuple[str, ModelRegion], dict[str, ModelRegion]] = {}
    for (image, name), settings in recipe.drawn.items():
        if (image, name) not in files.masks:
            # Regions of one network, which differ in no more than these two, are drawn at once
            network = settings.model_copy(update={"label": 1, "keep": "largest"})
            lacking.setdefault((image, network), {})[name] = settings
    masks, parts = dict(files.masks), dict(files.parts)
    for (image, network), regions in lacking.items():
        load = partial(
            _network,
            network,  # pyright: ignore[reportArgumentType] # frozen, so it has a hash
            weights[next(iter(regions))],
        )
        for name, path in _masks(files, image, regions, recipe, load, folder).items():
            masks[image, name] = path
            parts[image, name] = MaskFile(path="{patient_id}")
    return files._replace(masks=masks, parts=parts)


def _drawn(files: CaseFiles, recipe: Recipe, weights: dict[str, Path], folder: Path) -> CaseFiles | Exclusion:
    """As `with_masks`; runs in a process of its own, so an unusable case comes back as a plain value."""
    try:
        return with_masks(files, recipe, weights, folder)
    except CaseError as unusable:
        return Exclusion(files.patient_id, unusable.reason, unusable.detail)
    except FAILURES as failed:
        return Exclusion(files.patient_id, "region cannot be drawn", f"{type(failed).__name__}: {failed}")


def _masks(
    files: CaseFiles,
    image: str,
    regions: dict[str, ModelRegion],
    recipe: Recipe,
    network: Callable[[], "torch.nn.Module"],
    folder: Path,
) -> dict[str, Path]:
    """Files of the masks of regions of one network, which runs if one of them is not there."""
    bytes_of_image = fingerprint(files.images[image], "image")
    paths, found = {}, {}
    for name, settings in regions.items():
        what = {
            "image": bytes_of_image,
            "read": recipe.image[image].model_dump(mode="json"),
            "region": settings.model_dump(mode="json", exclude={"weights": {"file", "licence"}}),
        }
        key = content_key(what, LIBRARIES)
        paths[name] = folder / key[:2] / f"{key}.nrrd"
        found[name] = _kept(paths[name])
    if missing := [name for name, region in found.items() if region is None]:
        from cohortium.client.imaging.segment import segment

        drawn = segment(volume_of(image, files, recipe, {}), network(), *(regions[name] for name in missing))
        for name, region in zip(missing, drawn, strict=True):
            found[name] = region
            _keep(region, paths[name])
    if not all(sitk.GetArrayViewFromImage(region).any() for region in found.values()):
        raise CaseError(FOUND_NOTHING, str(files.images[image]))
    return paths


@cache
def _network(settings: ModelRegion, file: Path) -> "torch.nn.Module":
    """Loaded once a process."""
    from cohortium.client.imaging.segment import load_segmenter

    return load_segmenter(settings, file)


def _kept(path: Path) -> sitk.Image | None:
    """A mask that was drawn before; None where there is nothing whole."""
    try:
        return sitk.ReadImage(path) if path.exists() else None
    except RuntimeError:  # ITK's only exception: it was cut off, and is drawn anew
        return None


def _keep(region: sitk.Image, path: Path) -> None:
    draft = path.with_suffix(".draft.nrrd")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(region, draft, useCompression=True)
        draft.replace(path)
    except (OSError, RuntimeError) as broken:
        raise SiteError(
            f"folder of finished cases {path.parent.parent} cannot be written; check its rights and the free space"
        ) from broken
