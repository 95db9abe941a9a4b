"""Examine: what a site should see of a case before it is used: doubts, geometry, volumes and a contact sheet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk

from cohortium.client.imaging.align import covered
from cohortium.client.imaging.case import CaseFiles, Recipe, volume_of
from cohortium.client.imaging.contact_sheet import Strip, png, strip
from cohortium.client.imaging.dicom_file import damaged, is_dicom, read_header
from cohortium.client.imaging.dicom_series import read_slices, series_findings, slice_files
from cohortium.client.imaging.findings import Finding
from cohortium.client.imaging.identity import identity_findings
from cohortium.client.imaging.read import mask_findings, read_image, read_mask, unreadable_disk
from cohortium.common.errors import CaseError
from cohortium.common.study_images import Image

THICK = 5.0
"""Longest over shortest side of a voxel, above which texture between slices says little; told, not refused."""


class Examined(NamedTuple):
    """What was found in a case; plain, so that a process can send it.

    Attributes
    ----------
    findings : list of (reason, where, refuses)
    geometry : dict
        Image -> "512 x 512 x 40 voxels of 0.7 x 0.7 x 5 mm".
    volumes_ml : dict
        "IMAGE/REGION" -> volume of the mask as contoured.
    sheet : bytes
        PNG; empty where nothing could be shown.
    """

    findings: list[tuple[str, str, bool]]
    geometry: dict[str, str]
    volumes_ml: dict[str, float]
    sheet: bytes

    def plain(self) -> dict[str, Any]:
        """For the store of finished cases."""
        return {**self._asdict(), "findings": [list(finding) for finding in self.findings]}


def examine(files: CaseFiles, recipe: Recipe) -> Examined:
    """Look at all files of a case; what cannot be used is a finding, and the rest is looked at all the same.

    Raises
    ------
    SiteError
        A disk, share or right is missing.
    """
    seen = Examined(doubts(files, recipe), {}, {}, b"")
    volumes: dict[str, sitk.Image] = {}
    masks: dict[tuple[str, str], sitk.Image] = {}
    strips: list[Strip] = []
    for image, path in files.images.items():
        settings = recipe.image[image]
        with _noted(seen):
            volumes[image] = volume = read_image(path, settings.modality, settings.units)
            seen.geometry[image] = describe(volume)
            if max(volume.GetSpacing()) > THICK * min(volume.GetSpacing()):
                seen.findings.append(("image has voxels much longer than wide", str(path), False))
    for (image, region), path in files.masks.items():
        if image in volumes:
            with _noted(seen):
                told = mask_findings(path, volumes[image])
                seen.findings.extend((f.reason, f.where, False) for f in told if not f.refuses)
                masks[image, region] = mask = read_mask(path, volumes[image], files.parts[image, region])
                seen.volumes_ml[f"{image}/{region}"] = volume_ml(mask)
                if _skips_slices(mask):
                    seen.findings.append(("mask has empty slices between others", str(path), False))
                strips.append(strip(f"{image}: {region}", volumes[image], mask, recipe.image[image]))
    for image in files.images:
        place = next((place for place in masks if place[0] == recipe.image[image].grid), None)
        if image in volumes and place is not None:
            with _noted(seen):
                # As it will be measured: whether it lies where it should is for people to see
                aligned = covered(volume_of(image, files, recipe, volumes), masks[place])
                strips.append(strip(f"{image} on {place[0]}: {place[1]}", aligned, masks[place], recipe.image[image]))
    return seen._replace(sheet=png(strips) if strips else b"")


@contextmanager
def _noted(seen: Examined) -> Iterator[None]:
    """What excludes a case is one finding more."""
    try:
        yield
    except CaseError as unusable:
        seen.findings.append((unusable.reason, unusable.detail, True))


def doubts(files: CaseFiles, recipe: Recipe) -> list[tuple[str, str, bool]]:
    """Findings of a case's DICOM files that refuse nothing; what refuses is raised when they are read.

    Raises
    ------
    SiteError
        A disk, share or right is missing.
    """
    found: list[Finding] = []
    for image, path in files.images.items():
        found += _doubts(path, recipe.image[image])
    for path in dict.fromkeys(files.masks.values()):
        found += _doubts(path, None)
    return [(finding.reason, finding.where, False) for finding in found if not finding.refuses]


def describe(volume: sitk.Image) -> str:
    """Size and spacing in words."""
    size = " x ".join(map(str, volume.GetSize()))
    return f"{size} voxels of {' x '.join(f'{s:.3g}' for s in volume.GetSpacing())} mm"


def volume_ml(mask: sitk.Image) -> float:
    """Volume of a mask of 0 and 1."""
    return int(sitk.GetArrayViewFromImage(mask).sum(dtype=np.int64)) * float(np.prod(mask.GetSpacing())) / 1000


def _skips_slices(mask: sitk.Image) -> bool:
    """Whether a slice without the region lies between two that have it: of two lesions, or a contour is missing."""
    slices = np.flatnonzero(sitk.GetArrayViewFromImage(mask).any(axis=(1, 2)))
    return bool((np.diff(slices) > 1).any())


def _doubts(path: Path, settings: Image | None) -> list[Finding]:
    """Of an image, or of a mask, which has no settings."""
    role = "image" if settings else "mask"
    try:
        files = slice_files(path) if path.is_dir() else [path]
        if not files or not all(map(is_dicom, files)):
            silent = files and settings and settings.units
            return [Finding(reason="image does not say its units; taken as SUV", file=path)] if silent else []
        if settings:
            slices = [found for file in files for found in read_slices(file, role)]
            return series_findings(slices, role, settings.modality, settings.units)
        with damaged(files[0], role):
            header, _ = read_header(files[0].read_bytes())
            return list(identity_findings(header, files[0], role))
    except CaseError:
        return []
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as broken:
        raise unreadable_disk(path, role, broken) from broken
