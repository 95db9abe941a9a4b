"""What a wheel would hold: an editable install finds everything, a wheel only what pyproject.toml lists."""

import fnmatch
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("common", "strategies", "sites", "client", "server", "simulation", "cli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def package_files():
    return [p for part in PARTS for p in (ROOT / part).rglob("*") if p.is_file() and "__pycache__" not in p.parts]


def test_every_package_folder_is_listed_for_the_wheel():
    found = {"cohortium." + ".".join(f.parent.relative_to(ROOT).parts) for f in package_files() if f.suffix == ".py"}
    assert set(SETUPTOOLS["packages"]) == found


def test_every_listed_package_has_an_init():
    for package in SETUPTOOLS["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        assert (folder / "__init__.py").is_file(), f"{package}: no __init__.py"


def test_every_data_file_matches_a_pattern_of_its_package():
    packages = {ROOT.joinpath(*package.split(".")[1:]): package for package in SETUPTOOLS["packages"]}
    for file in package_files():
        if file.suffix == ".py":
            continue
        home = next(folder for folder in file.parents if folder in packages)
        data = SETUPTOOLS["package-data"]
        patterns = data.get("*", []) + data.get(packages[home], [])
        inside = file.relative_to(home).as_posix()
        # setuptools lets `**/` stand for no folder at all
        assert any(fnmatch.fnmatch(inside, pattern.removeprefix("**/")) for pattern in patterns), (
            f"{file.relative_to(ROOT)} is left out"
        )


def test_constraints_pin_every_dependency_and_name_no_place():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all("==" in pin and not set(pin) & set("/@ ") for pin in pins)
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    names = {item.partition(">")[0].partition("=")[0].partition("<")[0].lower().replace("_", "-") for item in wanted}
    assert names <= pinned
