"""Prepared: where a site keeps what `cohortium site prepare` made of its data for one study."""

from pathlib import Path

TABLE = "table.parquet"
FLOW = "flow.json"
FEATURES = "features.json"


def prepared_folder(workspace: Path, study_hash: str) -> Path:
    """Folder of a study's prepared table; another study, seed or split has another one."""
    return workspace / "prepared" / study_hash[:16]
