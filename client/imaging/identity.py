"""Identity: what in a DICOM file could name its patient, before anything of it is used.

Nothing of an image leaves a site, yet a file that names its patient has no place among pseudonymised data, and letters
burned into pixels are measured as if they were tissue. Findings name file and tag only.
"""

from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset

from cohortium.client.imaging.dicom_file import tag, text
from cohortium.client.imaging.findings import Finding

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
NAMING = (
    "PatientName", "PatientBirthDate", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientAddress",
    "PatientTelephoneNumbers", "PatientMotherBirthName", "MedicalRecordLocator", "ReferringPhysicianName",
    "PatientComments",
)  # fmt: skip
"""Of the confidentiality profile in DICOM PS3.15 E.1, what names a person by itself."""
PSEUDONYMS = ("PatientName", "PatientID")
OVERLAYS = range(0x6000, 0x6020, 2)


def identity_findings(header: Dataset, file: Path, role: str) -> Iterator[Finding]:
    """Burned-in annotation, secondary capture, overlays, and tags that name somebody.

    A patient's name that equals the patient's ID, and an ID beside Patient Identity Removed = YES, are pseudonyms.
    """
    if text(header, "BurnedInAnnotation").upper() == "YES":
        yield Finding(reason=f"{role} has burned-in annotation", file=file, tag=tag("BurnedInAnnotation"), refuses=True)
    if text(header, "SOPClassUID").startswith(SECONDARY_CAPTURE):
        yield Finding(reason=f"{role} is a secondary capture", file=file, tag=tag("SOPClassUID"), refuses=True)
    for group in OVERLAYS:
        if (group, 0x3000) in header:
            yield Finding(reason=f"{role} has overlays", file=file, tag=f"({group:04x},3000) Overlay Data")
            break
    removed = text(header, "PatientIdentityRemoved").upper() == "YES"
    for keyword in NAMING:
        found = text(header, keyword).rstrip("^")
        pseudonym = keyword in PSEUDONYMS and (removed or (found == text(header, "PatientID") and "^" not in found))
        if keyword == "PatientID" and not removed:
            # A bare ID says nothing of itself; with a name or a birth date beside it, it is a real one
            pseudonym = not any(
                text(header, k).rstrip("^") not in ("", found) for k in ("PatientName", "PatientBirthDate")
            )
        if found and not pseudonym:
            yield Finding(reason=f"{role} may identify its patient", file=file, tag=tag(keyword))
