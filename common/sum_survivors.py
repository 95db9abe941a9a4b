"""Survivors: the set of sites that a sum is opened over, as its members check it and sign it for each other.

Where a site is missing, the server names the survivors. A site hands out its shares only for a set that at least T of
its members signed under their identities, and signs one set a sum only. No two sets can both be signed by T sites while
fewer than 2T - n of them work with a server that lies: whatever it tells to whom, one sum is opened, over one set.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cohortium.common import masks
from cohortium.common.errors import SumRefused, WireError


def check(survivors: Any, names: Sequence[str], site: str, least: int) -> tuple[str, ...]:
    """The survivors that a request names, if a sum of the sites `names` may be opened over them at `site`.

    Raises
    ------
    WireError
        There is no list of them.
    SumRefused
        They are not sites of the roster, sorted, `site` among them; or fewer than `least`.
    """
    if not isinstance(survivors, list):
        raise WireError("the request to open a sum has no survivors")
    known = set(names)
    right = all(isinstance(name, str) and name in known for name in survivors)
    if not right or survivors != sorted(set(survivors)) or site not in survivors:
        raise SumRefused("secure sum", "the survivors must be sites of the roster, sorted, this one among them")
    if len(survivors) < least:
        raise SumRefused("secure sum", f"{len(survivors)} of {len(names)} sites survive, at least {least} must")
    return tuple(survivors)


def sign(identity: Ed25519PrivateKey, transcript: bytes, survivors: Sequence[str]) -> bytes:
    """64-byte signature of a site under the survivors of a sum."""
    return identity.sign(_statement(transcript, survivors))


def check_signatures(
    signatures: Any, pins: Mapping[str, bytes], transcript: bytes, survivors: Sequence[str], least: int
) -> None:
    """Refuse survivors that fewer than `least` of their own signed; signatures of others do not count.

    Parameters
    ----------
    signatures : mapping of site to bytes
        As the server brought them; anything may be in it.
    pins : mapping of site to its 32-byte Ed25519 public key, as approved
    """
    if not isinstance(signatures, Mapping):
        raise WireError("the request to open a sum without all its sites brings no signatures")
    statement = _statement(transcript, survivors)
    right = sum(_valid(pins[name], signatures[name], statement) for name in survivors if name in signatures)
    if right < least:
        raise SumRefused(
            "secure sum", f"{right} survivors signed who the survivors are, at least {least} must; ask them to sign"
        )


def _valid(pin: bytes, signature: Any, statement: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(pin).verify(signature, statement)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _statement(transcript: bytes, survivors: Sequence[str]) -> bytes:
    return masks.digest("survivors", transcript, tuple(survivors))
