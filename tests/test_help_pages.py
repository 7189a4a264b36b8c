"""The nodes' help pages: every input and output is named, the graphs can be built, the pictures are there."""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from comfy_page import PAGE_LIMIT, NoBrowserError, asked, browser, open_page, screenshot, until
from PIL import Image

if TYPE_CHECKING:
    from .comfy_server import Server

DOCS = Path(__file__).resolve().parents[1] / "web" / "docs"
PAGES = sorted(p.stem for p in DOCS.glob("*.md"))
LIMIT = 80_000  # bytes of a picture
LONG_LISTS = {"sampler_name", "scheduler"}  # ComfyUI's own, which it documents itself
FILES = {"name", "landmarks_file", "track"}  # lists of what lies in the user's folders


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def first_cells(text: str, heading: str) -> list[str]:
    """What stands in the first column of the tables whose first heading is `heading`; a cell may name several, with commas."""
    names: list[str] = []
    for table in re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n?)+)", text, re.M):
        names += [name for row in table.splitlines() for name in row.split("|")[1].strip().split(", ")]
    return names


def inputs(info: dict[str, Any]) -> dict[str, list]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def kinds(spec: list) -> set[str]:
    """The socket types that an input takes."""
    return set(spec[0].split(",")) if isinstance(spec[0], str) else {"COMBO"}


@pytest.fixture(scope="module")
def nodes(server: "Server") -> dict[str, dict]:
    return server.get("/object_info")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_every_input_and_output(nodes: dict[str, dict], name: str) -> None:
    text, info = page(name), nodes[name]
    assert text.startswith(f"# {info['display_name']}\n")
    assert sorted(first_cells(text, "input")) == sorted(inputs(info))
    assert sorted(first_cells(text, "output")) == sorted(info["output_name"])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_every_choice(nodes: dict[str, dict], name: str) -> None:
    text = page(name)
    for key, spec in inputs(nodes[name]).items():
        if spec[0] == "COMBO" and key not in LONG_LISTS | FILES:
            missing = [o for o in spec[1]["options"] if not re.search(rf"(?<![\w-]){re.escape(o)}(?![\w-])", text)]
            assert not missing, key


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_a_graph_that_can_be_built(nodes: dict[str, dict], name: str) -> None:
    """Each node is there by its name on the page, and gives something that the next one takes."""
    (line,) = re.findall(r"^Graph: `(.*)`$", page(name), re.M)
    by_title = {info["display_name"] or key: info for key, info in nodes.items()}
    chain = [by_title[title] for title in line.split(" -> ")]
    assert nodes[name] in chain and len(chain) > 1
    for giver, taker in zip(chain[:-1], chain[1:], strict=True):
        taken = set().union(*(kinds(spec) for spec in inputs(taker).values()))
        assert set(giver["output"]) & taken, f"{giver['display_name']} -> {taker['display_name']}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_one_picture_of_its_own(name: str) -> None:
    shown = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", page(name))
    assert [file for _, file in shown] == [f"{name}.jpg"]
    picture = DOCS / f"{name}.jpg"
    assert picture.stat().st_size < LIMIT
    assert np.asarray(Image.open(picture).convert("L")).std() > 10


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_links_but_its_picture(name: str) -> None:
    """The page in ComfyUI lies elsewhere than on GitHub: a relative link would lead nowhere in one of the two."""
    assert not re.findall(r"(?<!!)\[[^\]]+\]\((?!https?://)[^)]+\)", page(name).replace(f"({name}.jpg)", ""))


def test_pictures_belong_to_pages_and_to_the_script() -> None:
    from comfyui_flow3d.scripts.help_pictures import PAGES as DRAWN

    assert sorted(p.stem for p in DOCS.glob("*.jpg")) == PAGES == sorted(DRAWN)


@pytest.mark.parametrize("name", PAGES)
def test_comfyui_serves_page_and_picture_where_its_frontend_looks(server: "Server", name: str) -> None:
    """The frontend asks for docs/NODE/LOCALE.md, then docs/NODE.md, and puts the docs folder before relative pictures."""
    assert server.raw(f"/extensions/flow3d/docs/{name}.md").decode() == page(name)
    picture = Image.open(io.BytesIO(server.raw(f"/extensions/flow3d/docs/{name}.jpg")))
    assert picture.format == "JPEG"


def test_the_page_shows_help_with_its_picture(server: "Server", tmp_path: Path) -> None:
    """A node is selected, the question mark pressed, the picture looked at."""
    server.raw("/settings/Comfy.TutorialCompleted", b"true")
    press = "const mark = document.querySelector('[data-testid=info-button]'); mark?.click(); return !!mark"
    shown = (
        "return [...document.images].filter((i) => i.src.endsWith('/Flow3DFLAMEFit.jpg')).map((i) => i.naturalWidth)"
    )
    try:
        with browser(tmp_path / "profile") as page:
            open_page(page, server.url)
            asked(page, """
                app.graph.clear()
                const node = LiteGraph.createNode('Flow3DFLAMEFit')
                node.pos = [200, 100]
                app.graph.add(node)
                app.canvas.selectNode(node)
            """)  # fmt: skip
            until("the question mark", PAGE_LIMIT, lambda: page.execute_script(press))
            (width,) = until("the picture", PAGE_LIMIT, lambda: [w for w in page.execute_script(shown) if w])
            screenshot(page, "help")
    except NoBrowserError as error:
        pytest.skip(str(error))
    assert width == Image.open(DOCS / "Flow3DFLAMEFit.jpg").width
