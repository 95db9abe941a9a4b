"""Site log: what went wrong while answering, in full, for the site's own eyes; it never leaves the workspace."""

import logging
from pathlib import Path

NAME = "site.log"


def keep_traceback(workspace: Path) -> None:
    """Append the exception that is being handled to the site's log; a workspace that is not there keeps nothing."""
    if not workspace.is_dir():
        return
    handler = logging.FileHandler(workspace / NAME, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.Logger("cohortium.site")  # a logger of its own: nothing propagates to Flower's log
    log.addHandler(handler)
    log.exception("a message could not be answered")
    handler.close()
