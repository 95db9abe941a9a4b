import numpy as np
import pytest

from cohortium.client.imaging.store import Store, content_key
from cohortium.common.errors import SiteError


def test_what_is_put_is_got(tmp_path):
    store = Store(tmp_path / "cases")
    assert store.get("ab12") is None
    values = np.array([1.5, np.nan])
    store.put("ab12", {"values": values, "pictures": {"deep/ct/tumour": np.ones((2, 3), dtype=np.float32)}})
    found = store.get("ab12")
    assert np.array_equal(found["values"], values, equal_nan=True)
    assert found["pictures"]["deep/ct/tumour"].dtype == np.float32


def test_a_key_is_of_content_and_versions():
    assert content_key({"a": 1, "b": 2}, ("numpy",)) == content_key({"b": 2, "a": 1}, ("numpy",))
    assert content_key({"a": 1}, ("numpy",)) != content_key({"a": 2}, ("numpy",))
    assert content_key({"a": 1}, ("numpy",)) != content_key({"a": 1}, ("numpy", "scipy"))


def test_a_folder_that_cannot_be_written_stops_the_site(tmp_path):
    (tmp_path / "cases").write_text("a file where a folder should be")
    with pytest.raises(SiteError, match=r"cannot be written.*free space"):
        Store(tmp_path / "cases").put("ab12", {})
