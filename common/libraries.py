"""Libraries: versions of what turns images into features; a number may change with them."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from cohortium.common.study import Study

MEASURING = {"radiomics": ("pyradiomics", "SimpleITK", "PyWavelets"), "deep": ("torch", "monai", "SimpleITK")}
"""By kind of a feature set."""


def measuring(study: Study, feature_sets: Iterable[str]) -> dict[str, str]:
    """Versions of the libraries that measure some feature sets, as installed here; without those that are not."""
    return installed(name for used in feature_sets for name in MEASURING[study.features[used].kind])


def installed(names: Iterable[str]) -> dict[str, str]:
    """Version of each library that is installed."""
    found = {}
    for name in sorted(set(names)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a coordinator needs none of them
            continue
    return found
