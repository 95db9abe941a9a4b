"""Parts: a case that takes long is measured by several processes, a filter of a region each.

Reading, aligning and resampling are done once. The image around a large region then lies beside the finished cases for
the processes that measure it, and so does what each of them found: a killed prepare goes on in the middle of a case.
All of it is removed when the case is finished.
"""

from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from cohortium.client.imaging import radiomics
from cohortium.client.imaging.case import CaseFiles, Look, looks, measured, pictures_of, values_of
from cohortium.client.imaging.examine import examine
from cohortium.client.imaging.recipe import Recipe
from cohortium.client.imaging.resample import Crop
from cohortium.client.imaging.store import Store, finished
from cohortium.common.study_images import RadiomicsFeatures

LARGE = 3_000_000
"""Voxels, times filtered images, times contours, from which on a region is measured in parts: seconds of a core."""


class Part(NamedTuple):
    """A filter of a region for a radiomics set, or all of them of a small region beside a large one."""

    number: int  # among those of the case
    look: int
    name: str
    only: list[radiomics.Pass] | None


def begin(files: CaseFiles, recipe: Recipe, store: Store, key: str, *, large: int = LARGE) -> list[Part]:
    """Measure a case and keep it; from its first large region on, what is left: for `measure_part`, then `finish`.

    Parts that were finished before are not given again.

    Raises
    ------
    CaseError
        The case cannot be used.
    """
    values: dict[str, float] = {}
    pictures: dict[str, Any] = {}
    parts: list[Part] = []
    left: list[Part] = []
    for number, look in enumerate(looks(files, recipe)):
        pictures |= pictures_of(look, recipe)
        first = len(parts)
        for name, settings in recipe.radiomics_on(look.image, look.region).items():
            if _work(look, settings) >= large:
                # Eight images of wavelets take longest: they come first, so that no process ends with them alone
                passes = sorted(radiomics.passes(settings), key=lambda one: one[0] != "Wavelet")
                parts += [Part(n, number, name, [one]) for n, one in enumerate(passes, start=len(parts))]
            elif parts:
                parts.append(Part(len(parts), number, name, None))
            else:
                values |= values_of(look, recipe, name)
        if missing := [part for part in parts[first:] if store.get(_part(key, part.number)) is None]:
            store.put(_look(key, number), _packed(look))
            left += missing
    begun = {"values": values, "pictures": pictures, "parts": len(parts), **examine(files, recipe).plain()}
    if left:
        store.put(_begun(key), begun)
    else:
        _keep(begun, recipe, store, key)
    return left


def measure_part(part: Part, recipe: Recipe, store: Store, key: str) -> None:
    """Measure a part of a case that was begun, and keep its values.

    Raises
    ------
    CaseError
        The region cannot be measured.
    """
    look = _unpacked(finished(store, _look(key, part.look)))
    store.put(_part(key, part.number), {"values": values_of(look, recipe, part.name, only=part.only)})


def finish(recipe: Recipe, store: Store, key: str) -> None:
    """Keep a case of which all parts were measured."""
    _keep(finished(store, _begun(key)), recipe, store, key)


def discard(store: Store, key: str) -> None:
    """Remove what lies there of an unfinished case."""
    store.remove(f"{key}-")


def _keep(begun: dict[str, Any], recipe: Recipe, store: Store, key: str) -> None:
    """Store a case whose parts, if it has any, were all measured; they are then removed."""
    values, pictures, parts = dict(begun.pop("values")), begun.pop("pictures"), begun.pop("parts")
    for number in range(parts):
        values |= finished(store, _part(key, number))["values"]
    found = measured(values, pictures, recipe)
    store.put(key, {**begun, **found._asdict(), "findings": begun["findings"] + found.findings})
    if parts:
        discard(store, key)


def _work(look: Look, settings: RadiomicsFeatures) -> int:
    voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(look.crop.region)))
    return voxels * radiomics.image_count(settings) * (1 + settings.perturbations)


# --- how it lies there ----------------------------------------------------------------------------------------


def _look(key: str, number: int) -> str:
    return f"{key}-look-{number}"


def _part(key: str, number: int) -> str:
    return f"{key}-part-{number}"


def _begun(key: str) -> str:
    return f"{key}-begun"


def _packed(look: Look) -> dict[str, Any]:
    """A look to the last bit; contours take a bit a voxel."""
    image = look.crop.image
    return {
        "image": look.image,
        "region": look.region,
        "values": sitk.GetArrayViewFromImage(image),
        "geometry": [image.GetSpacing(), image.GetOrigin(), image.GetDirection()],
        "contours": [np.packbits(sitk.GetArrayViewFromImage(one)) for one in (look.crop.region, *look.others)],
    }


def _unpacked(kept: dict[str, Any]) -> Look:
    values, (spacing, origin, direction) = kept["values"], kept["geometry"]

    def placed(voxels: np.ndarray) -> sitk.Image:
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
        return image

    region, *others = (
        placed(np.unpackbits(contour, count=values.size).reshape(values.shape)) for contour in kept["contours"]
    )
    return Look(kept["image"], kept["region"], Crop(placed(values), region), others)
