"""Set-up of secure sums: which sites take part in a run, and the keys that each two of them share.

Every site answers `hello` with a fresh X25519 key signed by its identity key (Ed25519), which the other sites pinned
when they approved the roster. Under the same signature stands how many patients the site uses, a figure that it
declares anyway: all sites then hold the same number of patients against what they are asked. All hellos together are
the roster of the run; it travels in every request and is verified every time, so that a site keeps nothing but its own
run key.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from cohortium.common import masks
from cohortium.common.errors import SumRefused, WireError

MOST_SITES = 4096
_PURPOSE = "key and patients"  # of the signature


class Hello(NamedTuple):
    """A site's part of the roster.

    Its name, its public X25519 key (32 bytes), the patients it uses, and the identity's signature (64 bytes).
    """

    site: str
    key: bytes
    patients: int
    sig: bytes

    def statement(self, study: str, run: str) -> bytes:
        """What is signed."""
        return masks.digest(_PURPOSE, study, run, self.site, self.key, self.patients)


def is_name(text: Any) -> bool:
    """Whether this can name a study, a run, a site: 1 to 200 printable characters."""
    return isinstance(text, str) and 0 < len(text) <= 200 and text.isprintable()


def hello(
    study: str, run: str, site: str, key: X25519PrivateKey, identity: Ed25519PrivateKey, *, patients: int
) -> Hello:
    """Sign the public half of a run key, and the site's declared number of used patients.

    Raises
    ------
    WireError
        The study or the run has no proper name.
    """
    if not (is_name(study) and is_name(run)):
        raise WireError("a hello must name its study and its run")
    unsigned = Hello(site, key.public_key().public_bytes_raw(), patients, b"")
    return unsigned._replace(sig=identity.sign(unsigned.statement(study, run)))


def read_roster(plain: Any) -> tuple[Hello, ...]:
    """Roster out of a request: at most 4,096 well-formed hellos, each site once, in the order of their names."""
    try:
        roster = tuple(Hello(**{field: entry[field] for field in Hello._fields}) for entry in plain)
    except (TypeError, KeyError, IndexError) as broken:
        raise WireError("the roster of a sum is a list of site, key, patients and signature") from broken
    for site, key, patients, sig in roster:
        shaped = is_name(site) and isinstance(key, bytes) and isinstance(sig, bytes) and type(patients) is int
        if not (shaped and len(key) == 32 and len(sig) == 64 and 0 <= patients < 1 << 40):
            raise WireError("the roster of a sum has a site whose key, number of patients or signature is malformed")
    names = [entry.site for entry in roster]
    if names != sorted(set(names)):
        raise WireError("the roster of a sum must name each site once, sorted")
    if len(roster) > MOST_SITES:
        raise WireError(f"the roster of a sum has {len(roster)} sites, at most {MOST_SITES} can take part")
    return roster


def roster_of(replies: Iterable[Mapping[str, Any]]) -> tuple[Hello, ...]:
    """Roster out of the sites' answers to hello."""
    return read_roster(sorted(replies, key=lambda reply: reply["site"]))


def verify(study: str, run: str, roster: Sequence[Hello], pins: Mapping[str, bytes], minimum_sites: int) -> None:
    """Refuse a roster that is too small, or has a key or a number of patients that its site did not sign for this run.

    Parameters
    ----------
    pins : mapping of site to its 32-byte Ed25519 public key, as approved
    """
    if len(roster) < minimum_sites:
        raise SumRefused("roster", f"{len(roster)} sites take part, the study demands at least {minimum_sites}")
    for entry in roster:
        if entry.site not in pins:
            raise SumRefused(
                "roster", f"site {entry.site} is not in the roster that this site approved; enrol and approve it"
            )
        if not _signed(pins[entry.site], entry.sig, entry.statement(study, run)):
            raise SumRefused(
                "roster",
                f"the key and the number of patients of site {entry.site} are not signed by its identity for this run; "
                "make the set-up again",
            )


@lru_cache(maxsize=2 * MOST_SITES)  # the same roster comes with every request
def _signed(pin: bytes, sig: bytes, statement: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(pin).verify(sig, statement)
    except InvalidSignature:
        return False
    return True


def threshold(sites: int, minimum_sites: int) -> int:
    """How many sites a total must cover: 3, 3, 4, 5, 5 of 3..7, 7 of 10; so many shares open a mask, too.

    Bonawitz et al. 2017, section 6.2, asks for more than two thirds against a server that lies.
    """
    return max(minimum_sites, 2 * sites // 3 + 1)


def roster_digest(study: str, run: str, roster: Sequence[Hello]) -> bytes:
    """32 bytes that stand for a run's roster, fresh keys included, so that no one can choose them."""
    return masks.digest("roster", study, run, roster)


def pair_keys(
    roster: Sequence[Hello], salt: bytes, site: str, key: X25519PrivateKey, peers: Collection[str]
) -> dict[str, bytes]:
    """Key that `site` shares with each of its peers, and one with itself; bound to the roster by `salt`, its digest."""
    shared = {site: masks.derive(masks.digest("self", key.private_bytes_raw()), salt, "pair", site, site)}
    for other, public, *_ in roster:
        if other == site or other not in peers:
            continue
        try:
            secret = key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # a point of small order: nothing would be secret
            raise SumRefused("roster", f"the key of site {other} is not a proper key") from None
        shared[other] = masks.derive(secret, salt, "pair", min(site, other), max(site, other))
    return shared
