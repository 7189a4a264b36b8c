"""Other names of the nodes in the search: given to a ComfyUI that knows such names, and kept from one that does not."""

from comfy_process import in_comfyui

SINCE = "search_aliases"  # the field of newer versions' io.Schema


@in_comfyui
def test_an_older_schema_is_not_given_the_names() -> None:
    from dataclasses import fields

    from comfy_api.latest import io

    from comfyui_flow3d.nodes import NODES, found, register_folders

    known = SINCE in {field.name for field in fields(io.Schema)}
    assert found.found_as("head pose") == ({SINCE: ["head pose"]} if known else {})
    register_folders()
    for node in NODES:
        node.define_schema()


@in_comfyui
def test_a_newer_schema_gets_names_for_every_node() -> None:
    from dataclasses import dataclass, field

    from comfy_api.latest import io

    from comfyui_flow3d.nodes import NODES, register_folders

    @dataclass
    class Newer(io.Schema):  # type: ignore[name-defined,misc]
        search_aliases: list[str] = field(default_factory=list)

    register_folders()
    older, io.Schema = io.Schema, Newer  # type: ignore[misc]
    try:
        schemas = [node.define_schema() for node in NODES]
    finally:
        io.Schema = older  # type: ignore[misc]
    for schema in schemas:
        names = schema.search_aliases
        assert names and len(set(names)) == len(names), schema.node_id
        assert all(name.strip() == name != "" and name != schema.display_name for name in names), schema.node_id
    fit = next(schema for schema in schemas if schema.node_id == "Flow3DFLAMEFit")
    assert {"face tracking", "head pose", "LivePortrait"} <= set(fit.search_aliases)
