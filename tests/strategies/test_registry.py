"""Registry: every local half can be found by its name, and nothing else can."""

import importlib
from pathlib import Path

import pytest

from cohortium.common.errors import WireError
from cohortium.common.federation import Statistic
from cohortium.strategies import registry

STRATEGIES = Path(registry.__file__).parent


def test_every_statistic_of_the_package_is_found():
    names = set()
    for path in STRATEGIES.glob("*.py"):
        module = importlib.import_module(f"cohortium.strategies.{path.stem}")
        names |= {value.name for value in vars(module).values() if isinstance(value, Statistic)}
    assert len(names) > 15
    for name in names:
        assert registry.find(name).name == name


@pytest.mark.parametrize("name", ["logistic.nothing", "os.system", "", "views.build"])
def test_nothing_else_is(name):
    with pytest.raises(WireError, match="install"):
        registry.find(name)
