"""Image files: which image and mask files a case needs for a study, and which of them are not there."""

from pathlib import Path
from typing import NamedTuple

from cohortium.common.declared_files import nearest
from cohortium.common.errors import SiteError
from cohortium.common.study import Study
from cohortium.common.study_images import MaskRegion, RingRegion
from cohortium.sites.flow import Exclusion
from cohortium.sites.site_file import Site


class CaseFiles(NamedTuple):
    """Files of one patient's image: the image, and the mask of each contoured region."""

    image: Path
    masks: dict[str, Path]


def needed_images(study: Study) -> dict[str, tuple[str, ...]]:
    """Images that feature sets use, each with the regions whose mask the site contours on it.

    A ring needs the mask of the region it is laid around, an image on another's grid the masks on that one.
    """
    needed: dict[str, dict[str, None]] = {}
    for features in study.features.values():
        for image in features.images:
            needed.setdefault(image, {})
            masks = needed.setdefault(study.image[image].grid or image, {})
            for region in features.regions:
                declared = study.region[region]
                solid = declared.of if isinstance(declared, RingRegion) else region
                if isinstance(study.region[solid], MaskRegion):
                    masks[solid] = None
    return {image: tuple(masks) for image, masks in needed.items()}


def check_patterns(study: Study, site: Site) -> None:
    """Every needed image and mask must have a path pattern in the site file.

    Raises
    ------
    SiteError
        Names the tables to add.
    """
    lacking = []
    for image, regions in needed_images(study).items():
        if image not in site.images:
            lacking.append(f"[images.{image}] is missing; add it ({nearest(image, site.images)})")
            continue
        masks = site.images[image].mask
        lacking += [f"[images.{image}] mask.{name} is missing; add it" for name in regions if name not in masks]
    if lacking:
        raise SiteError("\n  ".join([f"{site.source}: study {study.study.name!r} needs images:", *lacking]))


def case_files(study: Study, site: Site, patient_id: str) -> dict[str, CaseFiles]:
    """Files that a patient's features need, by image."""
    return {
        image: CaseFiles(
            site.image_file(image, patient_id),
            {region: site.mask_file(image, region, patient_id) for region in regions},
        )
        for image, regions in needed_images(study).items()
    }


def missing_files(study: Study, site: Site, patient_id: str) -> Exclusion | None:
    """Why a case cannot be used, if a file of it is not there.

    Raises
    ------
    SiteError
        A folder may not be read: that says nothing about the patient, and stops the site.
    """
    for image, files in case_files(study, site, patient_id).items():
        roles = {f"{image} image": files.image} | {f"{r} mask on {image}": path for r, path in files.masks.items()}
        for role, path in roles.items():
            if not _exists(path, role, site):
                return Exclusion(patient_id, f"{role} is missing", str(path))
    return None


def _exists(path: Path, role: str, site: Site) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as broken:
        remedy = "give this user permission to read it, or check the disk or share"
        raise SiteError(f"site {site.name}: {role} {path}: cannot be read ({broken.strerror}); {remedy}") from None
    return True
