"""Replies: what sites answered, judged before anything is made of it: whole, to this request, held back or absent.

A site may run another version, or lie; nothing it sends may end the run in anything but an error that names it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cohortium.common.codec import unpack
from cohortium.common.errors import SumRefused, SumVoid, WireError
from cohortium.common.sum_layout import DTYPE, Layout
from cohortium.common.sum_setup import read_roster
from cohortium.common.sum_store import NEEDS_SETUP
from cohortium.common.transport import Failure

Reply = dict[str, Any]
Replies = Mapping[str, Reply | Failure]


def read_reply(data: bytes, kind: str, site: str) -> dict[str, Any]:
    """A site's reply, if it is one to a request of this kind; the parts of a sum are `ServerSum`'s to judge.

    Raises
    ------
    WireError
        It is not.
    """
    reply = unpack(data)
    refused, overflow = reply.get("refused", []), reply.get("overflow", [])
    right = (
        isinstance(refused, list)
        and all(isinstance(item, list) and len(item) == 3 for item in refused)
        and all(
            type(place) in (int, type(None)) and isinstance(what, str) and isinstance(why, str)
            for place, what, why in refused
        )
        and isinstance(overflow, list)
        and all(type(place) is int for place in overflow)
    )
    if not right or not (refused or ANSWERED.get(kind, _anything)(reply)):
        raise WireError("its reply is none to this request; install the coordinator's version")
    if kind == "hello" and not refused and reply["hello"]["site"] != site:
        raise WireError("it answered for another site")
    return reply


def _hello(reply: Reply) -> bool:
    try:
        read_roster([reply.get("hello")])
    except WireError:
        return False
    return True


def _flow(reply: Reply) -> bool:
    """Counts that add up, names of features, and what made them."""
    flow, features, made_by = (reply.get(key) for key in ("flow", "features", "made_by"))
    if not (isinstance(flow, dict) and isinstance(features, list) and isinstance(made_by, dict)):
        return False
    excluded = flow.get("excluded")
    counts: list[Any] = [flow.get("used"), *excluded.values()] if isinstance(excluded, dict) else [None]
    return all(type(n) is int and n >= 0 for n in counts) and flow.get("given") == sum(counts)


def _figures(reply: Reply) -> bool:
    figures = reply.get("figures")
    return (
        isinstance(figures, dict)
        and isinstance(figures.get("cohorts"), dict)
        and isinstance(figures.get("table_one"), list)
    )


def _anything(_: Reply) -> bool:
    return True


ANSWERED: dict[str, Callable[[Reply], bool]] = {
    "hello": _hello,
    "flow": _flow,
    "figures": _figures,
    "finish": lambda reply: reply.get("done") is True,
}


def fits(arrays: Any, layout: Layout) -> bool:
    """Whether arrays that came in the clear are those that were asked for."""
    return (
        isinstance(arrays, list)
        and len(arrays) == len(layout.entries)
        and all(
            isinstance(array, np.ndarray) and array.dtype == DTYPE[entry.kind] and array.size == entry.length
            for array, entry in zip(arrays, layout.entries, strict=True)
        )
    )


def held_back(replies: Replies, items: int) -> dict[str, Any] | None:
    """What the sites' guards refused, or which numbers did not fit; None when nothing was held back.

    Raises
    ------
    SumRefused
        A site refused the message as a whole.
    SumVoid
        A site needs another set-up, or speaks of an item beyond the `items` that were asked.
    """
    refused: dict[int, list[Any]] = {}
    overflow: set[int] = set()
    for site, reply in _answered(replies).items():
        for place, what, why in reply.get("refused", ()):
            if what == NEEDS_SETUP:
                raise SumVoid(f"{site}: {why}")
            if place is None:  # a rule that no other question would satisfy
                raise SumRefused(f"site {site}, {what}", why)
            refused[place] = [place, what, why]
        overflow |= set(reply.get("overflow", ()))
        if not all(0 <= place < items for place in (*refused, *overflow)):
            raise SumVoid(f"{site}: speaks of an item that was not asked; install the coordinator's version")
    if refused:
        return {"refused": [refused[place] for place in sorted(refused)]}
    return {"overflow": sorted(overflow)} if overflow else None


def raise_refusal(replies: Replies) -> None:
    """Raise what a site refused, if one did; `SumRefused`."""
    for site, reply in _answered(replies).items():
        for _, what, why in reply.get("refused", ()):
            raise SumRefused(f"site {site}, {what}", why)


def _answered(replies: Replies) -> dict[str, Reply]:
    return {site: reply for site, reply in replies.items() if isinstance(reply, dict)}


def all_there(replies: Replies) -> dict[str, Reply]:
    """The replies, if every site gave one.

    Raises
    ------
    SumVoid
        Names the sites that did not answer, and why.
    """
    absent = [f"{site}: {reply.reason}" for site, reply in replies.items() if isinstance(reply, Failure)]
    if absent:
        raise SumVoid("no answer from " + "; ".join(absent))
    return _answered(replies)
