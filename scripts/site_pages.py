"""For mkdocs: pages of the site that lie outside docs/, so that they are written once. The nodes' help pages from web/docs with
their pictures come under nodes/, in the menu's section "Nodes"; the changelog and CONTRIBUTING.md stand beside docs/ pages.
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
    return files


def pages() -> Iterator[tuple[Path, str]]:
    """Files and where they stand in the site."""
    for file in MORE:
        yield ROOT / file, f"{Path(file).stem.lower()}/index.html"
    for name in node_names():
        yield HELP / f"{name}.md", f"nodes/{name}/index.html"
        yield HELP / f"{name}.jpg", f"nodes/{name}.jpg"
