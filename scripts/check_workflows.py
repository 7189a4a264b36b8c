"""Open every example workflow on ComfyUI's page and hold what the page makes of it against what is shipped.

    python scripts/check_workflows.py [NAME ...] [--url http://127.0.0.1:8188] [--screenshots FOLDER]

A ComfyUI with this pack must be running there (`python run.py comfyui`); Chromium with chromedriver is needed too. Each
canvas file is opened, exported as Run does it, and compared with `workflows/api`; nodes that the page does not know, that
lack an input, overlap or stick out of their group are told. Exit status 3 where anything is wrong.
"""

import argparse
import json
import sys
import tempfile
import urllib.request
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from comfy_page import NoBrowserError, asked, browser, open_page  # noqa: E402

WORKFLOWS = ROOT / "workflows"
PAGE_ONLY = {"video-preview"}  # inputs that the page adds where a chosen video is there, and the server does not know
TITLE = 30  # pixels of a node's title bar, above its place
TOLD = """
    const canvas = given[0]
    await app.loadGraphData(canvas, true, true, null)
    await new Promise((r) => setTimeout(r, 300))
    for (const button of document.querySelectorAll('.p-dialog-close-button')) button.click() // models that are not here
    const names = (n) => (n.widgets ?? []).filter((w) => w.serialize !== false).map((w) => w.name)
    const { output, workflow } = await app.graphToPrompt()
    const nodes = app.graph._nodes.map((n) => ({
        id: n.id, type: n.type, title: n.title, pos: [...n.pos], size: [...n.size], needs: [...n.computeSize()],
        known: !!n.constructor.nodeData || ['Note', 'MarkdownNote'].includes(n.type), widgets: names(n),
        free: (n.inputs ?? []).filter((i) => i.link == null && !i.widget && i.shape !== 7).map((i) => i.name),
    }))
    const groups = app.graph._groups.map((g) => ({ title: g.title, pos: [...g.pos], size: [...g.size] }))
    return { output, nodes, groups, saved: workflow.nodes }
"""


PICTURED = """
    for (let i = 0; i < 50 && document.querySelector('.p-dialog-mask'); i++) await new Promise((r) => setTimeout(r, 200))
    app.canvas._lowQualityZoomThreshold = 0 // names and values, however small
    app.canvas.isLowQuality = false
    app.canvas.draw(true, true)
"""


def shipped(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The canvas and the API form of an example."""
    files = WORKFLOWS / f"{name}.json", WORKFLOWS / "api" / f"{name}.json"
    canvas, api = (json.loads(f.read_text(encoding="utf-8")) for f in files)
    return canvas, api


def names() -> list[str]:
    return sorted(p.stem for p in WORKFLOWS.glob("*.json"))


def opened(page: Any, canvas: dict[str, Any]) -> dict[str, Any]:
    """What the page tells of a canvas file once it is open: its export, nodes and groups."""
    return asked(page, TOLD, canvas)


def problems(told: dict[str, Any], canvas: dict[str, Any], api: dict[str, Any]) -> list[str]:
    """What is wrong, a sentence each."""
    wrong = [f"the page does not know node {n['id']}, {n['type']}" for n in told["nodes"] if not n["known"]]
    wrong += [f"{n['title']}: '{name}' is not connected" for n in told["nodes"] for name in n["free"]]
    return wrong + differences(told["output"], api) + moved_widgets(told["saved"], canvas) + misplaced(told)


def differences(export: dict[str, Any], api: dict[str, Any]) -> list[str]:
    """Where the page's export is not the shipped API form."""
    wrong = [f"node {n} is only in the {'page' if n in export else 'file'}'s form" for n in sorted(export.keys() ^ api.keys())]
    for n in sorted(export.keys() & api.keys()):
        ours, theirs = api[n], export[n]
        title = ours["_meta"]["title"]
        for part in ("class_type", "_meta"):
            if ours[part] != theirs[part]:
                wrong.append(f"node {n}, {title}: {part} is {theirs[part]} on the page, {ours[part]} in the file")
        for name in sorted((ours["inputs"].keys() | theirs["inputs"].keys()) - PAGE_ONLY):
            a, b = (form["inputs"].get(name, "absent") for form in (ours, theirs))
            if a != b:
                wrong.append(f"{title}: '{name}' is {b!r} on the page, {a!r} in the file")
    return wrong


def moved_widgets(saved: list[dict[str, Any]], canvas: dict[str, Any]) -> list[str]:
    """Nodes whose values the page would save in another order or number than the file has."""
    ours = {n["id"]: n.get("widgets_values", []) for n in canvas["nodes"]}
    return [
        f"node {n['id']}, {n['type']}: the page saves the values {n.get('widgets_values')}, the file has {ours[n['id']]}"
        for n in saved
        if (n.get("widgets_values") or []) != ours[n["id"]]
    ]


def bounds(part: dict[str, Any], title: float) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, the title bar included."""
    (x, y), (w, h) = part["pos"], part["size"]
    return x, y - title, x + w, y + h


def misplaced(told: dict[str, Any]) -> list[str]:
    """Nodes that are too small for what is in them, lie over each other, or stick out of a group."""
    wrong = [
        f"{n['title']} is {n['size'][1]:.0f} pixels high and needs {n['needs'][1]:.0f}"
        for n in told["nodes"]
        if n["needs"][1] > n["size"][1] + 0.5
    ]
    places = {n["title"]: bounds(n, TITLE) for n in told["nodes"]}
    for (a, one), (b, other) in combinations(places.items(), 2):
        if overlap(one, other):
            wrong.append(f"{a} and {b} overlap")
    frames = {g["title"]: bounds(g, 0) for g in told["groups"]}
    for (a, one), (b, other) in combinations(frames.items(), 2):
        if overlap(one, other):
            wrong.append(f"the groups {a} and {b} overlap")
    for a, one in places.items():
        for b, other in frames.items():
            inside = one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]
            if overlap(one, other) and not inside:
                wrong.append(f"{a} sticks out of the group {b}")
    return wrong


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def photographed(page: Any, file: Path, tries: int = 3) -> None:
    """A picture of the page with every name and value on it. A busy machine may draw too slowly for the first try."""
    from selenium.common.exceptions import TimeoutException

    asked(page, PICTURED)
    for left in reversed(range(tries)):
        try:
            page.save_screenshot(str(file))
            return
        except TimeoutException:
            if not left:
                raise


def main() -> int:
    parser = argparse.ArgumentParser(description="Hold the example workflows against ComfyUI's page.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them where none is named")
    parser.add_argument("--url", default="http://127.0.0.1:8188")
    parser.add_argument("--screenshots", type=Path, help="a folder for a picture of each canvas")
    args = parser.parse_args()
    done = urllib.request.Request(f"{args.url}/settings/Comfy.TutorialCompleted", b"true")
    urllib.request.urlopen(done, timeout=60).close()
    bad = 0
    try:
        with tempfile.TemporaryDirectory() as folder, browser(Path(folder) / "profile", 2400, 1300) as page:
            open_page(page, args.url)
            for name in args.names or names():
                canvas, api = shipped(name)
                wrong = problems(opened(page, canvas), canvas, api)
                bad += bool(wrong)
                print(f"{name}: {'as shipped' if not wrong else f'{len(wrong)} problems'}")
                print("".join(f"  {w}\n" for w in wrong), end="")
                if args.screenshots:
                    photographed(page, args.screenshots / f"{name}.png")
    except NoBrowserError as error:
        print(error, file=sys.stderr)
        return 1
    return 3 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
