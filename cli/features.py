"""Features command: the radiomics of one image and its mask, for anyone."""

import csv
import math
from pathlib import Path
from typing import Annotated

import typer


def features(
    image: Annotated[Path, typer.Argument(help="Image file (NIfTI, NRRD, MetaImage) or DICOM folder.")],
    mask: Annotated[Path, typer.Argument(help="Mask file on the image's grid.")],
    settings: Annotated[Path, typer.Option(help="TOML file of settings; see docs/features.md.")],
    out: Annotated[Path, typer.Option(help="CSV file to write: name, value.")],
) -> None:
    """Write name,value of every feature; a feature that this region does not have has an empty value."""
    from cohortium.client.imaging.one_image import features_of, read_settings

    wanted = read_settings(settings)
    values = features_of(image, mask, wanted)
    with out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "value"])
        writer.writerows([name, "" if math.isnan(value) else repr(value)] for name, value in values.items())
    missing = sum(math.isnan(value) for value in values.values())
    lacking = f"; {missing} cannot be computed in this region" if missing else ""
    typer.echo(f"wrote {out}: {len(values)} features, mode {wanted.mode}{lacking}")
