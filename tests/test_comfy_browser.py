"""The pack by hand on ComfyUI's page in a browser: templates, search, library, upload, run, a slider, an error, cancel.

Pictures of every step go to the folder that FLOW3D_SCREENSHOTS names, or to output/screenshots.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from busy import second
from comfy_page import PAGE_LIMIT, NoBrowserError, asked, browser, open_page, press, screenshot, until
from PIL import Image

if TYPE_CHECKING:
    from comfy_server import Server

TEMPLATE = "flow_warp_preview"
CARDS = "[data-testid^='template-workflow-']"
FRAMES, LONG = 16, 240  # of the driver, and of one that there is time to cancel
RUN_LIMIT = 300.0  # seconds
ENDS = ("execution_success", "execution_error", "execution_interrupted")

RECORDER = """
    window.told = []
    const tell = (kind, detail, at) => window.told.push({ kind, detail: detail ?? null, at: performance.timeOrigin + at })
    for (const kind of ['execution_cached', 'executing', 'progress_state', 'execution_success', 'execution_error',
            'execution_interrupted'])
        app.api.addEventListener(kind, (e) => tell(kind, e.detail, performance.now()))
    document.addEventListener('click', (e) => tell('click', e.target.closest('button')?.ariaLabel, e.timeStamp), true)
    const click = HTMLInputElement.prototype.click
    HTMLInputElement.prototype.click = function () { // a headless browser has no file dialog: the input waits in the page
        if (this.type !== 'file') return click.call(this)
        document.body.append(this)
        window.asksForFile = this
    }
"""
"""Notes what the server tells the page and what is clicked, with milliseconds since 1970; shows file inputs instead of a dialog."""

PLACE = """
    const n = app.graph._nodes.find((n) => n.title === given[0]), w = n.widgets.find((w) => w.name === given[1])
    if (w?.last_y == null) return null // not drawn yet
    const { ds, canvas } = app.canvas, box = canvas.getBoundingClientRect()
    const [x, y] = ds.convertOffsetToCanvas([n.pos[0] + n.size[0] / 2, n.pos[1] + w.last_y + 10])
    return [x - box.width / 2, y - box.height / 2]
"""
"""Pixels from the canvas's middle to that of a widget, once it is drawn on it."""

ALL_OF_IT = """
    const { ds, canvas } = app.canvas, box = canvas.getBoundingClientRect(), margin = 56 // where the page has its bars
    const parts = [...app.graph._nodes, ...app.graph._groups].map((n) => [...n.pos, n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
    const low = [0, 1].map((i) => Math.min(...parts.map((p) => p[i]))), high = [2, 3].map((i) => Math.max(...parts.map((p) => p[i])))
    const room = [box.width - 1.5 * margin, box.height - 2.5 * margin], wide = high.map((h, i) => h - low[i])
    ds.scale = Math.min(...room.map((r, i) => r / wide[i]))
    ds.offset = [margin / ds.scale - low[0], 1.5 * margin / ds.scale - low[1]]
    app.canvas.setDirty(true, true)
    await new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))
"""
"""Shows the whole workflow as large as it goes."""

VIDEO = """
    const video = app.graph._nodes.find((n) => n.title === 'Save Video').videoContainer?.querySelector('video')
    return video?.readyState >= 2 && video.getBoundingClientRect().height > 50 ? video : null
"""
"""Save Video's, once it has a picture and its place."""

CANCEL_AT = """
    const [node, steps] = given, button = document.querySelector("button[aria-label='Cancel current run']")
    const hear = ({ detail }) => {
        const state = detail.nodes[node]
        if (state?.state !== 'running' || state.max < 2 || state.value <= steps || button.disabled) return
        app.api.removeEventListener('progress_state', hear)
        button.click()
    }
    app.api.addEventListener('progress_state', hear)
"""
"""Presses the page's own Cancel button at once when a node comes so far: a click from outside comes too late on a busy machine."""

ID = "return String(app.graph._nodes.find((n) => n.title === given[0]).id)"


@pytest.fixture(scope="module")
def page(server: "Server", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    for setting, value in (("TutorialCompleted", b"true"), ("Minimap.Visible", b"false")):
        server.raw(f"/settings/Comfy.{setting}", value)
    try:
        with browser(tmp_path_factory.mktemp("profile"), 1920, 1200) as opened:
            open_page(opened, server.url)
            asked(opened, RECORDER)
            yield opened
    except NoBrowserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed: use `python run.py test`")
    file = tmp_path_factory.mktemp("browser") / "portrait.png"
    Image.fromarray(data.astronaut()).save(file)
    return file


@pytest.fixture(scope="module")
def driver(server: "Server", portrait: Path, face_landmarker: Path) -> Path:
    """A clip of a face that turns: the portrait itself, with a bundled motion."""

    def node(kind: str, **inputs: object) -> dict:
        return {"class_type": kind, "inputs": inputs}

    encode = {"size": 64, "samples": 1, "delta": 0.01, "near": 0.65, "far": 1.25, "preview_frames": 1}
    run = server.run(
        {
            "1": node("LoadImage", image=server.upload(portrait)),
            "2": node("Flow3DLoadHeadModel", name="open head"),
            "3": node("Flow3DFLAMEFit", head=["2", 0], image=["1", 0], fps=25.0, field_of_view=25.0, min_confidence=0.3,
                      missing_frames="fail", overlay_frames=1),
            "4": node("Flow3DLoadHeadTrack", track="motion: turn"),
            "5": node("Flow3DFLAMETime", track=["4", 0], start=0, frames=FRAMES, speed=1.0, fps=0.0, direction="forward",
                      loop_frames=0),
            "6": node("Flow3DFLAMERetarget", source=["3", 0], driver=["5", 0], mode="relative", expression=True, jaw=True,
                      pose=True, eyes=True, translation=True),
            "7": node("Flow3DFlowEncode", head=["2", 0], source=["3", 0], target=["6", 0], **encode),
            "8": node("Flow3DFlowWarpVideo", image=["1", 0], field=["7", 0]),
            "9": node("SaveVideo", video=["8", 0], filename_prefix="browser/turning", format="mp4", codec="h264"),
        }
    )  # fmt: skip
    assert run.error is None
    shown = server.outputs(run)["9"]["images"][0]
    return server.base / "output" / shown["subfolder"] / shown["filename"]


@pytest.fixture(scope="module")
def canvas(page: Any, portrait: Path, driver: Path) -> Any:
    """The page with the template on its canvas, and portrait and driver uploaded by its own buttons."""
    open_templates(page)
    press(page, "our template", f"//*[@data-testid='template-workflow-{TEMPLATE}']")
    loaded = "return app.graph._nodes.filter((n) => n.type.startsWith('Flow3D')).length > 5"
    until("the workflow", PAGE_LIMIT, lambda: page.execute_script(loaded))
    asked(page, ALL_OF_IT)
    uploaded(page, "Portrait", portrait)
    uploaded(page, "Driver", driver)
    screenshot(page, "browser_3_uploaded")
    return page


def open_templates(page: Any) -> None:
    press(page, "the template browser", "//button[@aria-label='Templates']")
    press(page, "our pack's templates", "//li[normalize-space(.)='flow3d']")


def click_widget(page: Any, title: str, widget: str) -> None:
    from selenium.webdriver import ActionChains

    place = map(round, until(f"{widget} of {title}", PAGE_LIMIT, lambda: asked(page, PLACE, title, widget)))
    ActionChains(page).move_to_element_with_offset(page.find_element("id", "graph-canvas"), *place).click().perform()


def uploaded(page: Any, title: str, file: Path) -> None:
    """Press a node's upload button, give it the file, and wait until the node shows its name."""
    page.execute_script("window.asksForFile = null")
    click_widget(page, title, "upload")
    until("the file input", PAGE_LIMIT, lambda: page.execute_script("return window.asksForFile")).send_keys(str(file))
    name = "return app.graph._nodes.find((n) => n.title === given[0]).widgets[0].value"
    until(f"the upload of {file.name}", PAGE_LIMIT, lambda: asked(page, name, title) == file.name)
    page.execute_script("window.asksForFile.remove()")


def told(page: Any, kind: str) -> list[dict]:
    return page.execute_script("return window.told.filter((e) => e.kind === arguments[0])", kind)


def press_run(page: Any) -> None:
    page.execute_script("window.told.length = 0")
    press(page, "Run", "//button[normalize-space(.)='Run']")


def ended(page: Any) -> dict:
    """The event that a run ended with."""
    script = "return window.told.find((e) => arguments[0].includes(e.kind)) ?? null"
    return until("the end of the run", RUN_LIMIT, lambda: page.execute_script(script, ENDS))


def run(page: Any) -> dict:
    press_run(page)
    return ended(page)


def executed(page: Any) -> set[str]:
    """Ids of the nodes that ran."""
    return {e["detail"] for e in told(page, "executing") if e["detail"]}


def source(page: Any) -> str | None:
    """The address of the video that Save Video shows."""
    return page.execute_script("return arguments[0]?.src ?? null", page.execute_script(VIDEO))


def node_id(page: Any, title: str) -> str:
    return asked(page, ID, title)


def cancelled(page: Any, node: str, steps: int) -> float:
    """Run, and press Cancel once a node has done more than so many steps: seconds from the click until the server stopped."""
    press_run(page)
    asked(page, CANCEL_AT, node, steps)
    end = ended(page)
    assert (end["kind"], end["detail"].get("node_id")) == ("execution_interrupted", node), end
    click = next(e for e in told(page, "click") if e["detail"] == "Cancel current run")
    return (end["detail"]["timestamp"] - click["at"]) / 1000


def test_templates_with_pictures(server: "Server", page: Any) -> None:
    names = server.get("/workflow_templates")["flow3d"]
    assert TEMPLATE in names
    open_templates(page)
    wide = "return document.querySelector(`[data-testid='template-workflow-${arguments[0]}'] img`)?.naturalWidth ?? 0"
    for name in names:
        card = f"[data-testid='template-workflow-{name}']"
        until(f"the card of {name}", PAGE_LIMIT, lambda c=card: page.find_elements("css selector", c))
        page.execute_script("document.querySelector(arguments[0]).scrollIntoView({ block: 'center' })", card)
        until(f"the picture of {name}", PAGE_LIMIT, lambda n=name: page.execute_script(wide, n) > 0)
    page.execute_script("document.querySelector(arguments[0]).scrollIntoView({ block: 'center' })", CARDS)
    drawn = "return [...document.querySelectorAll(arguments[0])].slice(0, 4).every((c) => c.querySelector('img')?.naturalWidth > 0)"
    until("the first pictures again", PAGE_LIMIT, lambda: page.execute_script(drawn, CARDS))
    screenshot(page, "browser_1_templates")
    press(page, "the close button", "//button[contains(@class, 'p-dialog-close-button')]")
    gone = "return !document.querySelector('.p-dialog-mask')"
    until("the template browser to close", PAGE_LIMIT, lambda: page.execute_script(gone))


def test_search_and_library(server: "Server", page: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    page.execute_script("app.graph.clear()")
    sheet = page.find_element("id", "graph-canvas")
    ActionChains(page).move_to_element_with_offset(sheet, 200, -300).double_click().perform()
    field = until("the search", PAGE_LIMIT, lambda: page.find_elements("css selector", ".comfy-vue-node-search-box input"))[0]
    found = "return [...document.querySelectorAll('.p-autocomplete-option')].map((o) => o.innerText.split('\\n')[0].trim())"
    field.send_keys("flow3d")
    known = server.get("/object_info").values()
    ours = {n["display_name"] for n in known if n["python_module"] == "custom_nodes.flow3d"}
    assert {"FLAME Fit", "FLAME Edit", "3D Flow Encode", "Flow Warp Preview"} <= ours
    until("all our nodes, and no others", PAGE_LIMIT, lambda: set(page.execute_script(found)) == ours)
    screenshot(page, "browser_2_search")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("FLAME Fit")
    option = "//li[contains(@class, 'p-autocomplete-option')][starts-with(normalize-space(.), 'FLAME Fit')]"
    until("FLAME Fit alone", PAGE_LIMIT, lambda: page.execute_script(found) == ["FLAME Fit"])
    press(page, "what is found", option)
    kinds = "return app.graph._nodes.map((n) => n.type)"
    until("the node", PAGE_LIMIT, lambda: page.execute_script(kinds) == ["Flow3DFLAMEFit"])

    library = "//button[starts-with(@aria-label, 'Node Library')]"
    press(page, "the library's button", library)
    search = "return document.querySelector('.side-bar-panel .search-box-input, .sidebar-content-container .search-box-input')"
    until("the node library", PAGE_LIMIT, lambda: page.execute_script(search)).send_keys("FLAME Edit")
    leaf = "//li[@aria-label='FLAME Edit']//*[@draggable='true']"
    entry = until("FLAME Edit in the library", PAGE_LIMIT, lambda: page.find_elements("xpath", leaf))[0]
    ActionChains(page).move_to_element(entry).click_and_hold().move_to_element_with_offset(sheet, -400, -400).release().perform()
    until("the dragged node", PAGE_LIMIT, lambda: page.execute_script(kinds) == ["Flow3DFLAMEFit", "Flow3DFLAMEEdit"])
    until("its live head", PAGE_LIMIT, lambda: page.execute_script("return !!app.graph._nodes[1].flow3dLive?.points"))
    asked(page, "app.graph._nodes[1].flow3dLive.tick(performance.now())")
    screenshot(page, "browser_2_search_and_library")
    press(page, "the library's button", library)


def test_uploaded_files_become_a_video_that_plays(canvas: Any) -> None:
    from selenium.webdriver import ActionChains

    assert run(canvas)["kind"] == "execution_success"
    assert {node_id(canvas, t) for t in ("Portrait Fit", "Driver Fit", "FLAME Edit", "Flow Warp Preview")} <= executed(canvas)
    video = until("the video", PAGE_LIMIT, lambda: canvas.execute_script(VIDEO))
    width, height, duration = canvas.execute_script("const v = arguments[0]; return [v.videoWidth, v.videoHeight, v.duration]", video)
    assert (width, height) == (512, 512) and duration == pytest.approx(FRAMES / 25, abs=0.05)
    shown = canvas.execute_script("const n = app.graph._nodes.find((n) => n.flow3dLive); return n.flow3dLive.track?.frames")
    assert shown == FRAMES, "FLAME Edit shows the portrait's own head"
    times: set[float] = set()

    def plays() -> bool:
        paused, now = canvas.execute_script("const v = arguments[0]; return [v.paused, v.currentTime]", video)
        if paused:
            ActionChains(canvas).move_to_element(video).click().perform()
        else:
            times.add(now)
        return len(times) > 3

    until("time to pass in the video", PAGE_LIMIT, plays)
    canvas.execute_script("app.canvas.deselectAll()")
    asked(canvas, "app.graph._nodes.find((n) => n.flow3dLive).flow3dLive.tick(performance.now())")
    assert np.asarray(Image.open(screenshot(canvas, "browser_3_video")).convert("L")).std() > 10


def test_a_slider_runs_only_what_follows(canvas: Any) -> None:
    from selenium.webdriver import ActionChains

    assert run(canvas)["kind"] == "execution_success"
    slider = canvas.find_element("css selector", ".f3d-rows input[aria-label='yaw']")
    ActionChains(canvas).move_to_element(slider).click_and_hold().move_by_offset(round(slider.size["width"] / 8), 0).release().perform()
    yaw = asked(canvas, "return app.graph._nodes.find((n) => n.title === 'FLAME Edit').widgets.find((w) => w.name === 'yaw').value")
    assert 5 < yaw < 50
    before = until("the first video", PAGE_LIMIT, lambda: source(canvas))
    assert run(canvas)["kind"] == "execution_success"
    kept = {node_id(canvas, t) for t in ("Portrait", "Driver", "Portrait Fit", "Driver Fit", "FLAME Retarget")}
    follow = {node_id(canvas, t) for t in ("FLAME Edit", "3D Flow Encode", "Flow Warp Preview", "Save Video")}
    (cached,) = told(canvas, "execution_cached")
    assert kept <= set(cached["detail"]["nodes"]) and not follow & set(cached["detail"]["nodes"])
    assert follow <= executed(canvas) and not kept & executed(canvas)
    until("the new video", PAGE_LIMIT, lambda: source(canvas) not in (None, before))
    canvas.execute_script("app.canvas.deselectAll()")
    asked(canvas, "app.graph._nodes.find((n) => n.flow3dLive).flow3dLive.tick(performance.now())")
    screenshot(canvas, "browser_4_slider")


def test_a_missing_face_is_told(canvas: Any, portrait: Path, tmp_path: Path) -> None:
    Image.new("RGB", (400, 300), (120, 140, 160)).save(tmp_path / "wall.png")
    uploaded(canvas, "Portrait", tmp_path / "wall.png")
    try:
        assert run(canvas)["kind"] == "execution_error"
        dialog = "return [...document.querySelectorAll('[role=dialog]')].map((d) => d.innerText).join()"
        said = until("the error", PAGE_LIMIT, lambda: canvas.execute_script(dialog))
        assert "FLAME Fit: no face in the picture" in said and "Lower 'min confidence'" in said
        screenshot(canvas, "browser_5_error")
        press(canvas, "the close button", "//button[contains(@class, 'p-dialog-close-button')]")
        marked = "return app.graph._nodes.filter((n) => n.strokeStyles?.executionError?.call(n)).map((n) => n.title)"
        assert canvas.execute_script(marked) == ["Portrait Fit"]
        gone = "return !document.querySelector('.p-dialog-mask')"
        until("the dialog to close", PAGE_LIMIT, lambda: canvas.execute_script(gone))
        screenshot(canvas, "browser_5_error_at_the_node")
    finally:
        uploaded(canvas, "Portrait", portrait)


def test_cancel_stops_within_a_second(canvas: Any, driver: Path, tmp_path: Path, record_property: Callable) -> None:
    """The warp; what comes after runs as ever; and the fit of a long clip while it looks for faces."""
    fit, warp = node_id(canvas, "Driver Fit"), node_id(canvas, "Flow Warp Preview")
    took = {"Flow Warp Preview": cancelled(canvas, warp, 1)}
    screenshot(canvas, "browser_6_cancelled_warp")
    assert run(canvas)["kind"] == "execution_success"
    uploaded(canvas, "Driver", repeated(driver, tmp_path / "long.mp4"))
    took["FLAME Fit"] = cancelled(canvas, fit, 5)
    screenshot(canvas, "browser_6_cancelled_fit")
    for stage, seconds in took.items():
        record_property(f"{stage}: seconds from click to stop", round(seconds, 2))
        assert seconds < second(), took


def repeated(clip: Path, file: Path) -> Path:
    """LONG frames: the clip over and over."""
    with av.open(str(clip)) as source, av.open(str(file), "w") as made:
        frames = [f.to_ndarray(format="rgb24") for f in source.decode(video=0)]
        stream = made.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for i in range(LONG):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(frames[i % len(frames)])))
        made.mux(stream.encode())
    return file


def test_the_page_complains_of_nothing(canvas: Any) -> None:
    severe = [e["message"] for e in canvas.get_log("browser") if e["level"] == "SEVERE" and "flow3d" in e["message"].lower()]
    assert not severe
