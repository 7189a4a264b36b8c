"""A fitted head drawn over the picture it was fitted to, to judge the fit by eye."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..camera import Camera
from ..fit import mediapipe_points as mp
from ..head.model import FLIP, SKIN, HeadModel

_SHIFT = 4  # OpenCV draws at 1/16 pixel
_MESH, _FITTED, _DETECTED = (64, 220, 255), (255, 80, 80), (120, 255, 90)
_AXES = ((255, 60, 50), (60, 220, 60), (70, 120, 255))  # x, y, z
_NOSE_TIP, _NOSE_BASE = 1, 2  # of MediaPipe's points; those above the base do not move with the jaw
_AXIS = 0.06  # metres
_SMALLEST = 640  # pixels: smaller pictures are drawn enlarged, so that lines and dots are finer than a pixel


def draw_head(
    image: NDArray[np.uint8], head: HeadModel, vertices: Tensor, camera: Camera, detected: NDArray[np.float64] | None = None
) -> NDArray[np.uint8]:
    """The picture with the head's mesh where it faces the camera, its landmarks in red and its axes at the nose: x red, y
    green, z blue. With detected landmarks also those, in green, and the reprojection error in the corner.

    Args:
        image: (H, W, 3) uint8 RGB, of the camera's size. It is left as it is.
        vertices: (V, 3) of the head in the camera frame, metres.
        detected: (478, 2) pixels: what the head was fitted to. NaN: not detected.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    factor = -(-_SMALLEST // min(height, width)) if min(height, width) < _SMALLEST else 1
    view = camera.resized(width * factor, height * factor)
    fitted, found = None, None
    clear = np.zeros((view.height, view.width, 4), np.uint8)
    _draw_mesh(clear, head, vertices, view)
    if head.landmarks_dense is not None:
        found = head.landmarks_dense.found.cpu().numpy()
        fitted = view.project(head.dense.on(vertices, head.faces)).detach().cpu().numpy()
        _draw_landmarks(clear, fitted[found], None if detected is None else detected[found] * factor)
        _draw_axes(clear, head, vertices, view)
    drawn = _over(image, clear, factor)
    if detected is not None and fitted is not None and np.isfinite(detected[[mp.RIGHT_EYE_CORNER, mp.LEFT_EYE_CORNER]]).all():
        error = landmark_error(fitted[found] / factor, detected[found], detected)
        drawn = _with_note(drawn, f"error {error:.2f}% of the eye distance")
    return drawn


def landmark_error(fitted: NDArray[np.float64], detected: NDArray[np.float64], eyes: NDArray[np.float64]) -> float:
    """The mean distance between fitted and detected landmarks (n, 2), hundredths of the distance between the eyes' outer
    corners in the detected points `eyes` (478, 2)."""
    between = np.linalg.norm(eyes[mp.RIGHT_EYE_CORNER] - eyes[mp.LEFT_EYE_CORNER])
    return float(100 * np.nanmean(np.linalg.norm(fitted - detected, axis=-1)) / max(between, 1e-6))


def _draw_mesh(canvas: NDArray[np.uint8], head: HeadModel, vertices: Tensor, camera: Camera) -> None:
    faces = head.faces[head.face_parts == SKIN]
    a, b, c = vertices[faces].unbind(1)
    facing = (torch.linalg.cross(b - a, c - a) * a).sum(-1) < 0
    pixels = camera.project(vertices).detach().cpu().numpy()
    thickness = max(1, round(_height(pixels) / 1200))
    lines = _fixed(pixels[faces[facing].cpu().numpy()])
    cv2.polylines(canvas, list(lines), True, (*_MESH, 255), thickness, cv2.LINE_AA, _SHIFT)
    np.multiply(canvas, 0.3, out=canvas, casting="unsafe")


def _draw_landmarks(canvas: NDArray[np.uint8], fitted: NDArray[np.float64], detected: NDArray[np.float64] | None) -> None:
    """Fitted landmarks (n, 2) as dots; detected ones as smaller dots on them, with a line to where the fit has them."""
    radius = max(0.5, _height(fitted) / 250)
    for x, y in _fixed(fitted):
        cv2.circle(canvas, (int(x), int(y)), round(radius * (1 << _SHIFT)), (*_FITTED, 255), -1, cv2.LINE_AA, _SHIFT)
    if detected is None:
        return
    seen = np.isfinite(detected).all(-1)
    for (x, y), end in zip(_fixed(detected[seen]).tolist(), _fixed(fitted[seen]).tolist(), strict=True):
        cv2.line(canvas, (x, y), end, (*_DETECTED, 255), max(1, round(radius / 2)), cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, (x, y), round(0.7 * radius * (1 << _SHIFT)), (*_DETECTED, 255), -1, cv2.LINE_AA, _SHIFT)


def _draw_axes(canvas: NDArray[np.uint8], head: HeadModel, vertices: Tensor, camera: Camera) -> None:
    """The head's axes from the tip of the nose, the nearest drawn last. They turn as the upper face does."""
    marks = head.dense.on(vertices, head.faces).detach().cpu().double()
    model = head.dense.on(head.template, head.faces).cpu().double()
    rigid = head.dense.found.cpu() & (model[:, 1] > model[_NOSE_BASE, 1])
    flip = torch.tensor(FLIP, dtype=torch.float64)
    flat, seen = (model[rigid] - model[rigid].mean(0)) * flip, marks[rigid] - marks[rigid].mean(0)
    turn = torch.from_numpy(Rotation.align_vectors(seen.numpy(), flat.numpy())[0].as_matrix())
    nose = marks[_NOSE_TIP]
    tips = nose + _AXIS * (turn @ torch.diag(flip)).T
    start, *ends = _fixed(camera.project(torch.cat([nose[None], tips])).numpy()).tolist()
    thickness = max(2, round(_height(camera.project(marks).numpy()) / 90))
    for axis in tips[:, 2].argsort(descending=True).tolist():
        for colour, wide in (((20, 20, 20), thickness + max(2, thickness // 2)), (_AXES[axis], thickness)):
            cv2.arrowedLine(canvas, start, ends[axis], (*colour, 255), wide, cv2.LINE_AA, _SHIFT, 0.2)


def _over(image: NDArray[np.uint8], drawing: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The drawing (RGBA, colours times alpha, `factor` times as large) over the image."""
    height, width = image.shape[:2]
    if factor > 1:
        drawing = cv2.resize(drawing, (width, height), interpolation=cv2.INTER_AREA)
    kept = image * (1 - drawing[..., 3:].astype(np.float32) / 255)
    return (kept + drawing[..., :3]).round().clip(0, 255).astype(np.uint8)


def _with_note(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The image with a line of text on a dark plate in its lower left corner."""
    page = Image.fromarray(image)
    draw = ImageDraw.Draw(page, "RGBA")
    size = max(11.0, min(image.shape[:2]) / 36)
    font = ImageFont.load_default(size)
    pad = round(size / 3)
    corner = (2 * pad, image.shape[0] - 2 * pad)
    left, top, right, bottom = draw.textbbox(corner, text, font, anchor="ld")
    draw.rectangle((left - pad, top - pad, right + pad, bottom + pad), (0, 0, 0, 150))
    draw.text(corner, text, (255, 255, 255), font, anchor="ld")
    return np.array(page)


def _height(pixels: NDArray[np.float64]) -> float:
    return float(np.ptp(pixels[:, 1]))


def _fixed(pixels: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pixel coordinates, centres at +0.5, in OpenCV's fixed point, centres at 0; far outside they are cut off."""
    return np.clip((pixels - 0.5) * (1 << _SHIFT), -(2**19), 2**19).round().astype(np.int32)
