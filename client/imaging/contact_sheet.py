"""Contact sheet: a case at a glance, three slices of each image with the region's outline, for the site's own eyes."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw

from cohortium.client.imaging.region import bounding_box
from cohortium.common.study_images import Image

SIDE = 180  # pixels of a tile
AROUND_MM = 30.0
SHOWN = (0.15, 0.5, 0.85)
"""Slices are taken where this share of the region's voxels lies below."""
OUTLINE = (255, 196, 0)
HEADING = 14  # pixels


class Strip(NamedTuple):
    """Tiles of one region on one image, side by side."""

    title: str
    tiles: NDArray[np.uint8]  # (SIDE, tiles * SIDE, 3)


def strip(title: str, volume: sitk.Image, region: sitk.Image, image: Image) -> Strip:
    """Three axial slices of a region on an image, as acquired, with its outline.

    Parameters
    ----------
    title : str
        What is shown; no patient.
    volume, region : sitk.Image
        On one grid; the region is not empty.
    image : Image
        Its window is used where the study has one, else the 1st to 99th percentile of a tile.
    """
    inside = sitk.GetArrayViewFromImage(region) != 0
    values = sitk.GetArrayViewFromImage(volume)
    spacing_x, spacing_y, _ = volume.GetSpacing()
    _, rows, columns = bounding_box(inside)
    around_y, around_x = int(AROUND_MM / spacing_y), int(AROUND_MM / spacing_x)
    box = (
        slice(max(rows.start - around_y, 0), rows.stop + around_y),
        slice(max(columns.start - around_x, 0), columns.stop + around_x),
    )
    below = np.cumsum(inside.sum(axis=(1, 2)))
    at = [int(np.searchsorted(below, share * below[-1])) for share in SHOWN]
    tiles = [_tile(values[z][box], inside[z][box], (spacing_y, spacing_x), image) for z in at]
    return Strip(title, np.hstack(tiles))


def png(strips: Sequence[Strip]) -> bytes:
    """All strips of a case below one another."""
    sheet = Picture.new("RGB", (len(SHOWN) * SIDE, max(len(strips), 1) * (SIDE + HEADING)))
    draw = ImageDraw.Draw(sheet)
    for number, given in enumerate(strips):
        top = number * (SIDE + HEADING)
        draw.text((3, top + 1), given.title, fill=(220, 220, 220))
        sheet.paste(Picture.fromarray(given.tiles), (0, top + HEADING))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _tile(
    values: NDArray, inside: NDArray[np.bool_], spacing_mm: tuple[float, float], image: Image
) -> NDArray[np.uint8]:
    low, high = image.window_hu or np.percentile(values, (1, 99)).tolist()
    grey = np.clip((values.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1) * 255
    height_mm, width_mm = np.multiply(values.shape, spacing_mm)
    scale = SIDE / max(height_mm, width_mm)
    size = (max(round(width_mm * scale), 1), max(round(height_mm * scale), 1))
    shown = np.asarray(Picture.fromarray(grey.astype(np.uint8)).resize(size, Picture.Resampling.BILINEAR))
    mask = np.asarray(Picture.fromarray(inside.astype(np.uint8)).resize(size, Picture.Resampling.NEAREST)) != 0
    tile = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    tile[: size[1], : size[0]] = shown[:, :, None]
    tile[: size[1], : size[0]][_edge(mask)] = OUTLINE
    return tile


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that have a neighbour outside it."""
    wide = np.pad(mask, 1)
    core = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return mask & ~core
