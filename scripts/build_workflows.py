"""Write the example workflows, canvas and API forms, from their descriptions in `scripts/examples`.

    python scripts/build_workflows.py [NAME ...] [--url http://127.0.0.1:8188]

A ComfyUI with this pack must be running there (`python run.py comfyui`): the order of a node's widgets and their defaults are
read from it. Pictures beside the workflows are made by hand from what they give.
"""

import argparse
import json
import urllib.request
from pathlib import Path
from typing import Any

from examples.catalogue import EXAMPLES, drawn

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"


def object_info(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/object_info", timeout=60) as reply:
        return json.load(reply)


def written(canvas: dict[str, Any]) -> str:
    """JSON with one node, link or group a line, so that changes can be read."""
    lines = []
    for key, value in canvas.items():
        if isinstance(value, list) and value:
            rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
            lines.append(f" {json.dumps(key)}: [\n{rows}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them where none is named")
    parser.add_argument("--url", default="http://127.0.0.1:8188")
    args = parser.parse_args()
    info = object_info(args.url)
    (WORKFLOWS / "api").mkdir(exist_ok=True)
    for name in args.names or EXAMPLES:
        sheet = drawn(name, info)
        (WORKFLOWS / f"{name}.json").write_text(written(sheet.canvas()), encoding="utf-8", newline="\n")
        api = json.dumps(sheet.api(), indent=2, ensure_ascii=False)
        (WORKFLOWS / "api" / f"{name}.json").write_text(api + "\n", encoding="utf-8", newline="\n")
        print(f"{name}: {len(sheet.nodes)} nodes")


if __name__ == "__main__":
    main()
