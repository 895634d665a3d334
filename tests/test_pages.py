"""Files that the Markdown pages link to or name in commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
NAMED = re.compile(r"\b((?:basicsr|scripts|tests|options)/[\w./-]*\w\.(?:py|yml|slurm))\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path):
    text = page.read_text()
    linked = [page.parent / link for link in LINK.findall(text)]
    named = [ROOT / name for name in NAMED.findall(text)]
    added = set(re.findall(r"^`(\S+)`:$", text, re.MULTILINE))  # by the recipes of CONTRIBUTING.md
    missing = [
        file
        for file in [*linked, *named]
        if not file.exists() and str(file.relative_to(ROOT)) not in added
    ]
    assert missing == []
