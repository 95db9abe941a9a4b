"""Approvals and identity: a site answers from its own approved copy, and its key is made once and kept to itself."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cohortium.common.errors import SiteError
from cohortium.common.ledger import Ledger
from cohortium.common.roster import roster_of
from cohortium.common.study import load_study
from cohortium.sites.approvals import approve_roster, approve_study, approved_roster, approved_study, read_approvals
from cohortium.sites.identity import public_hex, site_identity

STUDIES = Path(__file__).parents[1] / "data" / "studies"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WHO = {"approved_by": "data protection officer", "time": NOW}


def test_an_approved_study_comes_back_as_it_was(tmp_path):
    study = load_study(STUDIES / "uci_heart")
    approve_study(tmp_path, study, **WHO)
    copy, approval = approved_study(tmp_path, study.hash)
    assert copy.canonical == study.canonical
    assert (approval.approved_by, approval.time) == ("data protection officer", "2026-01-02T03:04:05+00:00")


def test_what_was_not_approved_is_refused(tmp_path):
    study = load_study(STUDIES / "uci_heart")
    with pytest.raises(SiteError, match="is not approved at this site; read it and run cohortium site approve"):
        approved_study(tmp_path, study.hash)
    approve_study(tmp_path, study, **WHO)
    with pytest.raises(SiteError, match="is not approved"):
        approved_study(tmp_path, study.with_overrides(seed=8).hash)
    with pytest.raises(SiteError, match="is not approved"):
        approved_roster(tmp_path, study.hash)


def test_a_study_that_lets_out_more_needs_an_opt_in(tmp_path):
    study = load_study(STUDIES / "tcga_brca")
    with pytest.raises(SiteError, match="opt into event_time_days, or do not approve"):
        approve_study(tmp_path, study, **WHO)
    assert read_approvals(tmp_path).approved == {}
    assert approve_study(tmp_path, study, **WHO, opt_ins=["event_time_days"]).opt_ins == ("event_time_days",)


def test_an_opt_in_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(SiteError, match="did you mean 'event_time_days'"):
        approve_study(tmp_path, load_study(STUDIES / "tcga_brca"), **WHO, opt_ins=["event_time_day", "event_time_days"])


def test_a_changed_copy_is_found(tmp_path):
    study = load_study(STUDIES / "uci_heart")
    approve_study(tmp_path, study, **WHO)
    stored = tmp_path / "approved" / f"{study.hash}.json"
    stored.write_bytes(study.canonical.replace(b'"minimum_count":5', b'"minimum_count":1'))
    with pytest.raises(SiteError, match="the stored copy has another hash; approve the study again"):
        approved_study(tmp_path, study.hash)
    stored.unlink()
    with pytest.raises(SiteError, match=r"approved copy .*approve it again"):
        approved_study(tmp_path, study.hash)


def test_rosters_and_the_newest_approval(tmp_path):
    first, second = roster_of({"a": "1" * 64}), roster_of({"a": "1" * 64, "b": "2" * 64})
    for roster in (first, second, first):
        approve_roster(tmp_path, roster, **WHO)
    assert read_approvals(tmp_path).hashes("roster") == (second.hash, first.hash)
    assert approved_roster(tmp_path, second.hash)[0] == second


@pytest.mark.parametrize("content", ["{", '{"approved": {"x": 1}}', "[]", '{"approvd": {}}'])
def test_a_broken_approvals_file_stops_the_site(tmp_path, content):
    (tmp_path / "approvals.json").write_text(content)
    with pytest.raises(SiteError, match=r"approvals\.json"):
        read_approvals(tmp_path)


def test_approvals_are_readable_without_us(tmp_path):
    study = load_study(STUDIES / "uci_heart")
    approve_study(tmp_path, study, **WHO)
    entry = json.loads((tmp_path / "approvals.json").read_text())["approved"][study.hash]
    assert entry["what"] == "study"
    assert entry["opt_ins"] == []


def test_an_identity_is_made_once_and_for_its_owner_only(tmp_path):
    key = site_identity(tmp_path / "workspace")
    path = tmp_path / "workspace" / "identity.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_hex(site_identity(tmp_path / "workspace")) == public_hex(key)
    assert len(public_hex(key)) == 64
    assert [file.name for file in path.parent.iterdir()] == ["identity.pem"]


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [(None, 0o644, "others may read it; run chmod 600"), (b"x", 0o600, "is no private key; restore it")],
)
def test_a_bad_identity_stops_the_site(tmp_path, content, mode, message):
    site_identity(tmp_path)
    path = tmp_path / "identity.pem"
    if content is not None:
        path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(SiteError, match=message):
        site_identity(tmp_path)


def test_a_key_of_another_kind_stops_the_site(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    site_identity(tmp_path)
    pem = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "identity.pem").write_bytes(pem)
    with pytest.raises(SiteError, match="is not an Ed25519 key"):
        site_identity(tmp_path)


def test_every_approval_is_in_the_ledger_before_it_is_in_force(tmp_path, monkeypatch):
    """Also those that later ones replaced; an approval that the ledger could not take is none."""
    study, roster = load_study(STUDIES / "tcga_brca"), roster_of({"a": "1" * 64})
    approve_study(tmp_path, study, **WHO, opt_ins=["event_time_days"])
    for _ in range(2):
        approve_roster(tmp_path, roster, **WHO)
    first, *others = Ledger(tmp_path).entries()
    assert (first["what"], first["study"], first["opt_ins"]) == ("study", study.hash, ["event_time_days"])
    assert (first["approved_by"], first["time"]) == (["data protection officer"], "2026-01-02T03:04:05+00:00")
    assert [(entry["what"], entry["roster"]) for entry in others] == [("roster", roster.hash)] * 2

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ledger, "append", full)
    with pytest.raises(SiteError, match="cannot be written"):
        approve_roster(tmp_path, roster_of({"a": "2" * 64}), **WHO)
    assert read_approvals(tmp_path).hashes("roster") == (roster.hash,)
