"""Site file: what one hospital keeps to itself: where its data lie and how its columns and codes map to the study's.

site.toml never leaves the site. Paths in it resolve from its folder. See docs/site-file.md.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from cohortium.common.declared_files import file_or_folder, read_toml, validate
from cohortium.common.errors import SiteError
from cohortium.common.study import OptIn
from cohortium.common.study_data import Keys, Level, Name

FILE_NAME = "site.toml"
MISSING_CODES = ("", "NA", "N/A", "NaN", "nan")

Text = Annotated[str, Field(min_length=1)]


class Installation(Keys):
    """[site]: the hospital's name in the study and how its machine works.

    `allow` lists the statistics that may leave (``"*"`` and ``"cox.*"`` are patterns); `opt_ins` the study keys whose
    wider values this site accepts when it approves a study (see `Study.opt_ins`). `epsilon`, at `delta`, is what all
    studies under differential privacy together may cost here; unset, each has what was approved with it.
    """

    name: Name
    workspace: Text = "workspace"
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]+)?)$")] = "cpu"
    allow: tuple[Text, ...] = ("*",)
    opt_ins: tuple[OptIn, ...] = ()
    epsilon: Annotated[float, Field(gt=0)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5


class Data(Keys):
    """[data]: the table of patients; `columns` maps study names to local ones, `codes` local values to study values."""

    patients: Text
    id_column: Text = "patient_id"
    where: dict[str, Level] = Field(default_factory=dict)
    columns: dict[str, Text] = Field(default_factory=dict)
    codes: dict[str, dict[str, Level]] = Field(default_factory=dict)
    missing_codes: tuple[str, ...] = MISSING_CODES
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    decimal: Literal[".", ","] = "."
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"


def _for_each_patient(pattern: str) -> str:
    if set(re.findall(r"\{[^}]*\}", pattern)) != {"{patient_id}"}:
        raise ValueError("needs the placeholder {patient_id} and no other: each patient has its own file")
    return pattern


Pattern = Annotated[Text, AfterValidator(_for_each_patient)]


class MaskFile(Keys):
    """mask.REGION of [images.NAME]: the file, and which part of it the region is where it holds several.

    `roi` and `segment` are names that the region may have in this site's files; the first that a file holds is taken.
    """

    path: Pattern
    roi: tuple[Text, ...] = ()
    segment: tuple[Text | Annotated[int, Field(ge=1)], ...] = ()
    label: Annotated[int, Field(ge=1)] | None = None

    @field_validator("roi", "segment", mode="before")
    @classmethod
    def _one_or_several(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str | int) and not isinstance(names, bool) else names

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (len(self.roi) > 0) + (len(self.segment) > 0) + (self.label is not None) > 1:
            raise ValueError("give one of roi (RTSTRUCT), segment (DICOM SEG) and label (a mask of several values)")
        return self


def _with_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class ImageFiles(Keys):
    """[images.NAME]: a file or DICOM folder for each patient, and the mask of each region on it."""

    image: Pattern
    mask: dict[str, Annotated[MaskFile, BeforeValidator(_with_path, json_schema_input_type=Text | MaskFile)]] = Field(
        default_factory=dict
    )


class Site(Keys):
    """A validated site.toml; attribute names are its keys. `with_workspace` moves a site's own files elsewhere."""

    site: Installation
    data: Data
    images: dict[str, ImageFiles] = Field(default_factory=dict)

    _folder: Path = PrivateAttr(default=Path())
    _source: str = PrivateAttr(default=FILE_NAME)

    @property
    def name(self) -> str:
        """Name of the site in studies."""
        return self.site.name

    @property
    def source(self) -> str:
        """The site file, for messages at the site."""
        return self._source

    @property
    def workspace(self) -> Path:
        """Folder of the site's own lasting files: identity, approvals, prepared tables, ledger."""
        return self._folder / self.site.workspace

    @property
    def patients_file(self) -> Path:
        """The table of patients."""
        return self._folder / self.data.patients

    def image_file(self, image: str, patient_id: str) -> Path:
        """File or DICOM folder of a patient's image."""
        return self._folder / self.images[image].image.replace("{patient_id}", patient_id)

    def mask_file(self, image: str, region: str, patient_id: str) -> Path:
        """File of a patient's mask of a region on an image."""
        return self._folder / self.images[image].mask[region].path.replace("{patient_id}", patient_id)

    def with_workspace(self, workspace: Path) -> "Site":
        """The same site with another workspace (absolute, or relative to site.toml)."""
        moved = self.model_copy(update={"site": self.site.model_copy(update={"workspace": str(workspace)})})
        moved._folder, moved._source = self._folder, self._source
        return moved


def load_site(path: Path | str) -> Site:
    """Read and validate site.toml, or the site.toml of a folder.

    Raises
    ------
    SiteError
        Names every mistake with file, table, key, value and remedy.
    """
    file = file_or_folder(path, FILE_NAME)
    return parse_site(read_toml(file, role="site file", error=SiteError), source=str(file), folder=file.parent)


def parse_site(tables: dict[str, Any], *, source: str = FILE_NAME, folder: Path | None = None) -> Site:
    """Validate a site's tables; `folder` is where its relative paths start."""
    site = validate(Site, tables, source=source, error=SiteError)
    site._folder, site._source = (folder or Path()).absolute(), source
    return site


def site_schema() -> dict[str, Any]:
    """JSON schema of site.toml."""
    schema = Site.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": FILE_NAME}
