"""Slots: what may be summed over one set of sites only, as both sides of a sum name it.

Of statistics it is the part of the study, frozen with the whole roster. Of a network it is one round of one training,
which is opened for one set of survivors, in whichever run: the difference of two would be a site's own update. A site
computes it from what is asked and never takes it from the server.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from cohortium.common.codec import pack

ROUND, WEIGHTS = "round_index", "weights"
"""Parameters of a round of a network: its number, and what the round before has made of the weights."""


def slots_of(mode: str, items: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Slots of a sum.

    Parameters
    ----------
    mode : {"whole", "survivors"}
    items : iterable of ``{"statistic", "view", "parameters"}``
        What is asked, as unpacked.
    """
    name = _part if mode == "whole" else _round
    return tuple(sorted({name(item) for item in items}))


def _part(item: Mapping[str, Any]) -> str:
    return str(item["view"]["rows"]["part"])


def _round(item: Mapping[str, Any]) -> str:
    parameters = item["parameters"]
    stage = {key: value for key, value in parameters.items() if key not in (ROUND, WEIGHTS)}
    training = hashlib.sha256(pack({"view": item["view"], "parameters": stage})).hexdigest()[:32]
    return f"{_part(item)} {item['statistic']} {training} {parameters[ROUND]}"
