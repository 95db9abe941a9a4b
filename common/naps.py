"""Naps: how long Flower's processes wait between two looks, cut to what a study of many small messages needs.

Flower is tuned for few long rounds: its node sleeps 3 s between looks for work, and a process that is told of an object
before it has arrived tries again after 1 s. A study is dozens of small messages, and each would pay both. Nothing here
changes what is sent. The names are private to the pinned Flower; where one is missing, its wait stays as it is
(tests/common/test_naps.py tells; docs/decisions/0005-flower-deployment.md).
"""

import time

LOOK_S = 0.1
"""First wait between two looks for work or for an object."""
REPLY_S = 0.05
"""Wait between two looks at this machine's own state for a reply."""
GROWTH = 1.15
"""A node at rest reaches Flower's own 3 s after 25 looks, 20 s after the last message."""


class Naps:
    """Stands in for the module `time` in the loop of Flower's node."""

    def __init__(self) -> None:
        self._idle_s = LOOK_S

    def sleep(self, seconds: float) -> None:
        """Nap, never longer than Flower asked for."""
        if seconds < 3:  # it waits for the reply to a message: messages are flowing
            self._idle_s = LOOK_S
            time.sleep(min(seconds, REPLY_S))
        else:
            time.sleep(min(seconds, self._idle_s))
            self._idle_s = min(seconds, self._idle_s * GROWTH)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def shorten_node_naps() -> None:
    """In the process of a node: look for messages every `LOOK_S` while they flow."""
    from flwr.supernode import start_client_internal

    if hasattr(start_client_internal, "time"):
        start_client_internal.time = Naps()  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]


def shorten_pull_retries() -> None:
    """In any Flower process: look for an announced object again after `LOOK_S`, then twice that, and so on."""
    from flwr.supercore.inflatable import inflatable_utils

    for name in ("pull_objects", "pull_and_inflate_object_from_tree"):
        defaults = getattr(getattr(inflatable_utils, name, None), "__kwdefaults__", None) or {}
        if "initial_backoff" in defaults:
            defaults["initial_backoff"] = LOOK_S
