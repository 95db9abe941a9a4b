"""DICOM frames: the frames of an enhanced (multi-frame) file, each with the header that a slice of its own would have.

Enhanced CT, MR and PET, and series converted to them (DICOM PS3.3 A.38, A.36, A.56 and C.7.6.16), say once in a file
what holds for all frames and in functional groups what holds for one. Brought together again, frames are checked and
placed by the code for single slices.
"""

from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from cohortium.client.imaging import dicom_file
from cohortium.client.imaging.findings import Finding

FUNCTIONAL_GROUPS = (
    "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence",
    "FrameContentSequence",
)  # fmt: skip
"""Groups that say where a frame lies and what its values are."""
CONVERTED = ("UnassignedSharedConvertedAttributesSequence", "UnassignedPerFrameConvertedAttributesSequence")
"""Where a converted series keeps elements of its slices that have no other place; they replace nothing."""


def frame_headers(header: Dataset, file: Path, role: str) -> Iterator[Dataset]:
    """Header of each frame, in the order of the pixels; of a single slice its own. Use within `damaged`.

    Raises
    ------
    CaseError
        The file has several frames and does not say where each of them lies.
    ValueError
        It has more or fewer frames than it says.
    """
    count = int(header.get("NumberOfFrames") or 1)
    if "PerFrameFunctionalGroupsSequence" not in header:
        if count != 1:
            reason = f"{role} is a multi-frame file; export it as single slices"
            raise Finding(reason=reason, file=file, tag=dicom_file.tag("NumberOfFrames")).error
        yield header
        return
    frames = header.PerFrameFunctionalGroupsSequence
    if len(frames) != count:
        raise ValueError("frames")
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    common = {tag: header.get_item(tag) for tag in header.keys()}  # noqa: SIM118 -- iterating converts every element
    del common[header["PerFrameFunctionalGroupsSequence"].tag]
    for frame in frames:
        found = Dataset(dict(common))
        for groups in (*shared, frame):
            for name in FUNCTIONAL_GROUPS:
                for item in groups.get(name) or ():
                    found.update({tag: item.get_item(tag) for tag in item.keys()})  # noqa: SIM118
            for name in CONVERTED:
                for item in groups.get(name) or ():
                    found.update({tag: item.get_item(tag) for tag in item.keys() if tag not in found})  # noqa: SIM118
        yield found
