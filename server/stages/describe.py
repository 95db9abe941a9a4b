"""Describe: Table 1 of every part."""
from typing import Any
def describe(federation: Any, calls: Any) -> list[dict[str, Any]]:
    return []
