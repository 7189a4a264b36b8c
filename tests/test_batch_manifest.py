"""Manifests, values, names and plans of `flow3d batch`, and every problem of them told at once."""

import csv
import json
import re
from pathlib import Path, PurePosixPath

import pytest
from toy_comfy import INPUTS, PAINT, PROMPT

from comfyui_flow3d.batch.manifest import read_manifest
from comfyui_flow3d.batch.names import DEFAULT, Template, apart, file_fields
from comfyui_flow3d.batch.plan import Job, plan
from comfyui_flow3d.batch.values import LocalFile, convert
from comfyui_flow3d.batch.workflow import Target, map_columns, read_workflow
from comfyui_flow3d.flow3d.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def manifest(folder: Path, text: str, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(error: pytest.ExceptionInfo[InputError]) -> list[str]:
    return [line.strip() for line in str(error.value).splitlines()[1:]]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_programs_write_it(tmp_path: Path, delimiter: str) -> None:
    """With a byte order mark, quotes, a newline in a cell, an empty row and Windows's line ends, written by Python's csv."""
    rows = [["id", "A.text", "B.x"], ["one", 'he said "a, b; c"\nand went', "1"], ["", "", ""], ["two", "", "2.5"]]
    path = tmp_path / "m.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    read = read_manifest(path)
    assert read.columns == ("id", "A.text", "B.x")
    assert [(r.number, r.id, r.values) for r in read.rows] == [
        (1, "one", {"id": "one", "A.text": 'he said "a, b; c"\nand went', "B.x": "1"}),
        (2, "two", {"id": "two", "B.x": "2.5"}),
    ]


def test_jsonl_keeps_types(tmp_path: Path) -> None:
    rows = [{"A.x": 1, "A.y": 2.5, "A.on": True}, {"id": 7, "A.text": "ü", "A.x": None}]
    read = read_manifest(manifest(tmp_path, "\n".join(map(json.dumps, rows)) + "\n\n", "m.jsonl"))
    assert [r.values for r in read.rows] == [rows[0], {"id": 7, "A.text": "ü"}]
    assert [r.id for r in read.rows] == ["1", "7"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.csv", "id,id,\na,b,c,d\n", ["column 3 has no heading", "two columns are headed 'id'", "row 1: 4 cells under 3 headings"]),
        ("m.csv", "id\na\nA\n", ["row 2: the id 'A' is that of row 1 too"]),
        ("m.csv", "id\n", ["there is no row"]),
        ("m.csv", "", ["there is no row"]),
        ("m.csv", 'id\n"a\n', ["not a CSV table"]),
        ("m.jsonl", '{"A.x": [1, 2]}\n[]\n{', ["row 1: A.x is [1, 2]", "row 2: not an object", "row 3: not JSON"]),
    ],
)
def test_every_problem_of_a_manifest_is_told(tmp_path: Path, name: str, text: str, told: list[str]) -> None:
    with pytest.raises(InputError) as error:
        read_manifest(manifest(tmp_path, text, name))
    got = problems(error)
    assert all(any(t in p for p in got) for t in told), got


@pytest.mark.parametrize("data", [b"id\n\xff\xfe", None])
def test_a_manifest_that_is_no_text_or_not_there(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "m.csv").write_bytes(data)
    with pytest.raises(InputError):
        read_manifest(tmp_path / "m.csv")


def test_columns_find_nodes_by_title_display_name_and_id(tmp_path: Path) -> None:
    prompt = {
        "1": {"class_type": "Paint", "inputs": dict(INPUTS), "_meta": {"title": "Mr. Blue"}},
        "2": {"class_type": "Paint", "inputs": dict(INPUTS)},
        "3": {"class_type": "Paint", "inputs": dict(INPUTS), "_meta": {"title": "Twin"}},
        "4": {"class_type": "Paint", "inputs": dict(INPUTS), "_meta": {"title": "Twin"}},
    }
    told: list[str] = []
    found = map_columns(prompt, ("id", "remark", "Mr. Blue.gain", "Paint It.color", "4.text"), PAINT, told)
    assert not told
    assert found == {"Mr. Blue.gain": Target("1", "gain"), "Paint It.color": Target("2", "color"), "4.text": Target("4", "text")}
    map_columns(prompt, ("Twin.text", "Mr. Blue.nothing", "Nobody.x", "2.on", "Paint It.on"), PAINT, told)
    assert "say '3.text' or '4.text'" in told[0] and "has the inputs color, gain" in told[1]
    assert "no node is called 'Nobody'" in told[2] and "set the same input" in told[3]


@pytest.mark.parametrize(
    ("value", "spec", "made"),
    [
        ("3", ["INT", {"min": 0, "max": 5}], 3),
        (3.0, ["INT", {}], 3),
        ("0.25", ["FLOAT", {"min": 0, "max": 1}], 0.25),
        ("TRUE", ["BOOLEAN", {}], True),
        (False, ["BOOLEAN", {}], False),
        (7, ["STRING", {}], "7"),
        ("2", [[1, 2], {}], 2),
        ("b", ["COMBO", {"options": ["a", "b"]}], "b"),
    ],
)
def test_cells_become_values(tmp_path: Path, value: object, spec: list, made: object) -> None:
    got = convert(value, spec, tmp_path)
    assert got == made and type(got) is type(made)


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        ("6", ["INT", {"max": 5}]), ("1.5", ["INT", {}]), (True, ["INT", {}]), ("nan", ["FLOAT", {}]), ("inf", ["FLOAT", {}]),
        ("1e999", ["FLOAT", {}]), ("x", ["FLOAT", {}]), ("perhaps", ["BOOLEAN", {}]), ("c", [["a", "b"], {}]), ("m", ["MODEL"]),
        ("gone.png", [["there.png"], {"image_upload": True}]), ("@gone.bin", ["STRING", {}]), (float("inf"), ["INT", {}]),
    ],
)  # fmt: skip
def test_cells_that_fit_no_input(tmp_path: Path, value: object, spec: list) -> None:
    with pytest.raises(ValueError):
        convert(value, spec, tmp_path)


def test_files_beside_the_manifest_are_uploads(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(b"x")
    upload = [["there.png"], {"image_upload": True}]
    assert convert("face.png", upload, tmp_path) == LocalFile(tmp_path / "face.png")
    assert convert("there.png", upload, tmp_path) == "there.png"
    assert convert("@face.png", ["STRING", {}], tmp_path) == LocalFile(tmp_path / "face.png")
    assert convert("face.png", ["STRING", {}], tmp_path) == "face.png"


def path_of(text: str, **fields: object) -> str:
    columns = tuple(fields)
    return Template.parse(text, columns).path(fields | {"ext": ".png"}).as_posix()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "fields", "made"),
    [
        ("{id}{ext}", {"id": "a"}, "a.png"),
        ("{row:04}/{who}{ext}", {"row": 7, "who": "Ann"}, "0007/Ann.png"),
        ("{FLAME Edit.yaw:.1f}{ext}", {"FLAME Edit.yaw": 12.0}, "12.0.png"),
        ("{id}{ext}", {"id": "../../etc/passwd"}, ".._.._etc_passwd.png"),
        ("{id}/x{ext}", {"id": ".."}, "_/x.png"),
        ("{id}/x{ext}", {"id": ""}, "_/x.png"),
        ("{id}{ext}", {"id": "C:\\x\0y\nz"}, "C__x_y_z.png"),
        ("{id}{ext}", {"id": "nul"}, "_nul.png"),
        ("{id}", {"id": "dots... "}, "dots"),
        ("{{{id}}}{ext}", {"id": "a"}, "{a}.png"),
    ],
)
def test_names(text: str, fields: dict, made: str) -> None:
    assert path_of(text, **fields) == made


def test_no_value_leads_out_of_the_folder(tmp_path: Path) -> None:
    """Every text of up to four of the characters that mean something in paths."""
    from itertools import product

    for length in range(5):
        for letters in product("./\\:~ \0a", repeat=length):
            value = "".join(letters)
            made = path_of("{id}/{name}{ext}", id=value, name=value)
            parts = made.split("/")
            assert len(parts) == 2 and not {"", ".", ".."} & set(parts) and not re.search(r'[\\:\0]', made), value
            assert not any(part.endswith((".", " ")) for part in parts)


def test_a_long_value_still_makes_a_name() -> None:
    assert len(path_of("{id}{ext}", id="x" * 5000)) < 200 and path_of("{id}{ext}", id="x" * 5000).endswith(".png")


@pytest.mark.parametrize("text", ["", "/{id}", "../{id}", "a//b", "a\\b", "{id", "{unknown}", "{id.__class__}", "{id[0]}", "{}", "C:{id}", "{row:{id}}"])
def test_templates_that_name_no_file_inside(text: str) -> None:
    with pytest.raises(InputError):
        Template.parse(text, ("id",))


@pytest.mark.parametrize(
    ("told", "name", "ext"),
    [("a.PNG", "a", ".png"), ("../x/b.tar.gz", "b.tar", ".gz"), ("c:\\d.e f", "d.e f", ""), ("none", "none", ""), (".png", "", ".png")],
)
def test_the_servers_file_names_are_text(told: str, name: str, ext: str) -> None:
    assert file_fields(told, "Save", 1) == {"node": "Save", "index": 1, "name": name, "ext": ext}


def test_files_of_one_name_are_kept_apart() -> None:
    owners: dict[str, str] = {}
    own = set[str]()
    first = [apart(PurePosixPath("x.png"), "a", owners, own) for _ in range(3)]
    assert [p.name for p in first] == ["x.png", "x_2.png", "x_3.png"]
    assert apart(PurePosixPath("X.png"), "b", owners, set()).name == "X_4.png"
    assert apart(PurePosixPath("x.png"), "a", owners, set()).name == "x.png"  # done again, it replaces its own


def jobs(folder: Path, text: str, names: str = DEFAULT) -> list[Job]:
    table = read_manifest(manifest(folder, text))
    return plan(PROMPT, table, Template.parse(names, table.columns), {"s": PAINT})


def test_a_plan_fills_the_workflow(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(b"x")
    made = jobs(tmp_path, "id,Paint It.color,1.image,remark\na,5,face.png,hello\nb,,,\n")
    assert made[0].prompt["1"]["inputs"] == {**INPUTS, "color": 5}
    assert made[0].uploads == ((Target("1", "image"), tmp_path / "face.png"),)
    assert made[0].fields["remark"] == "hello" and made[1].prompt == PROMPT and made[1].uploads == ()
    assert PROMPT["1"]["inputs"] == INPUTS  # untouched


def test_a_key_changes_with_what_changes_the_result(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(b"x")
    text = "id,1.color,1.image\na,5,face.png\n"
    key = jobs(tmp_path, text)[0].key
    assert jobs(tmp_path, text)[0].key == key
    assert jobs(tmp_path, text.replace("5", "6"))[0].key != key
    (tmp_path / "face.png").write_bytes(b"longer")
    assert jobs(tmp_path, text)[0].key != key


def test_all_problems_of_a_plan_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        jobs(tmp_path, "1.color,1.gain,1.mode,No.x,1.model\n2000,0,plain,1,m\n1,nan,italic,1,\n", "same{ext}")
    got = problems(error)
    told = ["no node is called 'No'", "row 1: 1.color is 2000", "takes a link (MODEL)", "row 2: 1.gain", "row 2: 1.mode is 'italic'", "row 2: its files"]
    assert all(any(t in p for p in got) for t in told) and len(got) == len(told), got


def test_a_workflow_the_server_cannot_run(tmp_path: Path) -> None:
    prompt = {
        "1": {"class_type": "Paint", "inputs": {k: v for k, v in INPUTS.items() if k != "gain"} | {"text": ["9", 0]}},
        "2": {"class_type": "Absent", "inputs": {}},
    }
    table = read_manifest(manifest(tmp_path, "id\na\n"))
    with pytest.raises(InputError) as error:
        plan(prompt, table, Template.parse(DEFAULT, table.columns), {"s": PAINT})
    assert problems(error) == [
        "the node 'Absent' is not installed",
        "Paint It (node 1) misses its input 'gain'",
        "Paint It (node 1): 'text' is linked to a node that is not there",
    ]


def test_workflows_in_other_forms_are_refused(tmp_path: Path) -> None:
    canvas = next(p for p in (ROOT / "workflows").glob("*.json"))
    with pytest.raises(InputError, match=re.escape("Export (API)")):
        read_workflow(canvas)
    assert read_workflow(ROOT / "workflows" / "api" / canvas.name)
    for text in ("{", "[]", "{}", '{"1": 5}', '{"1": {"class_type": "A", "inputs": []}}'):
        with pytest.raises(InputError):
            read_workflow(manifest(tmp_path, text, "w.json"))
