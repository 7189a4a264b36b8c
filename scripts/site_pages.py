"""For mkdocs: pages of the site that lie outside docs/, so that they are written once. The nodes' help pages from web/docs with
their pictures come under nodes/, in the menu's section "Nodes"; the notes of the example workflows make one page; the changelog
and CONTRIBUTING.md stand beside the pages of docs/.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
HELP = ROOT / "web" / "docs"
MORE = ("CHANGELOG.md", "CONTRIBUTING.md")
SECTION = "Nodes"
EXAMPLES = "examples.md"
_NOTES = ("MarkdownNote", "Note")


def node_names() -> list[str]:
    """Node ids in the order in which ComfyUI lists them."""
    return list(json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the menu's section of the nodes."""
    (section,) = (entry for entry in config.nav or [] if SECTION in entry)
    section[SECTION] = [f"../web/docs/{name}.md" for name in node_names()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages under the names by which docs/ links to them."""
    for source, target in pages():
        path = (Path("..") / source.relative_to(ROOT)).as_posix()
        file = File(path, config.docs_dir, config.site_dir, config.use_directory_urls, dest_uri=target)
        file.inclusion = InclusionLevel.INCLUDED  # a path that begins with a dot is left out else
        files.append(file)
    files.append(File.generated(config, EXAMPLES, content=examples()))
    return files


def notes(workflow: Path) -> list[str]:
    """What a workflow's notes say, in Markdown."""
    nodes = json.loads(workflow.read_text(encoding="utf-8"))["nodes"]
    return [node["widgets_values"][0] for node in nodes if node["type"] in _NOTES]


def workflows() -> list[Path]:
    return sorted((ROOT / "workflows").glob("*.json"))


def examples() -> str:
    """The page of the example workflows: the picture and the notes of each."""
    page = ["# Example workflows", "In ComfyUI: *Templates*, *Custom Nodes*, the pack's folder. As files: `workflows/NAME.json` for the "
            "canvas, `workflows/api/NAME.json` for the API."]  # fmt: skip
    for workflow in workflows():
        page += [f"## {workflow.stem}", f"![{workflow.stem}](../workflows/{workflow.stem}.jpg)", *notes(workflow)]
    return "\n\n".join(page) + "\n"


def pages() -> Iterator[tuple[Path, str]]:
    """Files and where they stand in the site."""
    for file in MORE:
        yield ROOT / file, f"{Path(file).stem.lower()}/index.html"
    for name in node_names():
        yield HELP / f"{name}.md", f"nodes/{name}/index.html"
        yield HELP / f"{name}.jpg", f"nodes/{name}.jpg"
    for workflow in workflows():
        yield workflow.with_suffix(".jpg"), f"examples/{workflow.stem}.jpg"
