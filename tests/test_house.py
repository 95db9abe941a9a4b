"""Rules of the house that no other tool checks."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("common", "strategies", "sites", "client", "server", "simulation", "cli")
LONGEST_FILE = 350
LONGEST_TEST = 450  # a list of cases reads well for longer
TEXT = {".py", ".md", ".toml", ".txt", ".html", ".css", ".sh", ".json", ".csv", ""}


def tracked(*patterns):
    """Files under version control; in a copy without its history, all that are not generated."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_of_code_grows_past_two_nouns():
    long = {
        file.relative_to(ROOT).as_posix(): lines
        for file in tracked("*.py")
        if (lines := len(file.read_text(encoding="utf-8").splitlines()))
        > (LONGEST_TEST if file.is_relative_to(ROOT / "tests") else LONGEST_FILE)
    }
    assert not long, f"a file this long is two nouns: {long}"


def test_every_module_says_what_it_is_for():
    for part in PARTS:
        for file in tracked(f"{part}/*.py"):
            if file.name != "__init__.py":
                assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{file}: no docstring"


def test_no_file_names_a_place_on_somebodys_machine():
    places = re.compile(r"(?<![\w.~-])/(?:home|Users|root|work|mnt|opt|srv)/\w")
    for file in tracked():
        if file.suffix in TEXT and file != Path(__file__):
            text = file.read_text(encoding="utf-8", errors="ignore")
            found = places.search(text)
            assert not found, f"{file.relative_to(ROOT)}: {text[found.start() : found.start() + 60]!r}"


def test_every_link_in_the_docs_leads_somewhere():
    link = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
    for page in tracked("*.md"):
        for target in link.findall(page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), (
                    f"{page.relative_to(ROOT)} links to {target}, which is not there"
                )


def test_every_make_target_of_the_docs_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in tracked("*.md"):
        used = set(re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
        named = {first or second for first, second in used}
        assert named <= targets, f"{page.relative_to(ROOT)}: make {named - targets}"
