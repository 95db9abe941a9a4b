"""Site template: the site.toml that ``cohortium site init`` writes for a hospital to fill in."""

from cohortium.common.study import Study
from cohortium.common.study_data import Variable
from cohortium.sites.image_files import needed_images

HEAD = """\
# What this site keeps to itself: nothing in this file leaves it. Every key: docs/site-file.md.
# Paths start from the folder of this file.
[site]
name = "{name}"
workspace = "workspace"         # identity key, approvals, prepared table, ledger: back it up
device = "cpu"                  # or "cuda"
# allow = ["*"]                 # statistics that may leave, e.g. ["moments.*", "logistic.*"]

[data]
patients = "patients.csv"       # .csv, .tsv or .parquet, one row a patient
id_column = "patient_id"
# delimiter = ";"
# decimal = ","
# missing_codes = ["", "NA", "-9"]
"""
COLUMNS = "\n[data.columns]                  # study name = local name, where they differ\n"
CODES = "\n# [data.codes.NAME]             # local value = study value, where they differ\n"


def site_template(name: str, study: Study | None = None) -> str:
    """Text of a site.toml; with a study, the columns and images that it needs, as comments to fill in."""
    if study is None:
        return HEAD.format(name=name) + COLUMNS + '# age = "age_years"\n' + CODES + '# "M" = 1\n# "F" = 0\n'
    notes = {variable.name: _note(variable) for variable in study.variable}
    for endpoint_name, endpoint in study.endpoint.items():
        unit = f", {endpoint.unit}" if endpoint.kind == "continuous" and endpoint.unit else ""
        notes |= dict.fromkeys(endpoint.columns, f"endpoint {endpoint_name}{unit}")
    if study.split.part_column is not None and name in study.split.train:
        notes[study.split.part_column.column] = "part: " + ", ".join(study.split.part_column.parts)
    columns = "".join(f'# {column} = "{column}"  # {note}\n' for column, note in notes.items())
    return HEAD.format(name=name) + COLUMNS + columns + CODES + '# "local" = "study value"\n' + _images(study)


def _note(variable: Variable) -> str:
    if variable.kind != "continuous":
        return f"{variable.kind}: " + ", ".join(variable.level_index)
    bounds = f" {variable.range[0]:g} to {variable.range[1]:g}" if variable.range else ""
    return f"{variable.kind} {variable.unit}".strip() + bounds


def _images(study: Study) -> str:
    text = ""
    for image, regions in needed_images(study).items():
        text += f'\n[images.{image}]\nimage = "images/{{patient_id}}/{image}.nii.gz"  # a file or a DICOM folder\n'
        text += "".join(f'mask.{region} = "images/{{patient_id}}/{image}_{region}.nii.gz"\n' for region in regions)
    return text
