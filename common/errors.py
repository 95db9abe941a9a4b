"""Errors: what went wrong, where, and what to do about it.

CohortiumError
+-- StudyError          the study file: table, key, value, remedy
+-- SiteError           a site's file, key or set-up; I/O and permission errors stop the site, they exclude nobody
|   +-- CaseError       one case cannot be used: it is excluded with its reason, the rest goes on
+-- WireError           bytes that are no message of ours
+-- ModelError          the folder of a model, or a patient that it cannot score
+-- SumRefused          a site's guard withheld its share; says which rule and what would satisfy it
|   +-- Overflow        a number did not fit the fixed-point range; ask again with a wider bound
+-- SumVoid             a site did not answer; nothing was learned, the same sum can be asked again
+-- NotIdentifiable     the data cannot determine the model
+-- Undefined           a figure that does not exist for this cohort (one class only, no events)

Texts that can leave a site (`SumRefused` and its kin) never hold a patient's value.
"""


class CohortiumError(Exception):
    """Base of all errors that a user can act on."""


class StudyError(CohortiumError):
    """The study file is wrong; the text names file, table, key, value and remedy."""


class SiteError(CohortiumError):
    """A site's file or set-up is wrong; the text names the path's role and the remedy."""


class CaseError(SiteError):
    """One case cannot be used.

    Parameters
    ----------
    reason : str
        A short fixed phrase that is counted in the flow of patients (``"mask is empty"``); no value, no id.
    detail : str
        For the site's own eyes only: file, tag, value.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class WireError(CohortiumError):
    """Bytes that are no message of ours."""


class ModelError(CohortiumError):
    """The folder of a model cannot be used, or it cannot score a patient; the text names what and the remedy."""


class SumRefused(CohortiumError):
    """A site's guard withheld its share.

    Parameters
    ----------
    what : str
        The statistic, cell or rule that is concerned; public names only.
    why : str
        The rule and what would satisfy it; no patient value.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what
        self.why = why


class Overflow(SumRefused):
    """A number did not fit the fixed-point range of this query; nothing was sent.

    Attributes
    ----------
    array : int
        Which array of the sum, counted from 0, so that only its bound is widened.
    """

    array = 0


class SumVoid(CohortiumError):
    """A site did not answer; nothing was learned."""


class NotIdentifiable(CohortiumError):
    """The data cannot determine the model."""


class Undefined(CohortiumError):
    """A figure that does not exist for this cohort, with the reason."""
