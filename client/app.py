"""Client app: what Flower calls at a hospital; it opens the site's one door and nothing else.

The site file and the workspace come from the node's configuration, which belongs to the site (`cohortium site start`
writes it). The run's configuration, which belongs to the coordinator, is never read here.
"""

from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from cohortium.client import door
from cohortium.client.site_log import keep_traceback
from cohortium.common.errors import SiteError
from cohortium.common.wire import ASK, IDENTIFY, from_record, to_record

FAILED = 1001
"""Error code of our own failures, away from Flower's (0 to 8)."""
PUBLIC_REASON = "site failed: see its own log"

app = ClientApp()


def _place(context: Context, key: str) -> str:
    value = context.node_config.get(key)
    if not isinstance(value, str) or not value:
        raise SiteError(f"node configuration lacks {key!r}; start the node with `cohortium site start`")
    return value


def _failed(message: Message, context: Context) -> Message:
    """Keep the traceback in the site's workspace; tell the coordinator only that there is one."""
    workspace = context.node_config.get("workspace")
    if isinstance(workspace, str):
        keep_traceback(Path(workspace))
    return Message(Error(code=FAILED, reason=PUBLIC_REASON), reply_to=message)


@app.query(ASK.removeprefix("query."))
def ask(message: Message, context: Context) -> Message:
    """Answer one request through the door."""
    try:
        reply = door.answer(
            from_record(message.content),
            site_file=Path(_place(context, "site-file")),
            workspace=Path(_place(context, "workspace")),
        )
        return Message(to_record(reply), reply_to=message)
    except Exception:  # noqa: BLE001 - whatever it is, its text stays at the site
        return _failed(message, context)


@app.query(IDENTIFY.removeprefix("query."))
def identify(message: Message, context: Context) -> Message:
    """Say which site this node serves: its name, nothing else."""
    try:
        return Message(to_record(_place(context, "site").encode()), reply_to=message)
    except Exception:  # noqa: BLE001 - as above
        return _failed(message, context)
