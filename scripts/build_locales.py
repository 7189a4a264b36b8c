"""Write locales/en from the nodes as a running ComfyUI tells them, and say what the translations lack.

    python scripts/build_locales.py http://127.0.0.1:8188

A translation, such as locales/zh, is written by hand and has the same keys. ComfyUI reads the folder when it starts.
"""

import argparse
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCALES = Path(__file__).resolve().parents[1] / "locales"
PACK, TYPE = "Flow3D", "FLOW3D_"  # how the ids of our nodes and socket types begin
Texts = dict[str, Any]  # ComfyUI's form: nested, keys with `_` for `.`, texts in vue-i18n's message format


def node_texts(info: Texts) -> Texts:
    """`nodeDefs` of one node, from its entry in /object_info."""
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            key(name): {"name": spec[1].get("display_name") or name, "tooltip": spec[1]["tooltip"]}
            for name, spec in inputs.items()
        },
        "outputs": {str(i): {"name": name, "tooltip": tooltip} for i, (name, tooltip) in enumerate(outputs)},
    }


def key(name: str) -> str:
    """The page looks names up with underscores for dots."""
    return name.replace(".", "_")


def english(object_info: Texts) -> dict[str, Texts]:
    """The files of locales/en, by name: the nodes' texts, and in main.json menu categories and socket types."""
    nodes = {name: info for name, info in object_info.items() if name.startswith(PACK)}
    inputs = [s for n in nodes.values() for part in ("required", "optional") for s in n["input"].get(part, {}).values()]
    types = {s[0] for s in inputs if isinstance(s[0], str)} | {t for n in nodes.values() for t in n["output"]}
    categories = {part for n in nodes.values() for part in n["category"].split("/")}
    return {
        "nodeDefs.json": {name: node_texts(info) for name, info in nodes.items()},
        "main.json": {
            "nodeCategories": {name: name for name in sorted(categories)},
            "dataTypes": {name: name for name in sorted(types) if name.startswith(TYPE)},
        },
    }


def flat(texts: Texts, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text with the keys that lead to it."""
    for name, value in texts.items():
        if isinstance(value, dict):
            yield from flat(value, (*path, name))
        else:
            yield (*path, name), value


def read(language: str, file: str) -> Texts:
    return json.loads((LOCALES / language / file).read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="address of a running ComfyUI with this pack in it")
    with urllib.request.urlopen(parser.parse_args().server.rstrip("/") + "/object_info") as reply:
        files = english(json.load(reply))
    for file, texts in files.items():
        path = LOCALES / "en" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(texts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        wanted = {keys for keys, _ in flat(texts)}
        for folder in sorted(LOCALES.iterdir()):
            there = {keys for keys, _ in flat(read(folder.name, file))}
            for what, names in (("lacks", wanted - there), ("has nothing to translate in", there - wanted)):
                for keys in sorted(names):
                    print(f"{folder.name}/{file} {what} {' / '.join(keys)}")


if __name__ == "__main__":
    main()
