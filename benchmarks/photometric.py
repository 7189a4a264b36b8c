"""Does the photometric stage help? Synthetic people whose truth is known, and real portraits, before and after it.

    python -m comfyui_flow3d.benchmarks.photometric [--stills 24] [--parts synthetic,real]

A synthetic picture is rendered by other means than the stage's own: ambient light and two soft lamps with Lambert's clamped
cosine, normals interpolated at each of four samples a pixel; lips, brows, irises and teeth of their own colours, blotches and
freckles; sRGB, 8 bits and noise. Landmarks are off by 1 pixel on each axis at 512. Rows: the mean head, the landmark fit, its
refinement with skin of one colour (what shading alone is worth), its refinement. Real portraits are those of
$FLOW3D_TEST_DATA, read by MediaPipe.
"""

import argparse
import os
import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.data import astronaut
from torch import Tensor
from tqdm import tqdm

from ..flow3d.camera import Camera
from ..flow3d.fit.albedo import AlbedoModel
from ..flow3d.fit.appearance import FaceRender
from ..flow3d.fit.detect import MediaPipeDetector
from ..flow3d.fit.photometric import refine_photometric
from ..flow3d.fit.solve import fit_track
from ..flow3d.head.load import load_head
from ..flow3d.head.model import HeadModel
from ..flow3d.io.images import read_image
from ..flow3d.paths import find_weight
from ..flow3d.render.maps import normal_map
from ..flow3d.render.rasterize import Fragments, rasterize
from ..flow3d.render.shade import LIGHT, shade, vertex_normals
from ..flow3d.rotations import angle, compose, inverse
from ..flow3d.track import HeadTrack
from .fit import Errors, errors, ours, trivial
from .synthetic_heads import SIZE, sample

PORTRAITS = ("s9", "s12", "s1", "s4")
_SUPER = 2  # samples across a pixel
_NOISE = 1.5  # standard deviation of a channel, of 255
_BACKGROUND = 0.2
_WAVES = 24
_LAMP, _POINTS = 0.35, 12  # radians that a lamp spreads over, and points that it is made of
_BLOTCHES, _FRECKLES = 0.06, 0.3  # parts of the skin's colour
_FRECKLE = 0.0012  # metres


def photo(head: HeadModel, truth: HeadTrack, seed: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: a picture of a still."""
    random = np.random.default_rng(seed + 10_000)
    camera = truth.camera.resized(SIZE * _SUPER, SIZE * _SUPER)
    vertices = truth.vertices(head)
    fragments = rasterize(vertices, head.faces, camera)
    seen = fragments.triangle[0] >= 0
    image = vertices.new_full((*seen.shape, 3), _BACKGROUND)
    image[seen] = _albedo(head, vertices, camera, fragments, random) * _light(
        normal_map(vertices, head.faces, fragments)[0][seen], random
    )
    image = image.reshape(SIZE, _SUPER, SIZE, _SUPER, 3).mean((1, 3)).clamp(0, 1)
    encoded = torch.where(image <= 0.0031308, image * 12.92, 1.055 * image.clamp(min=1e-6) ** (1 / 2.4) - 0.055).numpy()
    return (encoded * 255 + random.normal(scale=_NOISE, size=encoded.shape)).round().clip(0, 255).astype(np.uint8)


def _light(normals: Tensor, random: np.random.Generator) -> Tensor:
    """(N, 3) what falls on white skin from all around and from two lamps before the face."""
    light = torch.from_numpy(random.uniform(0.25, 0.5, 3) * (1, 0.95, 0.9)).float().expand_as(normals)
    for strength in (1.0, 0.5):
        towards = random.normal(size=3) * (1, 0.7, 0.5) + (0, -0.4, -1.0)
        colour = torch.from_numpy(strength * random.uniform(0.7, 1.0, 3)).float()
        points = towards / np.linalg.norm(towards) + random.normal(scale=_LAMP, size=(_POINTS, 3))
        ways = torch.from_numpy(points / np.linalg.norm(points, axis=1, keepdims=True)).float()
        light = light + (normals @ ways.T).clamp(min=0).mean(1, keepdim=True) * colour
    return light


def _albedo(head: HeadModel, vertices: Tensor, camera: Camera, fragments: Fragments, random: np.random.Generator) -> Tensor:
    """(N, 3) linear: the shaded render's colours without its shading, with what skin has of its own."""
    seen = fragments.triangle[0] >= 0
    corners, mix = head.faces[fragments.triangle[0][seen].long()], fragments.bary[0][seen]
    normal = torch.einsum("nc,ncx->nx", mix, vertex_normals(vertices, head.faces)[0][corners])
    lit = (normal @ normal.new_tensor(LIGHT)).abs() * 0.72 + 0.30
    colour = (shade(head, vertices, camera, fragments)[0][seen] / lit[:, None]) ** 2.2
    place = torch.einsum("nc,ncx->nx", mix, head.template[corners]).double().numpy()
    waves = random.normal(size=(3, _WAVES)) / random.uniform(0.008, 0.04, _WAVES)
    tint = random.normal(size=(_WAVES, 1)) * (0.6, 1.0, 1.0) + 0.4 * random.normal(size=(_WAVES, 3))
    blotch = np.cos(place @ waves + random.uniform(0, 2 * np.pi, _WAVES)) @ tint / np.sqrt(_WAVES / 2)
    spots = head.template[random.choice(head.masks["face"].nonzero()[:, 0].numpy(), 60)].double().numpy()
    freckle = np.exp(-((cKDTree(spots).query(place)[0] / _FRECKLE) ** 2) / 2)[:, None]
    return colour * torch.from_numpy((1 + _BLOTCHES * blotch) * (1 - _FRECKLES * freckle)).float().clamp(0.05)


def one_colour(head: HeadModel, vertices: Tensor) -> AlbedoModel:
    """Skin that cannot be painted."""
    return AlbedoModel(vertices, head.template.new_zeros(len(vertices), 0))


def synthetic(head: HeadModel, stills: int) -> dict[str, list[Errors]]:
    """Errors of each still, row by row."""
    renders = {"constant albedo": FaceRender(head, one_colour), "photometric": FaceRender(head)}
    rows: dict[str, list[Errors]] = {name: [] for name in ("mean head", "landmarks", *renders)}
    for seed in tqdm(range(stills), "stills"):
        given = sample(head, seed, 1)
        picture = photo(head, given.truth, seed)
        fitted = ours(head, given)
        rows["mean head"].append(errors(head, given.truth, trivial(head, given)))
        rows["landmarks"].append(errors(head, given.truth, fitted))
        for name, render in renders.items():
            refined, _ = refine_photometric(head, fitted, [picture], given.faces, render=render)
            rows[name].append(errors(head, given.truth, refined))
    return rows


def table(rows: dict[str, list[Errors]]) -> str:
    """Medians, and the share of stills that are better than with landmarks alone."""
    base = np.array([astuple(e) for e in rows["landmarks"]])
    names = ("rotation deg", "over deviation", "translation %", "over deviation", "shape %", "expression %")
    lines = [f"{'median (better than landmarks)':32s}" + "".join(f"{name:>17s}" for name in names)]
    for name, all_errors in rows.items():
        values = np.array([astuple(e) for e in all_errors])
        better = np.nanmean(values < base, axis=0)
        shown = np.ma.median(np.ma.masked_invalid(values), axis=0).filled(np.nan) * (1, 1, 100, 1, 100, 100)
        cells = [f"{value:10.2f} ({100 * share:3.0f}%)" for value, share in zip(shown, better, strict=True)]
        lines.append(f"{name:32s}" + "".join(cells))
    return "\n".join(lines)


def portraits(head: HeadModel) -> str:
    """Real pictures: colour error and landmark error, before and after."""
    folder = Path(os.environ["FLOW3D_TEST_DATA"]) / "sources"
    pictures = {name: read_image(folder / f"{name}.jpg") for name in PORTRAITS} | {"astronaut": astronaut()}
    lines = []
    render = FaceRender(head)
    with MediaPipeDetector(find_weight("face_landmarker.task")) as detector:
        for name, image in pictures.items():
            face = detector.refine(image, detector.detect(image)[0])
            track, _ = fit_track(head, [face], Camera.from_field_of_view(image.shape[1], image.shape[0]))
            started = time.perf_counter()
            refined, report = refine_photometric(head, track, [image], [face], render=render)
            turned = float(torch.rad2deg(angle(compose(refined.rotation, inverse(track.rotation)))))
            lines.append(f"{name:10s} {report}; turned by {turned:.2f} degrees, {time.perf_counter() - started:.1f} s")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stills", type=int, default=24)
    parser.add_argument("--parts", default="synthetic,real", help="synthetic, real, or both with a comma")
    options = parser.parse_args()
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    head = load_head("open")
    parts = options.parts.split(",")
    if "synthetic" in parts:
        print(table(synthetic(head, options.stills)))
    if "real" in parts:
        print(portraits(head))


if __name__ == "__main__":
    main()
