"""Versions: whether images are measured here by the libraries that were there when the model was made."""

from collections.abc import Mapping

from cohortium.common.libraries import installed


def other_versions(recorded: Mapping[str, str]) -> list[str]:
    """Warnings of libraries whose version differs; a folder of an earlier version of cohortium records none."""
    here = installed(recorded)
    return [
        f"its images were measured with {name} {here.get(name, '(not installed)')}; the model was made with {version}: "
        "features may differ"
        for name, version in recorded.items()
        if here.get(name) != version
    ]
