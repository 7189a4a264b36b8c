"""A workflow on paper: nodes with titles, in groups of columns, from which both of ComfyUI's forms are made.

    sheet = Sheet("name", object_info)
    with sheet.group("1 Portrait"):
        portrait = sheet.node("LoadImage", "Portrait", image="portrait.png")
        sheet.column()
        sheet.node("PreviewImage", "Seen", images=portrait["IMAGE"])

Inputs that are not named take their defaults, as a node fresh on the canvas does. A node given as an input means its first
output. Everything is checked against what a running ComfyUI says of its nodes (`/object_info`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .layout import GROUP_COLOURS, NOTE_WIDTH, Box, Group, node_height, placed, text_height

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
UPLOADS = {"image_upload": 230, "video_upload": 330}  # pixels below the button, for what was chosen
NOTE = "MarkdownNote"  # the page's own: the server does not know it
LAYOUT = {"wide", "space", "models"}  # arguments of Sheet.node that are no inputs
NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}


@dataclass(frozen=True)
class Output:
    node: "Node"
    slot: int

    @property
    def kind(self) -> str:
        return self.node.info["output"][self.slot]


@dataclass
class Node:
    id: int
    kind: str
    title: str
    info: dict[str, Any]  # the node's part of /object_info
    given: dict[str, Any]  # an Output, or a widget's value
    box: Box
    models: tuple[dict[str, str], ...] = ()

    def __getitem__(self, output: str) -> Output:
        return Output(self, self.info["output_name"].index(output))

    @property
    def inputs(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Type and options of every input, in the order of the canvas."""
        parts = self.info["input"]
        both = {**parts.get("required", {}), **parts.get("optional", {})}
        told = {name: (spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in both.items()}
        return {
            name: ("COMBO", {"options": kind, **options}) if isinstance(kind, list) else (kind, options)
            for name, (kind, options) in told.items()
        }

    def is_widget(self, name: str) -> bool:
        kind, options = self.inputs[name]
        return kind in WIDGETS and not options.get("forceInput")

    @property
    def sockets(self) -> list[str]:
        return [name for name in self.inputs if not self.is_widget(name)]

    @property
    def widgets(self) -> list[str]:
        return [name for name in self.inputs if self.is_widget(name)]

    def value(self, name: str) -> Any:
        """What a widget holds, also where a link goes over it."""
        kind, options = self.inputs[name]
        given = self.given.get(name)
        if given is not None and not isinstance(given, Output):
            return given
        empty = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
        return options.get("default", (options.get("options") or [None])[0] if kind == "COMBO" else empty.get(kind))

    def widget_values(self) -> list[Any]:
        values: list[Any] = []
        for name in self.widgets:
            values.append(self.value(name))
            if self.inputs[name][1].get("control_after_generate"):
                values.append("fixed")
            if any(self.inputs[name][1].get(upload) for upload in UPLOADS):
                values.append("image")  # the button below the list
        return values


@dataclass
class Note:
    id: int
    title: str
    text: str
    box: Box


@dataclass
class Sheet:
    name: str
    object_info: dict[str, Any]
    nodes: list[Node] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    groups: list[list[Group]] = field(default_factory=list)  # stacks from left to right, each from top to bottom

    @contextmanager
    def group(self, title: str = "", below: bool = False) -> Iterator[None]:
        """A frame around what is put on the sheet within, right of the group before it or below it; "" draws no frame."""
        count = sum(bool(group.title) for stack in self.groups for group in stack)
        made = Group(title, GROUP_COLOURS[count % len(GROUP_COLOURS)])
        if below:
            self.groups[-1].append(made)
        else:
            self.groups.append([made])
        yield

    def column(self) -> None:
        """What follows stands right of what is in the group already."""
        self.groups[-1][-1].columns.append([])

    def node(
        self, kind: str, title: str = "", *, wide: int = 290, space: int = 0, models: tuple[dict[str, str], ...] = (), **given: Any
    ) -> Node:
        """Put a node below the last one. `wide`: pixels; `space`: pixels for pictures below its widgets.

        Raises ValueError for an unknown node, a title that is taken, an input that is missing or does not exist, a link
        between types that do not fit, or a value that is none of a list.
        """
        info = self.object_info.get(kind)
        if info is None:
            raise ValueError(f"{self.name}: this ComfyUI has no node {kind}")
        title = title or info["display_name"] or kind
        linked = {name: Output(value, 0) if isinstance(value, Node) else value for name, value in given.items()}
        node = Node(self._next_id(), kind, title, info, linked, Box(wide, 0), models)
        self._check(node)
        multiline = sum(bool(node.inputs[w][1].get("multiline")) for w in node.widgets)
        shown = sum(room for w in node.widgets for upload, room in UPLOADS.items() if node.inputs[w][1].get(upload))
        rows = max(len(node.sockets), len(info["output"]))
        node.box.height = node_height(rows, len(node.widget_values()), multiline) + space + shown
        self.nodes.append(node)
        self.groups[-1][-1].columns[-1].append(node.box)
        return node

    def note(self, title: str, text: str) -> None:
        """Words on the canvas, in Markdown."""
        text = text.strip()
        note = Note(self._next_id(), title, text, Box(NOTE_WIDTH, text_height(text)))
        self.notes.append(note)
        self.groups[-1][-1].columns[-1].append(note.box)

    def _next_id(self) -> int:
        return len(self.nodes) + len(self.notes) + 1

    def _check(self, node: Node) -> None:
        what = f"{self.name}, '{node.title}'"
        if any(other.title == node.title for other in self.nodes):
            raise ValueError(f"{what}: the title is taken")
        if taken := LAYOUT & node.inputs.keys():
            raise ValueError(f"{what}: {', '.join(taken)} is an input of the node too: rename the argument of Sheet.node")
        for name, value in node.given.items():
            if name not in node.inputs:
                raise ValueError(f"{what} has no input '{name}': {', '.join(node.inputs)}")
            wanted = node.inputs[name][0]
            if isinstance(value, Output) and wanted != "*" and value.kind not in wanted.split(","):
                raise ValueError(f"{what}: '{name}' takes {wanted}, not {value.kind}")
        required = node.info["input"].get("required", {})
        missing = [name for name in required if not node.is_widget(name) and name not in node.given]
        if missing:
            raise ValueError(f"{what}: {', '.join(missing)} not given")

    # --- the forms ---------------------------------------------------------------------------------------------------

    def api(self) -> dict[str, Any]:
        """What the page sends when Run is pressed."""
        return {
            str(node.id): {
                "class_type": node.kind,
                "inputs": {name: api_value(node, name) for name in node.inputs if node.is_widget(name) or name in node.given},
                "_meta": {"title": node.title},
            }
            for node in self.nodes
        }

    def canvas(self) -> dict[str, Any]:
        """What the page opens."""
        frames = placed(self.groups)
        links: list[list[Any]] = []
        slots = {node.id: canvas_inputs(node, links) for node in self.nodes}
        nodes = [canvas_node(node, order, slots[node.id], links) for order, node in enumerate(self.nodes)]
        return {
            "revision": 0,
            "last_node_id": len(nodes) + len(self.notes),
            "last_link_id": len(links),
            "nodes": nodes + [canvas_note(note, len(nodes) + i) for i, note in enumerate(self.notes)],
            "links": links,
            "groups": [
                {"id": i + 1, "title": title, "bounding": bounding, "color": colour, "font_size": 24, "flags": {}}
                for i, (title, colour, bounding) in enumerate(frames)
            ],
            "config": {},
            "extra": {},
            "version": 0.4,
        }


def api_value(node: Node, name: str) -> Any:
    given = node.given.get(name)
    return [str(given.node.id), given.slot] if isinstance(given, Output) else node.value(name)


def canvas_inputs(node: Node, links: list[list[Any]]) -> list[dict[str, Any]]:
    """A node's input slots, sockets first. Their links are added to `links`."""
    slots: list[dict[str, Any]] = []
    for name in [*node.sockets, *node.widgets]:
        kind, options = node.inputs[name]
        slot: dict[str, Any] = {"name": name, "type": kind, "link": None}
        if node.is_widget(name):
            slot["widget"] = {"name": name}
        elif name not in node.info["input"].get("required", {}):
            slot["shape"] = 7  # a ring: may be left free
        given = node.given.get(name)
        if isinstance(given, Output):
            links.append([len(links) + 1, given.node.id, given.slot, node.id, len(slots), given.kind])
            slot["link"] = len(links)
        slots.append(slot)
        if any(options.get(upload) for upload in UPLOADS):
            slots.append({"name": "upload", "type": "IMAGEUPLOAD", "widget": {"name": "upload"}, "link": None})
    return slots


def canvas_node(node: Node, order: int, inputs: list[dict[str, Any]], links: list[list[Any]]) -> dict[str, Any]:
    outputs = [
        {"name": name, "type": kind, "links": [link[0] for link in links if link[1:3] == [node.id, slot]]}
        for slot, (name, kind) in enumerate(zip(node.info["output_name"], node.info["output"], strict=True))
    ]
    properties: dict[str, Any] = {"Node name for S&R": node.kind}
    if node.models:
        properties["models"] = list(node.models)
    return {
        "id": node.id, "type": node.kind, "title": node.title, "pos": node.box.pos, "size": node.box.size, "flags": {},
        "order": order, "mode": 0, "inputs": inputs, "outputs": outputs, "properties": properties,
        "widgets_values": node.widget_values(),
    }  # fmt: skip


def canvas_note(note: Note, order: int) -> dict[str, Any]:
    return {
        "id": note.id, "type": NOTE, "title": note.title, "pos": note.box.pos, "size": note.box.size, "flags": {},
        "order": order, "mode": 0, "inputs": [], "outputs": [], "properties": {}, "widgets_values": [note.text], **NOTE_COLOURS,
    }  # fmt: skip
