"""Local table: a hospital's own file of patients, read as text under study names, missing values as empty text.

The one place that opens it. Whatever stops reading stops the site: an I/O error never excludes a patient.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cohortium.common.declared_files import nearest
from cohortium.common.errors import SiteError
from cohortium.common.study_data import level_text
from cohortium.sites.site_file import Site

Texts = NDArray[np.object_]


def read_local_table(site: Site, columns: Sequence[str]) -> dict[str, Texts]:
    """Text values by study name, with ``patient_id`` first; rows as the site's `where` takes them.

    Local codes are already study values; missing codes are ``""``.

    Parameters
    ----------
    columns : study names of the columns wanted

    Raises
    ------
    SiteError
        The file cannot be read, or lacks a column, or no row matches `where`.
    """
    frame = _read(site)
    here = f"site {site.name}: patient table {site.patients_file}"
    wanted = {"patient_id": site.data.id_column} | {name: site.data.columns.get(name, name) for name in columns}
    lacking = [
        f"column {local!r}"
        + (f" for {name!r}" if local != name else "")
        + f" is missing; {nearest(local, frame.columns)}"
        for name, local in [*wanted.items(), *((column, column) for column in site.data.where)]
        if local not in frame.columns
    ]
    if lacking:
        remedy = "correct the table, or map the name under [data.columns] in the site file"
        raise SiteError("\n  ".join([f"{here}:", *lacking, remedy]))
    for column, value in site.data.where.items():
        frame = frame.loc[[level_text(_cell(raw)) == level_text(value) for raw in frame[column]]]
    if not len(frame):
        what = f"no row matches where = {site.data.where}" if site.data.where else "holds no row"
        raise SiteError(f"{here}: {what}; correct [data] in the site file")
    return {name: _study_values(site, name, frame[local]) for name, local in wanted.items()}


def _study_values(site: Site, name: str, column: Any) -> Texts:
    """Stripped texts, missing codes emptied, local codes replaced by study values."""
    missing = {level_text(code) for code in site.data.missing_codes}
    codes = {level_text(local): str(value) for local, value in site.data.codes.get(name, {}).items()}
    position, distinct = pd.factorize(column, use_na_sentinel=False)  # coded columns hold few distinct values
    values = []
    for text in map(_cell, distinct):
        level = level_text(text)
        values.append("" if text == "" or level in missing else codes.get(level, text))
    return np.array(values, dtype=object)[position]


def _cell(raw: object) -> str:
    """A cell as text; typed files (Parquet, Excel) bring numbers, booleans and nothing at all."""
    if isinstance(raw, str):
        return raw.strip()
    if raw is None or raw is pd.NA or raw is pd.NaT or raw != raw:
        return ""
    if isinstance(raw, bool | np.bool_):
        return str(int(raw))
    return level_text(raw.item() if isinstance(raw, np.generic) else raw)


def _read(site: Site) -> pd.DataFrame:
    path, data = site.patients_file, site.data
    here = f"site {site.name}: patient table {path}"
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = _read_delimited(
                path, delimiter="\t" if path.suffix.lower() == ".tsv" else data.delimiter, site=site
            )
    except FileNotFoundError:
        raise SiteError(f"{here}: there is no such file; correct patients in the site file") from None
    except PermissionError:
        raise SiteError(f"{here}: may not be read; give this user permission to read it") from None
    except UnicodeDecodeError:
        raise SiteError(f"{here}: is not {data.encoding} text; set encoding under [data] in the site file") from None
    except OSError as broken:
        raise SiteError(f"{here}: cannot be read ({broken.strerror or broken}); check the disk or share") from None
    except (ValueError, pd.errors.ParserError) as broken:  # pyarrow's errors and pandas' are ValueErrors
        raise SiteError(f"{here}: cannot be parsed ({broken}); check delimiter and file") from None
    if not frame.columns.is_unique:
        twice = sorted(set(frame.columns[frame.columns.duplicated()]))
        raise SiteError(f"{here}: column {twice[0]!r} is there twice; rename one")
    return frame


def _read_delimited(path: Path, *, delimiter: str, site: Site) -> pd.DataFrame:
    # header=None: pandas would rename a repeated column silently, and take a first column without a name as an index
    frame = pd.read_csv(
        path,
        header=None,
        dtype=str,
        keep_default_na=False,
        sep=delimiter,
        encoding="utf-8-sig" if site.data.encoding == "utf-8" else site.data.encoding,
        skip_blank_lines=True,
    )
    names = [str(name).strip() for name in frame.iloc[0]]
    table = frame.iloc[1:].set_axis(names, axis=1)
    return table.loc[:, [name != "" for name in names]]  # a delimiter at the end of every line makes a nameless column
