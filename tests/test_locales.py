"""The nodes' texts in other languages: complete, of the present nodes, and readable by ComfyUI's page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from comfy_page import NoBrowserError, asked, browser, open_page

from comfyui_flow3d.scripts.build_locales import LOCALES, english, flat, read

if TYPE_CHECKING:
    from .comfy_server import Server

FILES = ("nodeDefs.json", "main.json")
TRANSLATIONS = sorted(p.name for p in LOCALES.iterdir() if p.name != "en")
CJK = re.compile(r"[\u4e00-\u9fff]")
NUMBER = re.compile(r"(?<![A-Za-z\d.])\d+(?:\.\d+)?(?![A-Za-z\d])")
LATIN_RUN = re.compile(r"(?:[A-Za-z][A-Za-z'-]*[ ]+){3,}[A-Za-z]")  # four words: longer than any proper name we use
SAME_IN_CHINESE = {"CFG", "ControlNet", "Flow3D", "Latent"}


def texts(language: str, file: str = "nodeDefs.json") -> dict[tuple[str, ...], str]:
    return dict(flat(read(language, file)))


def test_english_is_what_the_nodes_say(server: "Server") -> None:
    made = english(server.get("/object_info"))
    for file in FILES:
        assert texts("en", file) == dict(flat(made[file])), "run scripts/build_locales.py"


def test_the_server_hands_all_of_it_to_the_page(server: "Server") -> None:
    served = server.get("/i18n")
    for language in ("en", *TRANSLATIONS):
        for file in FILES:
            wanted = read(language, file) if file == "main.json" else {"nodeDefs": read(language, file)}
            assert dict(flat(wanted)).items() <= dict(flat(served[language])).items()


@pytest.mark.parametrize("language", TRANSLATIONS)
@pytest.mark.parametrize("file", FILES)
def test_a_translation_has_every_text_and_no_other(language: str, file: str) -> None:
    wanted, there = texts("en", file), texts(language, file)
    assert not wanted.keys() - there.keys(), "not translated"
    assert not there.keys() - wanted.keys(), "left from nodes that are no more"
    assert all(isinstance(text, str) and text.strip() == text != "" for text in there.values())


@pytest.mark.parametrize("language", ["en", *TRANSLATIONS])
def test_the_page_can_read_every_text(language: str) -> None:
    """vue-i18n takes braces, @ and | for its own: such a text would show as something else, or stop the page."""
    odd = [keys for file in FILES for keys, text in texts(language, file).items() if set("{}@|") & set(text)]
    assert not odd


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_figures_are_the_same_in_every_language(language: str) -> None:
    there = texts(language)
    differ = [
        (keys, text, there[keys])
        for keys, text in texts("en").items()
        if set(NUMBER.findall(text)) != set(NUMBER.findall(there[keys]))
    ]
    assert not differ


@pytest.mark.parametrize("file", FILES)
def test_chinese_is_chinese(file: str) -> None:
    for keys, text in texts("zh", file).items():
        assert CJK.search(text) or text in SAME_IN_CHINESE, keys
        assert not LATIN_RUN.search(text), (keys, text)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_choices_keep_their_names(server: "Server", language: str) -> None:
    """The page shows a list's entries untranslated, so what a tooltip explains must bear the same name in all languages."""
    there, explained = texts(language), 0
    for keys, text in texts("en").items():
        if keys[1] != "inputs" or keys[3] != "tooltip":
            continue
        parts = server.get(f"/object_info/{keys[0]}")[keys[0]]["input"]
        spec = {**parts["required"], **parts.get("optional", {})}[keys[2]]
        for option in spec[1].get("options", []) if spec[0] == "COMBO" else []:
            if re.search(rf"(?<![\w-]){re.escape(option)}:", text):
                explained += 1
                assert option in there[keys], keys
    assert explained > 30


@pytest.fixture
def chinese_page(server: "Server", tmp_path: Path) -> Iterator[Any]:
    """ComfyUI's page in Chinese."""
    server.raw("/settings/Comfy.TutorialCompleted", b"true")
    server.raw("/settings/Comfy.Locale", b'"zh"')
    try:
        with browser(tmp_path / "profile") as page:
            open_page(page, server.url)
            yield page
    except NoBrowserError as error:
        pytest.skip(str(error))
    finally:
        server.raw("/settings/Comfy.Locale", b'"en"')


def test_the_page_shows_every_node_in_chinese(chinese_page: Any) -> None:
    """Titles, descriptions, inputs, sliders and outputs of all nodes, as the canvas would draw them."""
    seen = asked(chinese_page, """
        return Object.fromEntries(given[0].map((name) => {
            const node = LiteGraph.createNode(name)
            const labels = (slots) => Object.fromEntries(slots.map((s) => [s.name, s.localized_name ?? s.label]))
            app.graph.add(node)
            return [name, { title: node.title, inputs: labels(node.inputs), outputs: node.outputs.map((o) => o.localized_name),
                widgets: labels(node.widgets ?? []), description: node.constructor.nodeData.description }]
        }))
    """, list(read("zh", "nodeDefs.json")))  # fmt: skip
    for name, wanted in read("zh", "nodeDefs.json").items():
        node = seen[name]
        assert (node["title"], node["description"]) == (wanted["display_name"], wanted["description"])
        assert node["outputs"] == [output["name"] for output in wanted["outputs"].values()]
        for key, texts_of in wanted["inputs"].items():
            assert node["inputs"][key] == texts_of["name"], (name, key)
            assert node["widgets"].get(key, texts_of["name"]) == texts_of["name"], (name, key)
