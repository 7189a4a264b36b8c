"""Draw the pictures of the nodes' help pages, web/docs/NODE.jpg, and of the README.

    python -m comfyui_flow3d.scripts.help_pictures [NAME ...]

All are results of the nodes' own functions, made from the bundled portrait and motions. It needs scikit-image for the portrait.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..flow3d.conditions.base import PosedHead
from ..flow3d.conditions.depth import InverseDepth
from ..flow3d.conditions.normals import Normals
from ..flow3d.crop import PortraitCrop
from ..flow3d.crop_boxes import place_crop, places_of_track
from ..flow3d.crop_paste import paste
from ..flow3d.demo import LANDMARKS, demo_portrait, load_face
from ..flow3d.fit.edit import edit_track
from ..flow3d.fit.mix import mix
from ..flow3d.fit.retarget import retarget
from ..flow3d.fit.timing import retime
from ..flow3d.flow.field import FlowField
from ..flow3d.flow.pictures import FlowPictures, around_the_head
from ..flow3d.flow.sampling import Sampling
from ..flow3d.flow.tracks import GRID, track_points
from ..flow3d.flow.visualize import flow_picture
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel
from ..flow3d.io.motions import load_motion, motion_names
from ..flow3d.io.sheet import Row, contact_sheet, telling_frames
from ..flow3d.render.coverage import coverage
from ..flow3d.render.overlay import draw_head
from ..flow3d.render.report import track_plot
from ..flow3d.render.shade import shade
from ..flow3d.track import HeadTrack
from ..flow3d.warp.renderer import FlowWarp
from ..models.windows import Windows

ROOT = Path(__file__).parents[1]
HELP, README = ROOT / "web" / "docs", ROOT / "docs" / "results.jpg"
HELP_BYTES, README_BYTES = 80_000, 400_000
_CELL, _GAP, _CAPTION = 176, 6, 22  # pixels: a picture's height, between pictures, a caption's height
_PAPER, _INK = 250, (40, 40, 40)
Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Scene:
    """The bundled portrait, its head, and what shows the head in a square of `_CELL` pixels."""

    head: HeadModel
    image: Picture
    track: HeadTrack
    warp: FlowWarp
    window: PortraitCrop

    @classmethod
    def load(cls) -> "Scene":
        head = load_head("open")
        portrait = demo_portrait(head)
        height, width = portrait.image.shape[:2]
        window = place_crop(places_of_track(portrait.track, head), width, height, 2 * _CELL, room=0.95)
        return cls(head, portrait.image, portrait.track, FlowWarp(head, portrait.image, portrait.track), window)

    def near(self, picture: Picture) -> Picture:
        """A full picture's part about the head."""
        return to_picture(self.window.cut(as_floats(picture)))

    def driven(self, motion: str) -> HeadTrack:
        """The portrait's head doing what a bundled motion does."""
        return retarget(self.head, self.track, load_motion(motion, self.head))

    def warped(self, target: HeadTrack) -> list[Picture]:
        """The animated portrait, about the head."""
        return [self.near(self.warp.frame(target[[t]])[0]) for t in range(len(target))]

    def shaded(self, track: HeadTrack) -> list[Picture]:
        """A track's heads in plain skin, each as the track's camera sees it."""
        return [
            to_picture(shade(self.head, track[[t]].vertices(self.head), track.camera)[0]) for t in range(len(track))
        ]

    def flow(self, target: HeadTrack, size: int | None = None) -> FlowField:
        camera = self.track.camera if size is None else self.track.camera.resized(size, size)
        depth = float(target[:1].vertices(self.head)[..., 2].mean())  # farther away than in a crop
        return FlowField(self.track, target, self.head, camera, Sampling(near=depth - 0.3, far=depth + 0.3))


def to_picture(values: torch.Tensor | NDArray) -> Picture:
    """0..1 to uint8 RGB; a map (H, W) becomes grey."""
    array = np.asarray(values, np.float32)
    array = np.repeat(array[..., None], 3, -1) if array.ndim == 2 else array
    return (array.clip(0, 1) * 255).round().astype(np.uint8)


def as_floats(picture: Picture) -> NDArray[np.float32]:
    """uint8 to 0..1."""
    return np.divide(picture, 255, dtype=np.float32)


def panel(rows: Sequence[Sequence[Picture]], captions: Sequence[str] = (), cell: int = _CELL) -> Picture:
    """Rows of pictures, each `cell` pixels high; the captions stand above the first row."""
    small = [[Image.fromarray(p).resize((round(cell * p.shape[1] / p.shape[0]), cell), Image.Resampling.LANCZOS) for p in row]
             for row in rows]  # fmt: skip
    top = _CAPTION if captions else 0
    width = max(sum(p.width + _GAP for p in row) - _GAP for row in small)
    page = Image.new("RGB", (width, top + len(rows) * (cell + _GAP) - _GAP), (_PAPER,) * 3)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for i, row in enumerate(small):
        left = 0
        for j, picture in enumerate(row):
            page.paste(picture, (left, top + i * (cell + _GAP)))
            if i == 0 and j < len(captions):
                draw.text((left + picture.width // 2, top // 2), captions[j], _INK, font, anchor="mm")
            left += picture.width + _GAP
    return np.asarray(page)


def edits(scene: Scene, *chosen: Mapping[str, float]) -> list[HeadTrack]:
    return [edit_track(scene.head, scene.track, dict(edit)) for edit in chosen]


# --- one function a page ---------------------------------------------------------------------------------------------


def head_model(scene: Scene) -> Picture:
    still = load_motion("idle", scene.head)[:1]
    chosen: tuple[dict[str, float], ...] = (
        {},
        {"smile": 1.0},
        {"jawOpen": 0.7, "browUp": 1.0},
        {"yaw": 35.0, "pitch": 8.0},
    )
    return panel([[scene.shaded(edit_track(scene.head, still, dict(edit)))[0] for edit in chosen]],
                 ("neutral", "smile", "jawOpen, browUp", "yaw, pitch"))  # fmt: skip


def fit(scene: Scene) -> Picture:
    face = load_face(LANDMARKS)
    big = draw_head(scene.image, scene.head, scene.track.vertices(scene.head)[0], scene.track.camera, face.points)
    side = big.shape[0] / scene.image.shape[0]
    left, top, right, bottom = (round(side * v) for v in scene.window.box())
    overlay = big[max(top, 0) : bottom, max(left, 0) : right]
    return panel(
        [[scene.near(scene.image), overlay, scene.near(scene.shaded(scene.track)[0])]],
        ("image", "overlay", "the head"),
        230,
    )


def edit(scene: Scene) -> Picture:
    chosen: tuple[dict[str, float], ...] = (
        {},
        {"yaw": 20.0},
        {"smile": -0.8},
        {"blinkLeft": 1.0},
        {"gazeYaw": 25.0},
        {"jawOpen": 0.6, "browUp": 1.0},
    )
    names = ("all at rest", "yaw 20", "smile -0.8", "blinkLeft 1", "gazeYaw 25", "jawOpen, browUp")
    return panel([[scene.warped(t)[0] for t in edits(scene, *chosen)]], names, 128)


def retargeted(scene: Scene) -> Picture:
    motion = load_motion("medley", scene.head)
    chosen = telling_frames(motion, 5)
    target = retarget(scene.head, scene.track, motion)[chosen]
    return panel([scene.shaded(motion[chosen]), scene.warped(target)], [f"frame {t}" for t in chosen], 140)


def mixed(scene: Scene) -> Picture:
    turn, laugh = (load_motion(name, scene.head) for name in ("turn", "laugh"))
    both = mix(scene.head, turn, laugh, "take", parts=("jaw", "mouth", "eyelids", "expression"))
    chosen = [20, 40, 60, 90]
    return panel([scene.shaded(t[chosen]) for t in (turn, laugh, both)],
                 [f"frame {t}" for t in chosen], 120)  # fmt: skip


def timed(scene: Scene) -> Picture:
    turn = load_motion("turn", scene.head)
    tracks = [retime(turn, 10, 60), retime(turn, 10, 60, factor=2.0), retime(turn, 10, 60, direction="ping-pong")]
    chosen = [0, 12, 24, 36, 48]
    return panel([scene.shaded(t[[i % len(t) for i in chosen]]) for t in tracks], [f"frame {t}" for t in chosen], 112)


def report(scene: Scene) -> Picture:
    return track_plot(scene.driven("medley"), scene.head, width=768)


def crop(scene: Scene) -> Picture:
    made = _crop(scene)
    image, (left, top, right, bottom) = scene.image.copy(), (round(v) for v in made.box())
    cv2.rectangle(image, (left, top), (right - 1, bottom - 1), (255, 210, 60), 3)
    return panel([[image, scene_crop(scene)]], ("image", "crop"), 230)


def _crop(scene: Scene) -> PortraitCrop:
    height, width = scene.image.shape[:2]
    return place_crop(places_of_track(scene.track, scene.head), width, height, 256, room=0.8)


def scene_crop(scene: Scene) -> Picture:
    return to_picture(_crop(scene).cut(as_floats(scene.image)))


def pasted(scene: Scene) -> Picture:
    made, image = _crop(scene), as_floats(scene.image)
    moved = scene.warp.frame(edits(scene, {"jawOpen": 0.7, "browUp": 1.0})[0])[0]
    result = made.cut(as_floats(moved))
    full = to_picture(paste(image, result, made))
    return panel([[scene_crop(scene), to_picture(result), full]], ("crop", "result", "pasted"), 230)


def saved(scene: Scene) -> Picture:
    track = scene.driven("laugh")
    return panel([[scene.near(p) for p in scene.shaded(track[telling_frames(track, 5)])]], (), 140)


def loaded(scene: Scene) -> Picture:
    names, pictures = motion_names(), []
    for name in names:
        motion = load_motion(name, scene.head)
        pictures.append(labelled(scene.shaded(motion[telling_frames(motion, 3)[1:2]])[0], name))
    return panel([pictures[i : i + 6] for i in range(0, len(pictures), 6)], (), 120)


def labelled(picture: Picture, name: str) -> Picture:
    """The picture with its name in the lower corner."""
    page = Image.fromarray(picture)
    ImageDraw.Draw(page).text(
        (8, page.height - 6), name, (255, 255, 255), ImageFont.load_default(page.height // 9), anchor="ls"
    )
    return np.asarray(page)


def encoded(scene: Scene) -> Picture:
    target = edits(scene, {"yaw": 18.0, "jawOpen": 0.5})[0]
    flow = scene.flow(target)
    mask = flow.head_mask([0])
    colours = flow_picture(flow.pixels([0]), mask)[0].numpy()
    shown = [scene.shaded(scene.track)[0], scene.shaded(target)[0], colours, to_picture(mask[0].numpy())]
    return panel([[scene.near(p) for p in shown]], ("source", "target", "preview", "mask"))


def visualized(scene: Scene) -> Picture:
    return FlowPictures(
        *around_the_head(scene.flow(edits(scene, {"yaw": 18.0, "jawOpen": 0.5})[0]), scene.image, 230)
    ).picture("sheet", 0)


def layers(scene: Scene) -> Picture:
    return FlowPictures(*around_the_head(scene.flow(edits(scene, {"yaw": 18.0})[0]), None, 460)).picture("layers", 0)


def tracked(scene: Scene) -> Picture:
    target = scene.driven("turn")[10:60]
    tracks = track_points(scene.flow(target), scene.track.camera, GRID, 20)
    pixels = tracks.pixels.numpy()
    drawn = []
    for t in (0, 24, 49):
        image = scene.warp.frame(target[[t]])[0].copy()
        for n in range(pixels.shape[1]):
            if tracks.visible[t, n]:
                path = (pixels[: t + 1, n] * 16).round().astype(np.int32)
                cv2.polylines(image, [path], False, (255, 210, 60), 1, cv2.LINE_AA, 4)
                cv2.circle(image, tuple(path[-1]), 2 * 16, (255, 80, 60), -1, cv2.LINE_AA, 4)
        drawn.append(scene.near(image))
    return panel([drawn], ("start image", "picture 24", "picture 49"), 230)


def rendered(scene: Scene) -> Picture:
    target = edits(scene, {"yaw": 18.0, "jawOpen": 0.4})[0]
    posed = PosedHead(target, scene.head, target.camera)
    depth, normals = (c.encode([0])[0].movedim(0, -1).numpy() for c in (InverseDepth(posed), Normals(posed)))
    mask = coverage(posed.vertices([0]), scene.head.faces, posed.camera)[0].numpy()
    depth = depth if depth.shape[-1] == 3 else depth[..., 0]
    shown = [to_picture(depth), to_picture(normals), scene.shaded(target)[0], to_picture(mask)]
    return panel([[scene.near(p) for p in shown]], ("depth", "normal", "shaded", "mask"))


def warp_preview(scene: Scene) -> Picture:
    target = edits(scene, {"yaw": 25.0, "smile": 0.3})[0]
    image, filled = scene.warp.frame(target)
    return panel([[scene.near(scene.image), scene.near(image), scene.near(np.repeat(filled[..., None], 3, -1))]],
                 ("image", "images", "mask"), 230)  # fmt: skip


def warp_video(scene: Scene) -> Picture:
    target = scene.driven("surprise")
    chosen = telling_frames(target, 5)
    return panel([scene.warped(target[chosen])], [f"{t / target.fps:.2f} s" for t in chosen], 140)


def control(scene: Scene) -> Picture:
    target = scene.driven("turn")
    chosen = [20, 40, 60, 90]
    flow = scene.flow(target[chosen])
    colours = flow_picture(flow.pixels([0, 1, 2, 3]), flow.head_mask([0, 1, 2, 3])).numpy()
    heads = scene.shaded(target[chosen])
    return panel([[scene.near(p) for p in heads], [scene.near(p) for p in colours]],
                 [f"frame {t}" for t in range(4)], 150)  # fmt: skip


def reference(scene: Scene) -> Picture:
    mask = coverage(scene.track.vertices(scene.head), scene.head.faces, scene.track.camera)[0].numpy()
    made = _crop(scene)
    return panel([[scene_crop(scene), to_picture(made.cut(mask[..., None])[..., 0])]], ("reference", "mask"), 230)


def appearance(scene: Scene) -> Picture:
    return panel([[scene_crop(scene)]], (), 256)


def motion_module(scene: Scene) -> Picture:
    """The frames of one window of sixteen, which its layers see together."""
    track = scene.driven("turn")[10:74:4]
    heads = [scene.near(p) for p in scene.shaded(track)]
    return panel([heads[:8], heads[8:]], (), 84)


def windows(scene: Scene) -> Picture:
    """How much each window of 16 frames counts in a clip of 64, for two ways of fusing: the weights that are used."""
    frames, step, bar, label = 64, 10, 30, 76
    page = Image.new("RGB", (label + frames * step, 2 * (30 + 6 * (bar + 4))), (_PAPER,) * 3)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    top = 0
    for fusing in ("pyramid", "uniform"):
        cut = Windows(16, 4, fusing=fusing)  # type: ignore[arg-type]
        chosen = cut.at_step(frames, 0, 0)
        weights = cut.weights(chosen, frames).numpy()
        draw.text((4, top + 15), f"{fusing}: frames 0 to {frames - 1}", _INK, font, anchor="lm")
        top += 30
        for k, row in enumerate(weights):
            for t in np.flatnonzero(row).tolist():
                height = round(bar * float(row[t]))
                left = label + t * step
                draw.rectangle((left, top + bar - height, left + step - 2, top + bar), (64, 120, 192))
            draw.text((4, top + bar // 2), f"window {k}", _INK, font, anchor="lm")
            top += bar + 4
    return np.asarray(page.crop((0, 0, page.width, top)))


def results(scene: Scene) -> Picture:
    """For the README: what a bundled motion makes of the portrait."""
    motion = load_motion("medley", scene.head)
    chosen = telling_frames(motion, 6)
    target = retarget(scene.head, scene.track, motion)[chosen]
    flow = scene.flow(target)
    colours = flow_picture(flow.pixels(list(range(6))), flow.head_mask(list(range(6)))).numpy()
    rows = [
        Row("driver", scene.shaded(motion[chosen])),
        Row("3D flow", [scene.near(p) for p in colours]),
        Row("result", scene.warped(target)),
    ]
    return contact_sheet(rows, [f"{t / motion.fps:.1f} s" for t in chosen], 200)


PAGES: dict[str, Callable[[Scene], Picture]] = {
    "Flow3DLoadHeadModel": head_model,
    "Flow3DFLAMEFit": fit,
    "Flow3DFLAMEEdit": edit,
    "Flow3DFLAMERetarget": retargeted,
    "Flow3DFLAMEMix": mixed,
    "Flow3DFLAMETime": timed,
    "Flow3DTrackReport": report,
    "Flow3DPortraitCrop": crop,
    "Flow3DPasteBack": pasted,
    "Flow3DSaveHeadTrack": saved,
    "Flow3DLoadHeadTrack": loaded,
    "Flow3DFlowEncode": encoded,
    "Flow3DFlowVisualize": visualized,
    "Flow3DFlowToTracks": tracked,
    "Flow3DRenderHead": rendered,
    "Flow3DFlowWarpPreview": warp_preview,
    "Flow3DFlowWarpVideo": warp_video,
    "Flow3DLoadFlowControlNet": layers,
    "Flow3DFlowControlNetApply": control,
    "Flow3DLoadAppearanceNetwork": appearance,
    "Flow3DAppearanceReference": reference,
    "Flow3DLoadMotionModule": motion_module,
    "Flow3DTemporalSampler": windows,
}


def save(picture: Picture, path: Path, limit: int) -> None:
    """As a JPEG of at most `limit` bytes, as good as that allows."""
    for quality in range(90, 30, -5):
        Image.fromarray(picture).save(path, quality=quality, optimize=True)
        if path.stat().st_size <= limit:
            print(
                f"{path.name}: {picture.shape[1]} x {picture.shape[0]}, quality {quality}, {path.stat().st_size / 1000:.0f} kB"
            )
            return
    raise SystemExit(f"{path.name} does not fit into {limit} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="node ids, or 'results' for the README's; all without names"
    )
    names = parser.parse_args().names
    scene = Scene.load()
    for name, draw in PAGES.items():
        if not names or name in names:
            save(draw(scene), HELP / f"{name}.jpg", HELP_BYTES)
    if not names or "results" in names:
        save(results(scene), README, README_BYTES)


if __name__ == "__main__":
    main()
