"""The roster: the same hash whatever the order of its file, and a clear word on each mistake."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cohortium.common.errors import SiteError
from cohortium.common.roster import load_roster, parse_roster, roster_of
from cohortium.sites.identity import public_hex

KEYS = {name: public_hex(Ed25519PrivateKey.from_private_bytes(bytes([i]) * 32)) for i, name in enumerate("cab")}


def test_round_trip_and_order(tmp_path):
    roster = roster_of(KEYS)
    roster.write(tmp_path / "roster.toml")
    assert load_roster(tmp_path / "roster.toml").hash == roster.hash
    assert roster.names == ("a", "b", "c")
    assert roster_of(dict(sorted(KEYS.items()))).hash == roster.hash
    assert roster_of({**KEYS, "d": "0" * 64}).hash != roster.hash


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"site": [{"name": "a", "identity": "00"}]}, "[[site]] 'a' identity = '00': should be 64 hexadecimal digits"),
        ({"site": [{"name": "a", "key": "0" * 64}]}, "[[site]] 'a' identity: required key is missing"),
        ({"sites": []}, "unknown key; did you mean 'site'?"),
        ({"site": [{"name": "a", "identity": "0" * 64}] * 2}, "name 'a' is given twice"),
        ({"site": "a"}, "site = 'a'"),
    ],
)
def test_mistakes_are_named(tables, message):
    with pytest.raises(SiteError) as caught:
        parse_roster(tables)
    assert message in str(caught.value)


def test_a_missing_file_says_which(tmp_path):
    with pytest.raises(SiteError, match="roster file: there is no file"):
        load_roster(tmp_path / "roster.toml")
