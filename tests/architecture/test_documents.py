"""Pages of documentation: links, paths, Python blocks and line lengths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")})
GENERATED = ROOT / "docs" / "metrics.md"
FOLDERS = ("tailrace", "streams", "inference", "retrain", "monitoring", "docs", "tests", "benchmarks", "examples")
LONGEST = 100


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that exists, and a heading in it if it has an anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), target
        if anchor:
            assert anchor in _anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_paths_exist(page: Path) -> None:
    """Each path of the repository that a page names in backticks exists."""
    for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists() or path.startswith("benchmarks/results/"), path


@pytest.mark.parametrize("page", [page for page in PAGES if page != GENERATED], ids=_named)
def test_lines_are_short(page: Path) -> None:
    """Lines have at most 100 characters; the generated page of metrics is excepted."""
    long = [line for line in page.read_text().splitlines() if len(line) > LONGEST]
    assert long == []


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_python_blocks_compile(page: Path) -> None:
    """Each Python block of a page is valid syntax."""
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        compile(block, _named(page), "exec")
