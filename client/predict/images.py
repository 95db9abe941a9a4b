"""Images: the features of a new patient's images, by the preparation that hospitals used."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cohortium.client.imaging.automatic import with_masks
from cohortium.client.imaging.case import CaseFiles, Recipe, measure
from cohortium.client.imaging.read import part_named
from cohortium.client.predict.patients import IMAGE, MASK, ROI, NewPatient
from cohortium.client.predict.saved import Model
from cohortium.common.errors import CaseError, ModelError
from cohortium.common.study_images import DeepFeatures, RadiomicsFeatures
from cohortium.common.study_networks import NetworkFile
from cohortium.sites.site_file import MaskFile


class Measurement:
    """Measures the feature sets that a model needs, in one patient after the other; networks are loaded once."""

    def __init__(self, model: Model) -> None:
        study, sets = model.saved.study, model.needs.features
        self._model, self._study = model, study
        # a new patient is measured with the contour that is given, however many the study compared
        own = {name: study.features[name] for name in sets}
        for name, settings in own.items():
            if isinstance(settings, RadiomicsFeatures):
                own[name] = settings.model_copy(update={"perturbations": 0})
        self._recipe = Recipe(study.image, study.region, own)
        self._networks: dict[str, Any] = {}

    def features(self, patient: NewPatient) -> dict[str, float]:
        """All feature columns of a patient.

        Raises
        ------
        ModelError
            A path that is needed is not given, or a weight file is not in the model's folder.
        CaseError
            The images cannot be used, or a cell of the table that has their paths is empty.
        """
        files = self._files(patient)
        with TemporaryDirectory() as folder:
            measured = measure(self._with_masks(files, Path(folder)), self._recipe)
        found = dict(zip(self._recipe.radiomics_columns(), measured.values.tolist(), strict=True))
        for place, picture in measured.pictures.items():
            name = place.split("/")[0]
            settings = self._study.features[name]
            assert isinstance(settings, DeepFeatures)  # the only ones that leave a picture
            embedding = np.asarray(self._network(name, settings).embed(picture, settings.size), dtype=np.float64)
            found |= {f"features.{place}/{i:04d}": value for i, value in enumerate(embedding.tolist())}
        return found

    def drawn(self, patient: NewPatient) -> list[str]:
        """What a network draws in this patient because no mask was given, in words."""
        lacking = self._recipe.drawn.keys() - self._files(patient).masks.keys()
        return [f"mask of {r} on {image} was missing, drawn by the study's network" for image, r in sorted(lacking)]

    def _files(self, patient: NewPatient) -> CaseFiles:
        given, recipe = patient.given, self._recipe
        pairs = list(dict.fromkeys((recipe.grid(image), recipe.base(region)) for image, region in recipe.pairs))
        masks = {(i, r): given.get(f"{MASK}{i}/{r}") or given.get(MASK + r, "") for i, r in pairs}
        names = [*(image for image, _ in pairs), *(image for image, _ in recipe.pairs)]
        images = {image: given.get(IMAGE + image, "") for image in names}
        lacking = {f"image {image}": {IMAGE + image} for image, path in images.items() if not path}
        masks = {place: path for place, path in masks.items() if path or place not in recipe.drawn}
        lacking |= {
            f"mask {r} on image {i}": {f"{MASK}{i}/{r}", MASK + r} for (i, r), path in masks.items() if not path
        }
        if lacking:
            if all(columns & given.keys() for columns in lacking.values()):
                raise CaseError("no path is given", f"of {', '.join(lacking)}")
            raise ModelError(
                f"the model looks at image features, and no path is given of {', '.join(lacking)}; give "
                "--image NAME=PATH and --mask REGION=PATH, or columns image.NAME and mask.REGION of --patients"
            )
        files = CaseFiles(
            patient.patient_id,
            {image: patient.folder / path for image, path in images.items()},
            {pair: patient.folder / path for pair, path in masks.items()},
            {(i, r): _part(given, r, patient.folder / path) for (i, r), path in masks.items()},
        )
        for role, path in [*files.images.items(), *(("/".join(pair), path) for pair, path in files.masks.items())]:
            if not path.exists():
                raise CaseError("there is no such file", f"{role}: {path}")
        return files

    def _with_masks(self, files: CaseFiles, folder: Path) -> CaseFiles:
        """The patient's files with the masks that networks draw; one that was given is taken as it is."""
        lacking = {r: region for (i, r), region in self._recipe.drawn.items() if (i, r) not in files.masks}
        weights = {name: self._weights(region.weights, f"region.{name}") for name, region in lacking.items()}
        return with_masks(files, self._recipe, weights, folder)

    def _network(self, name: str, settings: DeepFeatures) -> Any:
        from cohortium.client.imaging.deep import load_backbone  # torch: only where a network looks at the image

        if name not in self._networks:
            used = settings.weights
            file = self._weights(used, f"features.{name}") if isinstance(used, NetworkFile) else Path()
            self._networks[name] = load_backbone(settings, seed=self._study.study.seed, resolve=lambda _: file)
        return self._networks[name]

    def _weights(self, used: NetworkFile, what: str) -> Path:
        """A weight file in the model's folder."""
        file = self._model.saved.folder / "weights" / used.sha256
        if not file.is_file():
            raise ModelError(
                f"model {self._model.saved.folder}: the weights of {what} are not there; copy the "
                f"file {used.file} of the study to weights/{used.sha256}"
            )
        return file


def _part(given: Mapping[str, str], region: str, path: Path) -> MaskFile:
    """Which region of its file a mask is."""
    name = given.get(ROI + region)
    return part_named(path, name) if name else MaskFile(path="{patient_id}")
