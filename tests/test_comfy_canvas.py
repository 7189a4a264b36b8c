"""The example workflow by hand: opened from the templates on ComfyUI's page in a browser, run, and its video watched."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from comfy_page import PAGE_LIMIT, NoBrowserError, clicked, open_page, until
from comfy_page import browser as open_browser
from PIL import Image

if TYPE_CHECKING:
    from .comfy_server import Server

RUN_LIMIT = 300  # seconds


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    try:
        with open_browser(tmp_path / "profile") as page:
            yield page
    except NoBrowserError as error:
        pytest.skip(str(error))


def small_clip(source: Path, path: Path) -> Path:
    """Eight frames in which a head turns."""
    with av.open(str(source)) as clip, av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=25)
        stream.width = stream.height = 512
        stream.pix_fmt = "yuv420p"
        for i, frame in enumerate(clip.decode(video=0)):
            if i % 12 == 0 and i < 96:
                made.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"))))
        made.mux(stream.encode())
    return path


def test_the_template_runs_on_the_canvas(
    server: "Server", browser: Any, test_data: Path, face_landmarker: Path, tmp_path: Path
) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed: use `python run.py test`")
    portrait = tmp_path / "canvas_portrait.png"
    Image.fromarray(data.astronaut()).save(portrait)
    names = server.upload(portrait), server.upload(small_clip(test_data / "drivers" / "d12.mp4", tmp_path / "canvas_clip.mp4"))
    server.raw("/settings/Comfy.TutorialCompleted", b"true")

    open_page(browser, server.url)
    until("the template browser", PAGE_LIMIT, lambda: clicked(browser, "//button[@aria-label='Templates']"))
    until("our pack's templates", PAGE_LIMIT, lambda: clicked(browser, "//li[normalize-space(.)='flow3d']"))
    until("our template", PAGE_LIMIT, lambda: clicked(browser, "//*[@data-testid='template-workflow-flow_warp_preview']"))
    nodes = "return window.app.graph._nodes.filter(n => n.type.startsWith('Flow3D')).length"
    until("the workflow", PAGE_LIMIT, lambda: browser.execute_script(nodes) == 7)

    choose = """
        for (const [type, name] of [['LoadImage', arguments[0]], ['LoadVideo', arguments[1]]]) {
            const widget = window.app.graph._nodes.find(n => n.type === type).widgets[0]
            widget.value = name
            widget.callback?.(name)
        }
        const red = window.app.graph._nodes.filter(n => !n.constructor.nodeData).map(n => n.type)
        return red.filter(t => t !== 'MarkdownNote' && t !== 'Note')
    """
    assert browser.execute_script(choose, *names) == [], "nodes that the page does not know"
    assert clicked(browser, "//button[normalize-space(.)='Run']")
    shown = """
        const node = window.app.graph._nodes.find(n => n.type === 'SaveVideo')
        const video = node.videoContainer?.querySelector('video') ?? document.querySelector('video[src*="flow_warp_preview"]')
        return video && video.readyState >= 2 ? [video.videoWidth, video.videoHeight, video.duration] : null
    """
    width, height, duration = until("the video", RUN_LIMIT, lambda: browser.execute_script(shown))
    time.sleep(1)  # the canvas draws the video's first frame
    picture = Path(os.environ.get("FLOW3D_SCREENSHOTS", tmp_path)) / "canvas.png"
    browser.save_screenshot(str(picture))
    assert (width, height) == (512, 512)
    assert duration == pytest.approx(8 / 25, abs=0.05)
    assert np.asarray(Image.open(picture).convert("L")).std() > 10
    severe = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE" and "flow3d" in e["message"].lower()]
    assert not severe
