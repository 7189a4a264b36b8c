"""Draw the pictures of docs/flow.md: `python -m comfyui_flow3d.scripts.draw_flow`. It needs scikit-image for the portrait."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..flow3d.animate import Driver, Options, retargeted
from ..flow3d.camera import Camera
from ..flow3d.demo import demo_portrait
from ..flow3d.flow.field import FlowField
from ..flow3d.flow.pictures import FlowPictures, around_the_head
from ..flow3d.flow.sampling import Sampling
from ..flow3d.head.load import load_head
from ..flow3d.head.model import SKIN, HeadModel, to_camera
from ..flow3d.io.images import write_image
from ..flow3d.io.motions import load_motion
from ..flow3d.render.rasterize import rasterize

DOCS = Path(__file__).parents[1] / "docs"
SAMPLES = 9
_PAPER, _INK, _FAINT, _HEAD = (252, 252, 250), (38, 42, 50), (150, 156, 166), (52, 104, 192)
_ON, _OFF = (214, 69, 65), (46, 140, 87)


def sheet(head: HeadModel, frame: int = 20) -> np.ndarray:
    """All views of one frame of the demo; near and far stand about its head, which is farther away than in a crop."""
    portrait = demo_portrait(head)
    target = retargeted(head, portrait, Driver(load_motion("medley", head), ""), Options())[[frame]]
    depth = float(target.vertices(head)[..., 2].mean())
    flow = FlowField(portrait.track, target, head, portrait.track.camera, Sampling(near=depth - 0.3, far=depth + 0.3))
    return FlowPictures(*around_the_head(flow, portrait.image, 448)).picture("sheet", 0)


def samples(head: HeadModel, width: int = 920, height: int = 700) -> np.ndarray:
    """A section through the head from the side: the rays of one column of pixels and the points along them."""
    rest, root = head.vertices(torch.zeros(1, head.n_shape), torch.zeros(1, head.n_expression))
    still = torch.zeros(1, 3)
    vertices = to_camera(rest, root, still, torch.tensor([[0.0, 0.12, 0.97]]))
    camera = replace(Camera.from_field_of_view(25, 25), cx=12.5)
    seen = rasterize(vertices, head.faces, camera)
    sampling = Sampling(SAMPLES, near=0.65, far=1.25)
    points = (camera.rays()[:, :, None] * sampling.depths(seen.depth)[0][..., None])[:, 12]  # (25, N, 3), at x = 0
    big = 2  # drawn twice as large, then halved: smooth edges
    image = Image.new("RGB", (big * width, big * height), _PAPER)
    draw = ImageDraw.Draw(image)

    def place(z: float, y: float) -> tuple[float, float]:
        return big * (60 + (z - 0.55) / 0.75 * (width - 90)), big * (height / 2 + 26 + y / 0.75 * (width - 90))

    for z, name in ((0.65, "near"), (1.25, "far")):
        reach = z * 0.222
        draw.line([place(z, -reach), place(z, reach)], _FAINT, big)
        draw.text(place(z, -reach - 0.008), f"{name} {z} m", _FAINT, ImageFont.load_default(15 * big), anchor="mb")
    for a, b in _section(vertices[0], head.faces[head.face_parts == SKIN]):
        draw.line([place(*a), place(*b)], _HEAD, 2 * big)
    for row in range(25):
        on = bool(seen.triangle[0, row, 12] >= 0)
        slope = float(points[row, 0, 1] / points[row, 0, 2])
        draw.line([place(0.55, 0.55 * slope), place(1.28, 1.28 * slope)], (226, 229, 234), 1)
        for _, y, z in points[row].tolist():
            x, v = place(z, y)
            r = big * (2.2 if on else 2.8)
            draw.ellipse((x - r, v - r, x + r, v + r), _ON if on else _OFF)
    font = ImageFont.load_default(16 * big)
    for i, (colour, words) in enumerate((
        (_OFF, "no head at the pixel: N depths from near to far, both ends included (here N = 9)"),
        (_ON, "the head at depth D: N depths from D - delta to D + delta"),
    )):  # fmt: skip
        y = big * (22 + 24 * i)
        draw.ellipse((big * 20, y - 4 * big, big * 28, y + 4 * big), colour)
        draw.text((big * 38, y), words, _INK, font, anchor="lm")
    draw.text(place(0.55, 0), "camera", _FAINT, ImageFont.load_default(15 * big), anchor="mm")
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def _section(vertices: torch.Tensor, faces: torch.Tensor) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Line segments (z, y) where the plane x = 0 cuts the triangles."""
    lines = []
    x = vertices[:, 0].double() + 1e-7
    for face in faces[(x[faces].amin(1) < 0) & (x[faces].amax(1) > 0)].tolist():
        cuts = []
        for i, j in ((0, 1), (1, 2), (2, 0)):
            a, b = face[i], face[j]
            if x[a] * x[b] < 0:
                t = float(x[a] / (x[a] - x[b]))
                p = vertices[a] + t * (vertices[b] - vertices[a])
                cuts.append((float(p[2]), float(p[1])))
        lines.append((cuts[0], cuts[1]))
    return lines


def main() -> None:
    head = load_head("open")
    write_image(DOCS / "flow_pictures.jpg", sheet(head))
    write_image(DOCS / "flow_samples.png", samples(head))


if __name__ == "__main__":
    main()
