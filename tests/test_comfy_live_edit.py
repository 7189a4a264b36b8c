"""FLAME Edit's live head on ComfyUI's page in a browser: its vertices against Python's, and a hand that drags and clicks."""

import base64
import io
import json
import urllib.error
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from comfy_page import NoBrowserError, asked, browser, open_page, screenshot
from PIL import Image

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.edit import edit_track
from comfyui_flow3d.flow3d.head.files import save_head
from comfyui_flow3d.flow3d.head.load import load_head
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.tracks import load_track, save_track
from comfyui_flow3d.flow3d.track import HeadTrack

if TYPE_CHECKING:
    from comfy_server import Server

NEAR = 1e-4  # metres: what the page may differ by
EDITS: tuple[dict[str, float], ...] = (
    {},
    {"yaw": 25.0, "pitch": -12.5, "roll": 8.0, "x": 3.0, "y": -2.0, "z": 10.0},
    {"gazeYaw": 20.0, "gazePitch": 18.0, "gazeYawLeft": -12.0, "gazePitchRight": 9.0},
    {"gazePitch": -31.0, "gazePitchLeft": -4.0, "blink": 0.3},
    {"jawOpen": 0.8, "smile": 1.0, "browUp": 1.0, "pucker": 0.4},
    {"smile": -0.6, "mouthCorners": -0.7, "brows": -0.8, "eyelidsLeft": 0.9, "eyelidsRight": -0.5},
    {"jawOpen": 0.2, "mouthClose": 0.9, "mouthSide": -0.6, "jawSide": 0.5, "tongueOut": 0.4},
    {"neutralise": 0.7, "yaw": -5.0},
    {"expressionGain": 1.8, "jawGain": 0.3, "gazeGain": -1.5, "poseGain": 2.5, "smile": 0.4},
    {"neutralise": 1.0, "jawGain": 2.0, "gazePitch": 7.0, "eyelids": -0.4, "eyeLookUpLeft": 0.6},
)


def node(kind: str, **inputs: object) -> dict:
    return {"class_type": f"Flow3D{kind}", "inputs": inputs}


def portrait(head: HeadModel, frames: int = 1) -> HeadTrack:
    """Somebody as a fit leaves them: a shape, an expression that is not at rest, offsets, turned neck, jaw and eyes."""
    g = torch.Generator().manual_seed(7)

    def r(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    weights = 0.3 * r(frames, head.n_expression)
    return HeadTrack(
        shape=0.6 * r(head.n_shape), expression=weights.clamp(-0.05, 1.1) if head.expression_names else weights,
        joints=0.12 * r(frames, head.n_joints - 1, 3), rotation=0.2 * r(frames, 3),
        translation=torch.tensor([0.02, 0.15, 0.9]) + 0.02 * r(frames, 3), camera=Camera.from_field_of_view(512, 512),
        offsets=1e-3 * r(len(head.template), 3), landmark_offsets=1e-3 * r(frames, 478, 3), joint_names=head.joint_names,
        head_name=head.name, head_digest=head.digest,
    )  # fmt: skip


def natural(head: HeadModel) -> HeadTrack:
    """Somebody with the face of a photo, whose picture one may look at."""
    still = portrait(head)
    expression = torch.zeros_like(still.expression)
    smile = {"mouthSmileLeft": 0.45, "mouthSmileRight": 0.4, "cheekSquintLeft": 0.2, "cheekSquintRight": 0.2, "browInnerUp": 0.15}
    for name, value in smile.items():
        expression[:, head.expression_index(name)] = value
    turned = torch.tensor([[0.04, -0.12, 0.03]])
    return replace(
        still, expression=expression, rotation=turned, joints=0.2 * still.joints, offsets=0.1 * still.offsets, landmark_offsets=None
    )


@pytest.fixture(scope="module")
def page(server: "Server", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server.raw("/settings/Comfy.TutorialCompleted", b"true")
    try:
        with browser(tmp_path_factory.mktemp("profile"), 1300, 1250) as opened:
            open_page(opened, server.url)
            yield opened
    except NoBrowserError as error:
        pytest.skip(str(error))


PACKED = """
    const packed = (points) => new Promise((give) => {
        const reader = new FileReader()
        reader.onload = () => give(reader.result.split(',')[1])
        reader.readAsDataURL(new Blob([points]))
    })
"""


def unpacked(text: str) -> torch.Tensor:
    """(V, 3) from the page's float32 in base64."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(-1, 3).copy())


NEW_NODE = """
    app.graph.clear()
    const n = window.n = LiteGraph.createNode('Flow3DFLAMEEdit')
    n.pos = [40, 60]
    app.graph.add(n)
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [80, 0]
    app.canvas.setDirty(true, true)
    await n.flow3dLive.ready
    for (let i = 0; i < 200 && !n.flow3dLive.points; i++) await new Promise((r) => setTimeout(r, 50))
"""
"""One FLAME Edit on the canvas, drawn."""


def run_for_page(server: "Server", prompt: dict, edit: str) -> dict:
    run = server.run(prompt | {"save": node("SaveHeadTrack", track=[edit, 0], filename_prefix="live/made")})
    assert run.error is None
    return server.outputs(run)[edit]["flow3d_live"][0]


def farthest(page: Any, head: HeadModel, track: HeadTrack, told: dict, edits: tuple[dict[str, float], ...], frame: int) -> float:
    """Metres between the page's vertices and Python's, at most, over all edits."""
    theirs = asked(page, PACKED + """
        const live = window.n.flow3dLive
        await live.show(given[0])
        if (live.track?.track !== given[0].track) throw new Error(live.fault || 'the track is not shown')
        const all = []
        for (const values of JSON.parse(given[1])) all.push(await packed(await live.verticesFor(values, given[2])))
        return all
    """, told, json.dumps(edits), frame)  # fmt: skip
    worst = 0.0
    for values, points in zip(edits, theirs, strict=True):
        ours = edit_track(head, track, values).vertices(head, slice(frame, frame + 1))[0]
        worst = max(worst, float((ours - unpacked(points)).norm(dim=-1).max()))
    return worst


def test_a_portraits_vertices(server: "Server", page: Any, open_head: HeadModel) -> None:
    track = portrait(open_head)
    save_track(track, server.base / "input" / "live_portrait.safetensors")
    told = run_for_page(server, {"1": node("LoadHeadTrack", track="live_portrait.safetensors"), "2": edit_node("1")}, "2")
    asked(page, NEW_NODE)
    assert 1e-7 < farthest(page, open_head, track, told, EDITS, 0) < NEAR


def test_a_clips_vertices(server: "Server", page: Any, open_head: HeadModel) -> None:
    track = portrait(open_head, 4)
    save_track(track, server.base / "input" / "live_clip.safetensors")
    told = run_for_page(server, {"1": node("LoadHeadTrack", track="live_clip.safetensors"), "2": edit_node("1")}, "2")
    assert told["frames"] == 4
    asked(page, NEW_NODE)
    assert farthest(page, open_head, track, told, EDITS, 3) < NEAR


def test_a_nameless_head_with_correctives(server: "Server", page: Any, open_head: HeadModel) -> None:
    """As FLAME is: components without names, and a pose basis."""
    basis = 1e-3 * torch.randn(open_head.pose_basis.shape, generator=torch.Generator().manual_seed(3))
    folder = server.base / "models" / "flame"
    folder.mkdir(parents=True, exist_ok=True)
    save_head(replace(open_head, name="nameless", expression_names=(), pose_basis=basis), folder / "nameless.safetensors")
    head = load_head(folder / "nameless.safetensors")
    track = portrait(head)
    save_track(track, server.base / "input" / "live_nameless.safetensors")
    prompt = {
        "0": node("LoadHeadModel", name="nameless.safetensors"),
        "1": node("LoadHeadTrack", track="live_nameless.safetensors", head=["0", 0]),
        "2": edit_node("1", head=["0", 0]),
    }
    told = run_for_page(server, prompt, "2")
    assert told["head"] == head.digest
    asked(page, NEW_NODE)
    known = tuple({n: v for n, v in e.items() if n != "tongueOut"} for e in EDITS)
    assert farthest(page, head, track, told, known, 0) < NEAR


def edit_node(track: str, **changes: object) -> dict:
    first = ("yaw", "pitch", "roll", "x", "y", "z", "gazeYaw", "gazePitch", "jawOpen", "smile", "blink", "browUp")
    return node("FLAMEEdit", **(dict.fromkeys(first, 0.0) | {"track": [track, 0], "more": ""} | changes))


def test_by_hand(server: "Server", page: Any, open_head: HeadModel) -> None:
    """Drag, keys, a click on the mouth, the panel and keyframes: all end in widgets, and the run makes of them what was seen."""
    from selenium.webdriver import ActionChains, Keys

    save_track(natural(open_head), server.base / "input" / "live_natural.safetensors")
    told = run_for_page(server, {"1": node("LoadHeadTrack", track="live_natural.safetensors"), "2": edit_node("1")}, "2")
    asked(page, NEW_NODE + "await n.flow3dLive.show(given[0]); n.flow3dLive.tick(performance.now())", told)
    canvas = page.find_element("css selector", ".f3d-stage canvas")
    ActionChains(page).move_to_element(canvas).click_and_hold().move_by_offset(20, 0).move_by_offset(20, -20).release().perform()
    values = "return Object.fromEntries(n.widgets.filter((w) => w !== n.flow3dLive.widget).map((w) => [w.name, w.value]))"
    dragged = page.execute_script(values)
    assert dragged["yaw"] > 10 and dragged["pitch"] > 5
    canvas.send_keys(Keys.ARROW_LEFT)
    assert page.execute_script(values)["yaw"] == pytest.approx(dragged["yaw"] - 2, abs=1e-3)
    canvas.send_keys(Keys.HOME)
    assert [page.execute_script(values)[n] for n in ("yaw", "pitch", "roll")] == [0, 0, 0]

    where = asked(page, """
        n.flow3dLive.tick(performance.now()) // drawn now, however busy the machine is
        const live = n.flow3dLive, { head, lens } = live, at = [0, 0, 0]
        const box = live.stage.canvas.getBoundingClientRect(), all = live.points
        let total = 0
        for (let v = 0; v < all.length / 3; v++) { // the middle of what the head calls its lips
            const w = head.arrays.tint[3 * v] === 190 && head.arrays.tint[3 * v + 1] === 122 ? 1 : 0
            total += w; for (let i = 0; i < 3; i++) at[i] += w * all[3 * v + i]
        }
        const [x, y, z] = at.map((c) => c / total)
        return [(x / z - lens.x) * lens.scale / 2 * box.height, (y / z - lens.y) * lens.scale / 2 * box.height]
    """)  # fmt: skip
    ActionChains(page).move_to_element_with_offset(canvas, *map(round, where)).click().perform()
    asked(page, "n.flow3dLive.tick(performance.now())")
    assert page.find_element("css selector", ".f3d-tabs [aria-selected=true]").text == "Mouth"
    smile = page.find_element("css selector", ".f3d-rows input")
    smile.send_keys(*[Keys.ARROW_RIGHT] * 7)
    assert page.execute_script(values)["smile"] == pytest.approx(0.07, abs=1e-3)
    asked(page, """
        const live = n.flow3dLive, widget = (name) => n.widgets.find((w) => w.name === name)
        widget('smile').value = 0.6
        widget('gazeYaw').value = -14
        widget('neutralise').value = 0.5
        widget('more').value = 'squint=0.3, roll: 0: 0, 10: 12  # a note'
        live.setKey('smile')
        live.seek(24)
        widget('smile').value = -0.4
        live.setKey('smile')
        widget('keyframes').value += '\\nyaw: 3: -10, 9: 14, 20: 18, 24: -3 smooth'
        live.seek(12)
        live.tick(performance.now())
    """)  # fmt: skip
    made = page.execute_script(values)
    assert made["smile"] == 0 and made["keyframes"].startswith("smile: 0: 0.6, 24: 0.2 smooth")
    screenshot(page, "live_dark")
    points = unpacked(asked(page, PACKED + "return packed(n.flow3dLive.points)"))
    sent = asked(page, "return (await app.graphToPrompt()).output[n.id].inputs")
    assert "live" not in sent
    prompt = {"1": node("LoadHeadTrack", track="live_natural.safetensors"), "2": node("FLAMEEdit", **sent | {"track": ["1", 0]})}
    run = server.run(prompt | {"save": node("SaveHeadTrack", track=["2", 0], filename_prefix="live/hand")})
    assert run.error is None
    track = load_track(server.base / "output" / server.outputs(run)["save"]["text"][0])
    assert len(track) == 25
    assert (track.vertices(open_head, slice(12, 13))[0] - points).norm(dim=-1).max() < NEAR


def test_it_is_drawn(page: Any) -> None:
    """A face turned to one side is drawn, in both of the page's themes, and differs from the same face turned to the other."""
    drawn = NEW_NODE + """
        n.widgets.find((w) => w.name === 'yaw').value = given[0]
        n.flow3dLive.tick(performance.now())
        return n.flow3dLive.stage.canvas.toDataURL('image/png').split(',')[1]
    """  # fmt: skip
    pictures = []
    for yaw in (-35, 35):
        picture = Image.open(io.BytesIO(base64.b64decode(asked(page, drawn, yaw))))
        pictures.append(np.asarray(picture.convert("RGB"), dtype=float))
    left, right = pictures
    skin = (left[..., 0] > left[..., 2] + 15) & (left[..., 0] > 90)
    assert 0.08 < skin.mean() < 0.6
    assert np.abs(left - right).mean() > 4
    palette = """
        await app.extensionManager.setting.set('Comfy.ColorPalette', given[0])
        await new Promise((r) => setTimeout(r, 500))
    """
    asked(page, palette, "light")
    try:
        asked(page, drawn, -20)
        shown = screenshot(page, "live_light")
        assert np.asarray(Image.open(shown).convert("L")).mean() > 110
    finally:
        asked(page, palette, "dark")


def test_reload_and_undo_keep_the_values(page: Any) -> None:
    told = asked(page, NEW_NODE + """
        const set = (name, value) => { window.n.widgets.find((w) => w.name === name).value = value }
        const get = (name) => app.graph._nodes[0].widgets.find((w) => w.name === name).value
        const pause = () => new Promise((r) => setTimeout(r, 300))
        const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker
        tracker.checkState()
        set('yaw', 12); set('gazeGain', 0.5); set('keyframes', 'blink: 0: 0, 5: 1')
        n.flow3dLive.chosen = 'mouth'
        n.flow3dLive.changed(); await pause()
        set('yaw', 30)
        n.flow3dLive.changed(); await pause()
        await tracker.undo(); await pause()
        const undone = [get('yaw'), app.graph._nodes[0].flow3dLive.chosen]
        const saved = JSON.parse(JSON.stringify(app.graph.serialize()))
        await app.loadGraphData(saved); await pause()
        const again = app.graph._nodes[0]
        const names = again.widgets.filter((w) => w.serialize !== false).map((w) => w.name)
        return { undone, values: saved.nodes[0].widgets_values, names, live: !!again.flow3dLive,
            back: [get('yaw'), get('gazeGain'), get('keyframes')] }
    """)  # fmt: skip
    assert told["undone"] == [12, "mouth"] and told["back"] == [12, 0.5, "blink: 0: 0, 5: 1"] and told["live"]
    by_name = dict(zip(told["names"], told["values"], strict=True))
    assert (by_name["yaw"], by_name["gazeGain"]) == (12, 0.5), "a saved workflow has no hole where the live head is"


def test_many_nodes_share_a_context_and_free_it(page: Any) -> None:
    told = asked(page, """
        app.graph.clear()
        const { inUse } = await import('/extensions/flow3d/js/renderer.js')
        const none = inUse()
        for (let i = 0; i < 18; i++) {
            const node = LiteGraph.createNode('Flow3DFLAMEEdit')
            node.pos = [i * 200, 60]
            app.graph.add(node)
        }
        app.canvas.setDirty(true, true)
        const drawn = () => app.graph._nodes.filter((n) => n.flow3dLive.points).length
        for (let i = 0; i < 100 && drawn() < 4; i++) await new Promise((r) => setTimeout(r, 100))
        const some = inUse(), shown = drawn()
        for (const node of [...app.graph._nodes]) app.graph.remove(node)
        return [none, some, shown, inUse()]
    """)  # fmt: skip
    none, some, shown, after = told
    assert none["views"] == 0 and some == {"contexts": 1, "views": 18, "meshes": 1} and shown > 3
    assert after == {"contexts": 0, "views": 0, "meshes": 0}


def test_the_routes_refuse_what_is_not_there(server: "Server") -> None:
    digest = "ab" * 16
    for path in ("head/nobody", f"head/{digest}", "head/..%2F..%2Fsecret", f"track/{digest}/0", "track/..%2Fx/0", "track/%00/0"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.raw(f"/flow3d/live/{path}")
        assert refused.value.code == 404
    kept = next((server.base / "temp" / "flow3d_live").glob("*.track.safetensors")).name.split(".")[0]
    for frame in ("9999", "-1", "x", "1e9", "²"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.raw(f"/flow3d/live/track/{kept}/{urllib.parse.quote(frame)}")
        assert refused.value.code == 404


def test_a_head_is_two_megabytes_in_halves(server: "Server") -> None:
    packet = server.raw("/flow3d/live/head/open")
    header = json.loads(packet[8 : 8 + int.from_bytes(packet[:8], "little")])
    assert header["expression_basis"]["dtype"] == "F16" and len(packet) < 2.5e6


def test_plain_sliders_without_webgl(server: "Server", page: Any) -> None:
    script = page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": """
        const real = HTMLCanvasElement.prototype.getContext
        HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
            return kind.startsWith('webgl') ? null : real.call(this, kind, ...more)
        }
    """})  # fmt: skip
    page.execute_cdp_cmd("Page.reload", {})
    open_page(page, server.url)
    page.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    names = asked(page, """
        app.graph.clear()
        const n = LiteGraph.createNode('Flow3DFLAMEEdit')
        app.graph.add(n)
        await new Promise((r) => setTimeout(r, 300))
        return [n.widgets.map((w) => w.name), !!n.flow3dLive]
    """)  # fmt: skip
    assert names[0][0] == "yaw" and "live" not in names[0] and names[1] is False
