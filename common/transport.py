"""Transport: how a study asks its sites, whatever carries the messages.

The server's federation writes one request a site (codec bytes), an engine delivers them and brings back what the sites
answered. A transport neither reads nor changes a message; what it cannot deliver comes back as a `Failure`, never as an
exception, so that the caller can tell one silent site from a broken run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Failure:
    """A site gave no answer.

    Parameters
    ----------
    reason : str
        Public text: names what happened and what to look at, holds nothing of the site's own log.
    """

    reason: str


class Transport(Protocol):
    """One way to reach the sites of a study."""

    sites: tuple[str, ...]
    """The sites that can be asked, sorted."""

    def ask(self, requests: Mapping[str, bytes], *, timeout_s: float) -> dict[str, bytes | Failure]:
        """Send each site its request and wait for the answers.

        Parameters
        ----------
        requests : mapping of site name to codec bytes
        timeout_s : float
            Seconds from the first push until a silent site counts as failed.

        Returns
        -------
        dict
            One entry for every site in ``requests``.
        """
        ...
