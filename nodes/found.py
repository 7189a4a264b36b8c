"""Other names under which a node is found, where this ComfyUI knows such names."""

from dataclasses import fields
from typing import Any

from comfy_api.latest import io


def found_as(*names: str) -> dict[str, Any]:
    """The argument of `io.Schema` that gives a node these names in the search; none where the Schema has no such field
    (ComfyUI 0.3.64)."""
    known = any(field.name == "search_aliases" for field in fields(io.Schema))
    return {"search_aliases": list(names)} if known else {}
