"""Items of profile intervals: Firth's logistic regression and Firth's Cox model where a likelihood has no maximum."""

from typing import Any

import numpy as np
import references_inference as separated
import references_profiles as references
from federations import at_sites
from item import Federate, Item

from cohortium.strategies import firth, firth_cox
from cohortium.strategies.penalised_search import Profile
from cohortium.strategies.rows import Labelled, Survival


def _told(found: Profile) -> dict[str, Any]:
    return {"low": found.low, "high": found.high, "log_p": np.log(found.p)}


def _logistic(federate: Federate) -> dict[str, Any]:
    frame, x = separated.separated()
    sites = at_sites(Labelled, frame, x=x, y=frame["y"].to_numpy(float), fold=np.zeros(len(x), np.int64))
    _, found = firth.fit_with_profile(federate(sites), np.eye(5)[1:], names=list("abcd"))
    return _told(found)


def _cox(federate: Federate) -> dict[str, Any]:
    frame, x = separated.marked()
    sites = at_sites(Survival, frame, x=x, time=frame["time"].to_numpy(), event=frame["event"].to_numpy(float))
    return _told(firth_cox.fit_with_profile(federate(sites), np.eye(3))[1])


ITEMS = (
    Item(name="Firth's logistic regression: profile intervals, penalised likelihood-ratio p",
         data="breast_cancer, 4 sites", ours=_logistic, theirs=references.logistic,
         reference="scipy: root in the end of roots of the modified score"),
    Item(name="Firth's Cox model: profile intervals, penalised likelihood-ratio p", data="rossi (every third), 4 sites",
         ours=_cox, theirs=references.cox, reference="scipy: root in the end of roots of the penalised score"),
)  # fmt: skip
