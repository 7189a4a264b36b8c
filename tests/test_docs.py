"""The documentation: links and pictures lead somewhere, and the site can be built."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from comfyui_flow3d.flow3d.fit.face_alignment import BOXES, POINTS
from comfyui_flow3d.flow3d.paths import WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
HELP = ROOT / "web" / "docs"
PAGES = sorted(
    p.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "web/docs/*.md", ".github/**/*.md")
    for p in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.S)


def headings(text: str) -> set[str]:
    """The anchors that GitHub and mkdocs give to headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", t.replace("`", "")).strip().lower()) for t in titles}


@pytest.mark.parametrize("name", PAGES)
def test_links_and_pictures_are_there(name: str) -> None:
    page = ROOT / name
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        url = urlsplit(link)
        if url.scheme:
            assert url.scheme == "https" and url.netloc, link
            continue
        target = (page.parent / unquote(url.path)).resolve() if url.path else page
        assert target.exists() and target.is_relative_to(ROOT), link
        if url.fragment:
            assert url.fragment in headings(target.read_text(encoding="utf-8")), link


def test_every_picture_of_the_documentation_is_shown() -> None:
    shown = {
        (ROOT / name).parent / link
        for name in PAGES
        for link in LINK.findall((ROOT / name).read_text(encoding="utf-8"))
    }
    shown = {p.resolve() for p in shown}
    pictures = [p for folder in (ROOT / "docs", HELP) for p in folder.glob("*.[jp][pn]g")]
    assert pictures and not [p.name for p in pictures if p not in shown]


def test_the_table_of_weights_is_what_the_code_asks_for() -> None:
    rows = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8").splitlines()
    for weight in WEIGHTS:
        (row,) = [r for r in rows if r.startswith(f"| `{weight.name}` |")]
        assert weight.url in row and weight.licence in row
    assert any(f"`{POINTS}`" in r and f"`{BOXES}`" in r for r in rows)


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first heading that is."""
    (rows,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n?)+)", page, re.M)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]


def test_the_readme_names_every_node_and_no_other() -> None:
    named = [n for row in table((ROOT / "README.md").read_text(encoding="utf-8"), "node") for n in row[0].split(", ")]
    nodes = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(node["display_name"] for node in nodes.values())


def test_the_readme_names_every_example_by_its_own_heading() -> None:
    told = {row[0].strip("`"): row[1] for row in table((ROOT / "README.md").read_text(encoding="utf-8"), "example")}
    there = {}
    for path in (ROOT / "workflows").glob("*.json"):
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        texts = [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
        there[path.stem] = next(t.splitlines()[0].lstrip("# ") for t in texts if t.startswith("#"))
    assert told == there


def test_the_readmes_picture_loads_fast() -> None:
    assert 50_000 < (ROOT / "docs" / "results.jpg").stat().st_size < 400_000


# --- the site --------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """What a page links to, loads, and can be linked to."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("img", "script", "link"):
            self.loads += [given[name] for name in ("src", "href") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as strictly as mkdocs can."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: use `python run.py test`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "WARNING" not in told and "excluded" not in told, told
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / ("index.html" if page.stem == "README" else f"{page.stem}/index.html")).is_file(), page.name
    for page in HELP.glob("*.md"):
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        text = (site / "nodes" / page.stem / "index.html").read_text(encoding="utf-8")
        assert f"<title>{title}" in text
        assert (site / "nodes" / f"{page.stem}.jpg").read_bytes() == (HELP / f"{page.stem}.jpg").read_bytes()


def test_the_site_is_whole_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {p: Elements(p.read_text(encoding="utf-8")) for p in site.rglob("*.html") if p.name != "404.html"}
    assert len(pages) > 30
    for page, found in pages.items():
        for link in found.links + found.loads:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                assert link in found.links, f"{page.relative_to(site)} loads {link}"
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page.relative_to(site)}: {link}"
            if url.fragment and target.suffix == ".html":
                assert url.fragment in pages[target].anchors, f"{page.relative_to(site)}: {link}"
