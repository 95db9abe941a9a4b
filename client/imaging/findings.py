"""Findings: what is wrong or doubtful with a patient's files: a fixed phrase, the file and the tag, never a value.

A finding that refuses excludes its case (`CaseError` carries the same phrase); the others are shown to the site.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cohortium.common.errors import CaseError


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Parameters
    ----------
    reason : str
        A fixed phrase without a value, counted in the flow of patients if it refuses.
    file : Path
        Where it was found.
    tag : str
        DICOM tag with its name; empty for other formats.
    refuses : bool
        Whether the case cannot be used.
    """

    reason: str
    file: Path
    tag: str = ""
    refuses: bool = False

    @property
    def where(self) -> str:
        """File and tag, for the site's eyes."""
        return f"{self.file}: {self.tag}" if self.tag else str(self.file)

    @property
    def error(self) -> CaseError:
        """The same as an error that excludes the case."""
        return CaseError(self.reason, self.where)


def refuse(findings: Iterable[Finding]) -> None:
    """Raise the first finding that refuses.

    Raises
    ------
    CaseError
        With the finding's phrase.
    """
    for finding in findings:
        if finding.refuses:
            raise finding.error
