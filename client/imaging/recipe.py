"""Recipe: what a study measures in the images of every case."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cohortium.client.imaging import radiomics
from cohortium.common import table
from cohortium.common.study import Study
from cohortium.common.study_images import FeatureSet, Image, RadiomicsFeatures, Region, RingRegion
from cohortium.common.study_networks import ModelRegion


@dataclass(frozen=True)
class Recipe:
    """What is measured in every case: the tables of a study that concern images."""

    image: dict[str, Image]
    region: dict[str, Region]
    features: dict[str, FeatureSet]
    seed: int = 0  # of perturbed contours

    @classmethod
    def of(cls, study: Study) -> "Recipe":
        """The recipe of a study."""
        return cls(study.image, study.region, study.features, study.study.seed)

    def base(self, region: str) -> str:
        """The region whose mask a region is derived from: itself, or what a ring is around."""
        while isinstance(found := self.region[region], RingRegion):
            region = found.of
        return region

    def grid(self, image: str) -> str:
        """The image on whose grid an image's regions are contoured: itself, or what it is aligned to."""
        return self.image[image].grid or image

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (image, region) that a feature set looks at, each once, in the order of the study."""
        return list(dict.fromkeys((i, r) for s in self.features.values() for i in s.images for r in s.regions))

    @property
    def drawn(self) -> dict[tuple[str, str], ModelRegion]:
        """Every (image, region) that a network draws."""
        bases = {(self.grid(image), base): self.region[base] for image, r in self.pairs for base in [self.base(r)]}
        return {place: region for place, region in bases.items() if isinstance(region, ModelRegion)}

    def sets_on(self, image: str, region: str) -> Iterator[tuple[str, FeatureSet]]:
        """Feature sets that look at a region of an image: (name, settings)."""
        for name, settings in self.features.items():
            if image in settings.images and region in settings.regions:
                yield name, settings

    def radiomics_on(self, image: str, region: str) -> dict[str, RadiomicsFeatures]:
        """Radiomics sets that look at a region of an image."""
        sets = self.sets_on(image, region)
        return {name: settings for name, settings in sets if isinstance(settings, RadiomicsFeatures)}

    def plain(self) -> dict[str, Any]:
        """As JSON, with defaults: part of what finished cases are known by."""
        tables = {"image": self.image, "region": self.region, "features": self.features}
        return {table: {k: v.model_dump(mode="json") for k, v in given.items()} for table, given in tables.items()}

    def perturbations(self, image: str, region: str) -> int:
        """How many contours beside the site's own some feature set wants of a region of an image."""
        return max((s.perturbations for s in self.radiomics_on(image, region).values()), default=0)

    def radiomics_columns(self) -> list[str]:
        """Names of the radiomics columns, in the order of `Measured.values`; those of perturbed contours come last."""
        own = {
            column(name, image, region, feature): settings.perturbations
            for image, region in self.pairs
            for name, settings in self.radiomics_on(image, region).items()
            for feature in radiomics.feature_names(settings)
        }
        most = max(own.values(), default=0)
        return [*own, *(table.perturbed(f, n) for n in range(1, most + 1) for f, times in own.items() if n <= times)]


def column(name: str, image: str, region: str, feature: str) -> str:
    """Name of a feature's column in the prepared table."""
    return f"features.{name}/{image}/{region}/{feature}"
