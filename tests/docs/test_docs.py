"""The documentation says what is true: links lead somewhere, examples are valid, nothing is left out."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

from streamgate.domain.errors import BY_CODE
from streamgate.domain.policy import parse
from tools import reference

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_are_what_they_say(page: Path) -> None:
    for language, text in BLOCK.findall(page.read_text()):
        if language == "json":
            document = json.loads(text)
            if "expr" in document:
                parse(document)
        elif language == "python":
            ast.parse(text)
        elif language == "toml":
            tomllib.loads(text)


@pytest.mark.parametrize("name", reference.PAGES)
def test_reference_pages_are_what_the_code_says(name: str) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text()
    assert written == reference.PAGES[name]().rstrip() + "\n"


def test_every_error_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    assert [code for code in BY_CODE if f"`{code}`" not in page] == []


def test_the_readme_names_the_commands_and_the_performance_page_its_own() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme
    assert "make test" in readme
    assert "make bench" in (ROOT / "docs" / "reference" / "performance.md").read_text()


def test_every_decision_says_what_and_why() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert len(pages) >= 8
    for page in pages:
        text = page.read_text()
        assert "**Decision.**" in text, page.name
        assert "**Why.**" in text, page.name
        assert len(text.splitlines()) < 60, page.name
