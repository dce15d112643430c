"""The Python of the documentation runs, page by page; a block below `<!-- skip -->` does not."""

import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(<!-- skip -->\n+)?```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def blocks(page: Path) -> list[tuple[int, str]]:
    """The line that each block begins after, and its code."""
    text = page.read_text("utf-8")
    return [(text[: m.start(2)].count("\n"), m[2]) for m in BLOCK.finditer(text) if m[1] is None]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "page", type(sys)("page"))
    names = vars(sys.modules["page"])
    with torch.random.fork_rng(devices=[]):
        for line, code in blocks(page):
            exec(compile("\n" * line + code, str(page), "exec"), names)


def test_the_learner_that_the_documentation_writes_keeps_the_contract(tmp_path, capfd):
    file = tmp_path / "test_page.py"
    file.write_text("\n".join(code for _, code in blocks(ROOT / "docs" / "extending.md")))
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", "--rootdir", str(tmp_path)]
    assert pytest.main([*options, str(file)]) == 0, capfd.readouterr().out
    assert " passed" in capfd.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose)
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == ROOT / "docs"], ids=lambda page: page.name)
def test_a_page_of_the_site_is_in_its_navigation(page):
    assert f": {page.name}\n" in (ROOT / "mkdocs.yml").read_text("utf-8")


def test_every_formula_can_be_shown():
    pytest.importorskip("latex2mathml", reason="pip install 'quickstudy[docs]'")
    sys.path.insert(0, str(ROOT))
    try:
        from docs.maths import BLOCK, INLINE, mathml
    finally:
        sys.path.remove(str(ROOT))
    found = 0
    for path in [*PAGES, *SOURCES]:
        text = path.read_text("utf-8")
        if path.suffix == ".py":
            text = "\n".join(re.findall(r'r"""(.*?)"""', text, re.DOTALL))
        text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        for latex in re.findall(BLOCK, text, re.DOTALL):
            assert mathml(latex, block=True).startswith("<math")
            found += 1
        for latex in re.findall(INLINE, re.sub(BLOCK, "", text, flags=re.DOTALL)):
            assert mathml(latex).startswith("<math")
            found += 1
    assert found > 20
