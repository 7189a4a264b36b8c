"""Draw the pictures beside the example workflows: `python scripts/draw_thumbnails.py [NAME ...]`.

They show what each workflow makes of scikit-image's astronaut and a bundled motion: what steers, and the
result where it needs no further weights. It needs scikit-image and face_landmarker.task (see `flow3d doctor`).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.conditions.base import PosedHead
from comfyui_flow3d.flow3d.conditions.depth import InverseDepth
from comfyui_flow3d.flow3d.conditions.normals import Normals
from comfyui_flow3d.flow3d.crop import PortraitCrop
from comfyui_flow3d.flow3d.crop_boxes import place_crop, places_of_faces
from comfyui_flow3d.flow3d.crop_paste import ROUNDED_SQUARE, Blend, paste
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.fit.edit import edit_track
from comfyui_flow3d.flow3d.fit.mix import PARTS, mix
from comfyui_flow3d.flow3d.fit.retarget import retarget
from comfyui_flow3d.flow3d.fit.solve import fit_track
from comfyui_flow3d.flow3d.flow.field import FlowField
from comfyui_flow3d.flow3d.flow.pictures import FlowPictures, around_the_head
from comfyui_flow3d.flow3d.flow.tracks import GRID, PointTracks, track_points
from comfyui_flow3d.flow3d.flow.visualize import flow_picture
from comfyui_flow3d.flow3d.head.load import load_head
from comfyui_flow3d.flow3d.head.model import HeadModel
from comfyui_flow3d.flow3d.io.motions import load_motion
from comfyui_flow3d.flow3d.paths import find_weight
from comfyui_flow3d.flow3d.render.shade import shade
from comfyui_flow3d.flow3d.track import HeadTrack
from comfyui_flow3d.flow3d.warp.renderer import FlowWarp

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
SIDE, GAP = 300, 6  # pixels of a square, and between squares
Picture = np.ndarray  # (H, W, 3) uint8


@dataclass(frozen=True)
class Sitter:
    """Somebody in a picture, fitted."""

    head: HeadModel
    image: Picture
    track: HeadTrack

    def moved(self, motion: str, frame: int) -> HeadTrack:
        """One frame of a bundled motion on this head, relative to the motion's first."""
        driver = load_motion(motion, self.head)
        return retarget(self.head, self.track, driver, "relative")[frame : frame + 1]

    def field(self, target: HeadTrack) -> FlowField:
        return FlowField(self.track, target, self.head, self.track.camera)

    def flow(self, target: HeadTrack) -> Picture:
        field = self.field(target)
        return flow_picture(field.pixels([0]), field.head_mask([0]))[0].numpy()

    def warped(self, target: HeadTrack) -> Picture:
        return self._warp.frame(target)[0]

    def unseen(self, target: HeadTrack) -> Picture:
        """The warped picture with what was filled in red."""
        picture, mask = self._warp.frame(target)
        share = mask[..., None] / 255 * 0.8
        return (picture * (1 - share) + np.array([235, 60, 60]) * share).astype(np.uint8)

    def filled(self, target: HeadTrack) -> Picture:
        """White where the warp had to fill."""
        return np.repeat(self._warp.frame(target)[1][..., None], 3, 2)

    def view(self, name: str, target: HeadTrack) -> Picture:
        """One of the views of 3D Flow Visualize."""
        return FlowPictures(*around_the_head(self.field(target), self.image, 400)).picture(name, 0)

    @cached_property
    def _warp(self) -> FlowWarp:
        return FlowWarp(self.head, self.image, self.track)

    def shaded(self, target: HeadTrack) -> Picture:
        return to_bytes(shade(self.head, target.vertices(self.head), target.camera)[0])

    def depth(self, target: HeadTrack) -> Picture:
        return to_bytes(InverseDepth(PosedHead(target, self.head, target.camera)).encode()[0].permute(1, 2, 0))

    def normals(self, target: HeadTrack) -> Picture:
        return to_bytes(Normals(PosedHead(target, self.head, target.camera)).encode()[0].permute(1, 2, 0))


def to_bytes(picture: torch.Tensor) -> Picture:
    """(H, W, 1 or 3) floats 0..1."""
    return (picture.expand(*picture.shape[:2], 3).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def fitted(head: HeadModel, image: Picture) -> Sitter:
    with MediaPipeDetector(find_weight("face_landmarker.task")) as detector:
        face = detector.refine(image, detector.detect(image)[0])
    camera = Camera.from_field_of_view(image.shape[1], image.shape[0])
    return Sitter(head, image, fit_track(head, [face], camera)[0])


def astronaut() -> Picture:
    from skimage.data import astronaut

    return astronaut()


def cut(crop: PortraitCrop, image: Picture) -> Picture:
    return to_bytes(torch.from_numpy(crop.cut(np.divide(image, 255, dtype=np.float32))))


def cropped(head: HeadModel, image: Picture, size: int = 512) -> tuple[PortraitCrop, Picture]:
    with MediaPipeDetector(find_weight("face_landmarker.task")) as detector:
        faces = detector.detect(image)[:1]
    crop = place_crop(places_of_faces(faces, head), image.shape[1], image.shape[0], size)
    return crop, cut(crop, image)


def rows(*pictures: Picture) -> Image.Image:
    """Wide pictures under each other."""
    width = 2 * SIDE + GAP
    small = [Image.fromarray(p).resize((width, width * p.shape[0] // p.shape[1]), Image.Resampling.LANCZOS) for p in pictures]
    page = Image.new("RGB", (width, sum(p.height for p in small) + GAP * (len(small) - 1)), (24, 26, 32))
    top = 0
    for picture in small:
        page.paste(picture, (0, top))
        top += picture.height + GAP
    return page


def squares(*pictures: Picture) -> Image.Image:
    """Four pictures, two by two, each cut to a square at its centre."""
    page = Image.new("RGB", (2 * SIDE + GAP, 2 * SIDE + GAP), (24, 26, 32))
    for i, picture in enumerate(pictures):
        h, w = picture.shape[:2]
        side = min(h, w)
        left, top = (w - side) // 2, (h - side) // 2
        square = Image.fromarray(picture).crop((left, top, left + side, top + side))
        page.paste(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (i % 2 * (SIDE + GAP), i // 2 * (SIDE + GAP)))
    return page


def near(*pictures: Picture) -> Image.Image:
    """Squares of the astronaut's head out of whole pictures."""
    return squares(*(p[:300, 75:375] for p in pictures))


def portrait(head: HeadModel) -> Sitter:
    return fitted(head, cropped(head, astronaut())[1])


def fg_portrait(head: HeadModel) -> Image.Image:
    sitter = portrait(head)
    target = sitter.moved("turn", 30)
    return squares(sitter.image, sitter.shaded(target), sitter.view("direction", target), sitter.view("checkerboard", target))


def flow_warp_preview(head: HeadModel) -> Image.Image:
    sitter = fitted(head, astronaut())
    one, other = sitter.moved("turn", 30), sitter.moved("surprise", 40)
    return near(sitter.image, sitter.flow(one), sitter.warped(one), sitter.warped(other))


def edit_still(head: HeadModel) -> Image.Image:
    sitter = fitted(head, astronaut())
    edits = ({"yaw": 22.0, "browUp": 0.7}, {"yaw": -22.0, "gazeYaw": -12.0}, {"roll": 8.0, "blink": 1.0})
    return near(sitter.image, *(sitter.warped(edit_track(head, sitter.track, edit)) for edit in edits))


def mix_drivers(head: HeadModel) -> Image.Image:
    sitter = fitted(head, astronaut())
    face = frozenset(PARTS - {"pose", "translation"})
    mixed = mix(head, load_motion("turn", head), load_motion("talk", head), "take", 0.0, face, "loop")
    moved = retarget(head, sitter.track, mixed, "relative")
    one, other = moved[24:25], moved[96:97]
    return near(sitter.shaded(one), sitter.shaded(other), sitter.warped(one), sitter.warped(other))


def two_people(head: HeadModel) -> Image.Image:
    """The astronaut beside her mirror image: before and after."""
    single = astronaut()[:384, 40:424]
    people = np.hstack([single, single[:, ::-1]])
    with MediaPipeDetector(find_weight("face_landmarker.task"), 2) as detector:
        faces = sorted(detector.detect(people), key=lambda face: face.points[:, 0].mean())
    after = people
    for face, motion, frame in zip(faces, ("talk", "look-around"), (60, 40), strict=True):
        box = place_crop(places_of_faces([face], head), people.shape[1], people.shape[0], 384)
        sitter = fitted(head, cut(box, people))
        warped = np.divide(sitter.warped(sitter.moved(motion, frame)), 255, dtype=np.float32)
        pasted = paste(np.divide(after, 255, dtype=np.float32), warped, box, 0, Blend(ROUNDED_SQUARE, 32, 1.0))
        after = to_bytes(torch.from_numpy(pasted))
    return rows(people, after)


def long_clip(head: HeadModel) -> Image.Image:
    sitter = fitted(head, astronaut())
    return near(*(sitter.warped(sitter.moved("medley", frame)) for frame in (20, 60, 90, 125)))


def flow_pictures(head: HeadModel) -> Image.Image:
    sitter = fitted(head, astronaut())
    field, image = around_the_head(sitter.field(sitter.moved("medley", 20)), sitter.image, 400)
    sheet = Image.fromarray(FlowPictures(field, image).picture("sheet", 0))
    return sheet.resize((900, round(900 * sheet.height / sheet.width)), Image.Resampling.LANCZOS)


def appearance_only(head: HeadModel) -> Image.Image:
    sitter = portrait(head)
    one, other = sitter.moved("talk", 50), sitter.moved("turn", 30)
    return squares(sitter.image, sitter.depth(one), sitter.shaded(other), sitter.depth(other))


def depth_normal_controlnets(head: HeadModel) -> Image.Image:
    sitter = portrait(head)
    target = sitter.moved("turn", 30)
    return squares(sitter.image, sitter.depth(target), sitter.normals(target), sitter.shaded(target))


def refine_unseen(head: HeadModel) -> Image.Image:
    sitter = portrait(head)
    target = sitter.moved("turn", 30)
    return squares(sitter.image, sitter.warped(target), sitter.unseen(target), sitter.filled(target))


def tracks_for_wan(head: HeadModel) -> Image.Image:
    sitter = portrait(head)
    frames = 24
    moved = retarget(head, sitter.track, load_motion("turn", head), "relative")[:frames]
    field = sitter.field(moved)
    followed = track_points(field, field.camera, GRID, 40, 96, frames + 1, "portrait")
    pictures = [sitter.image, *(sitter.warped(moved[t : t + 1]) for t in (7, 15, 23))]
    return squares(*(with_paths(p, followed, n) for p, n in zip(pictures, (1, 8, 16, 24), strict=True)))


def with_paths(picture: Picture, followed: PointTracks, count: int) -> Picture:
    """The points of the first `count` pictures, each as a line with a dot at its end."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for path, seen in zip(followed.pixels[:count].permute(1, 0, 2).tolist(), followed.visible[count - 1].tolist(), strict=True):
        if seen:
            (x, y), line = path[-1], [tuple(point) for point in path]
            draw.line(line, (255, 210, 60), 3)
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), (60, 200, 255))
    return np.asarray(image)


_ALL = (
    fg_portrait, flow_warp_preview, edit_still, mix_drivers, two_people, long_clip, flow_pictures, appearance_only,
    depth_normal_controlnets, refine_unseen, tracks_for_wan,
)  # fmt: skip
PICTURES: dict[str, Callable[[HeadModel], Image.Image]] = {f.__name__: f for f in _ALL}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the pictures beside the example workflows.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them where none is named")
    head = load_head("open")
    for name in parser.parse_args().names or PICTURES:
        PICTURES[name](head).save(WORKFLOWS / f"{name}.jpg", quality=80)
        print(f"{name}.jpg: {(WORKFLOWS / f'{name}.jpg').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
