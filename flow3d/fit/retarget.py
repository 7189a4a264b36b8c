"""Retargeting: the driver's motion on the source's head, seen by the source's camera."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..head.model import HeadModel
from ..rotations import compose, inverse
from ..track import HeadTrack
from .arkit import on_head
from .openings import match_openings
from .parts import FACE_PARTS, expression_parts, joint_part

Mode = Literal["relative", "absolute"]
MODES: tuple[Mode, ...] = ("relative", "absolute")
PARTS = frozenset({"expression", "jaw", "pose", "eyes", "translation"})
"""What can be taken from the driver or left: `jaw` is the jaw joint with the jaw* expressions and mouthClose, which
counters jawOpen; `eyes` the eye joints with the eyeLook* expressions; `pose` the rotation of the head with the neck;
`translation` where the head is; `expression` all the rest."""


def retarget(
    head: HeadModel,
    source: HeadTrack,
    driver: HeadTrack,
    mode: str = "relative",
    parts: Iterable[str] = PARTS,
    reference: int = 0,
) -> HeadTrack:
    """The source's head doing what the driver does: a track as long as the driver, with the source's shape and camera.

    relative: what the driver changes against its frame `reference` is added to the source. Rotations compose,
    `R(t) = R_drv(t) R_drv(reference)^-1 R_src`; the head moves in the picture as the driver's does, and the face by its
    expressions, measured in head sizes; the depth changes by the same ratio; eyes and mouth open as the driver's do (see
    `openings.py`). The reference frame is the source bit for bit.
    absolute: the driver's rotation, joints and expression as they are; the head stands in the picture where the driver's
    does and is as large (both against the image's short side).

    Landmark and frame offsets follow the expression, scaled by the ratio of head sizes; in absolute mode their mean over
    the clip, which belongs to the driver's identity, is left out.

    Args:
        source: a track of one frame. driver: any track of the same head model, or a bundled motion, which fits every head.
        parts: names out of `PARTS`; the others stay as in the source.
        reference: a frame of the driver, from 0; absolute mode does not use it.

    Raises InputError for an unknown mode or part, a source of several frames, a reference that the driver does not have,
    or tracks of different head models.
    """
    parts = frozenset(parts)
    driver = on_head(driver, head)
    _check(head, source, driver, mode, parts, reference)
    driver = _like(driver, source)
    size_ratio = (_head_size(head, source) / _head_size(head, driver)).to(source.translation)
    device = source.joints.device
    take_joints = torch.tensor([joint_part(n) in parts for n in source.joint_names[1:]], device=device)
    take_expression = torch.tensor([_part(p) in parts for p in expression_parts(head)], device=device)
    moved: _Relative | _Absolute = _Absolute(source, driver, size_ratio)
    if mode == "relative":
        moved = _Relative(source, driver, size_ratio, reference)
    n = len(driver)
    expression = torch.where(take_expression, moved.expression(head), source.expression)
    joints = torch.where(take_joints[:, None], moved.joints(), source.joints)
    surface: dict[str, Any] = {
        name: moved.offsets(name) if "expression" in parts else _repeated(getattr(source, name), n)
        for name in ("frame_offsets", "landmark_offsets")
    }
    target = replace(
        source,
        expression=expression,
        joints=joints,
        rotation=moved.rotation() if "pose" in parts else source.rotation.repeat(n, 1),
        translation=moved.translation() if "translation" in parts else source.translation.repeat(n, 1),
        fps=driver.fps,
        confidence=driver.confidence,
        state=driver.state,
        error=driver.error,
        rotation_deviation=driver.rotation_deviation,
        translation_deviation=driver.translation_deviation,
        **surface,
    )
    if mode == "absolute":
        return target
    free = {"eyeBlinkLeft", "eyeBlinkRight"} if "expression" in parts else set()
    free |= {"jawOpen"} if "jaw" in parts else set()
    return match_openings(head, source, driver, target, frozenset(free), reference)


_LOWER_FACE, _LEAST = ("mouth", "jaw", "cheek"), -0.5
"""Named expressions are made for 0..1. But where the driver lets go of what its reference frame has, only values below 0 move
the source's lips as the driver's move. Brows and eyes stay above 0: lids are opened by measure, and brows pull at them."""


class _Relative:
    """The driver's change against one of its frames, on the source. Where nothing has changed the source's bits remain."""

    def __init__(self, source: HeadTrack, driver: HeadTrack, size_ratio: Tensor, reference: int):
        self.source, self.driver, self.size_ratio = source, driver, size_ratio
        self.rest = driver[[reference]]

    def expression(self, head: HeadModel) -> Tensor:
        """The same change in head sizes: components are metres, however large the head."""
        start = self.source.expression
        wanted = start + self.size_ratio * (self.driver.expression - self.rest.expression)
        if not head.expression_names:
            return wanted
        least = torch.tensor([_LEAST if n.startswith(_LOWER_FACE) else 0.0 for n in head.expression_names]).to(start)
        return wanted.clamp(torch.minimum(start, least), start.clamp(min=1))

    def joints(self) -> Tensor:
        return _turned(self.source.joints, self.driver.joints, self.rest.joints)

    def rotation(self) -> Tensor:
        return _turned(self.source.rotation, self.driver.rotation, self.rest.rotation)

    def translation(self) -> Tensor:
        """The same shift in the picture in units of the head's size in it; the depth in proportion.

        A head of size s at depth z measures f s / z pixels, so the shift `d(x / z) f` is `d(x / z) z / s` head sizes: the
        focal lengths drop out.
        """
        start, now, rest = self.source.translation, self.driver.translation, self.rest.translation
        depth = now[:, 2:] / rest[:, 2:]
        shift = (now[:, :2] / now[:, 2:] - rest[:, :2] / rest[:, 2:]) * rest[:, 2:] * self.size_ratio
        return torch.cat([(start[:, :2] + shift) * depth, start[:, 2:] * depth], 1)

    def offsets(self, name: str) -> Tensor | None:
        start, now = getattr(self.source, name), getattr(self.driver, name)
        if now is None:
            return _repeated(start, len(self.driver))
        change = (now - getattr(self.rest, name)) * self.size_ratio
        return change if start is None else start + change


def _turned(start: Tensor, now: Tensor, rest: Tensor) -> Tensor:
    """`now rest^-1 start`, axis-angle (1, ..., 3), (T, ..., 3) and (1, ..., 3) to (T, ..., 3)."""
    start, rest = start.expand_as(now), rest.expand_as(now)
    still = (now == rest).all(-1, keepdim=True)
    return torch.where(still, start, compose(now, inverse(rest), start))


class _Absolute:
    """The driver's values, on the source's scale."""

    def __init__(self, source: HeadTrack, driver: HeadTrack, size_ratio: Tensor):
        self.source, self.driver, self.size_ratio = source, driver, size_ratio

    def expression(self, head: HeadModel) -> Tensor:
        return self.driver.expression

    def joints(self) -> Tensor:
        return self.driver.joints

    def rotation(self) -> Tensor:
        return self.driver.rotation

    def translation(self) -> Tensor:
        """Scaled with the head, so that the side shift in head sizes is kept; the depth with the focal length too."""
        mine, other = self.source.camera, self.driver.camera
        zoom = (mine.focal / min(mine.width, mine.height)) / (other.focal / min(other.width, other.height))
        now = self.driver.translation * self.size_ratio
        return torch.cat([now[:, :2], now[:, 2:] * zoom], 1)

    def offsets(self, name: str) -> Tensor | None:
        start, now = getattr(self.source, name), getattr(self.driver, name)
        if now is None:
            return _repeated(start, len(self.driver))
        change = (now - now.mean(0, keepdim=True)) * self.size_ratio
        return change if start is None else start + change


def _check(
    head: HeadModel, source: HeadTrack, driver: HeadTrack, mode: str, parts: frozenset[str], reference: int
) -> None:
    if mode not in MODES:
        raise InputError(f"Retarget: there is no mode '{mode}'. Choose one of {', '.join(MODES)}.")
    if parts - PARTS:
        raise InputError(f"Retarget: unknown part {', '.join(sorted(parts - PARTS))}. There are {', '.join(sorted(PARTS))}.")
    if len(source) != 1:
        raise InputError(f"Retarget: the source track has {len(source)} frames, not 1. Choose one frame of it.")
    if not 0 <= reference < len(driver):
        raise InputError(
            f"Retarget: the reference frame is {reference}, but the driver has {len(driver)} frames, 0 to {len(driver) - 1}."
        )
    digests = {t.head_digest for t in (source, driver) if t.head_digest}
    same_size = source.expression.shape[1] == driver.expression.shape[1] and source.joint_names == driver.joint_names
    if len(digests) > 1 or not same_size:
        raise InputError(
            f"Retarget: the source was fitted with head model {_identity(source)}, the driver with {_identity(driver)}. "
            "Fit both with the same head model."
        )
    if head.n_expression != source.expression.shape[1] or (head.digest and digests and head.digest not in digests):
        raise InputError(
            f"Retarget: the tracks belong to head model {_identity(source)}, but '{head.name}' ({head.digest[:8]}) is "
            "loaded. Load the head model they were fitted with."
        )


def _identity(track: HeadTrack) -> str:
    return f"'{track.head_name or 'unnamed'}' ({track.head_digest[:8] or 'any'}, {track.expression.shape[1]} expressions)"


def _like(driver: HeadTrack, source: HeadTrack) -> HeadTrack:
    """The driver's floats in the source's type and place."""
    names = [n for n in driver.__dataclass_fields__ if isinstance(getattr(driver, n), Tensor)]
    moved = {n: getattr(driver, n) for n in names}
    to = source.rotation
    return replace(driver, **{n: x.to(to) if x.is_floating_point() else x.to(to.device) for n, x in moved.items()})


def _head_size(head: HeadModel, track: HeadTrack) -> Tensor:
    """Metres, a scalar: how far the face's vertices (all, where the head has no face mask) lie from their centre (rms)."""
    v = head.shaped(track.shape.to(head.template)[None])[0]
    v = v[head.masks["face"]] if "face" in head.masks else v
    return (v - v.mean(0)).square().sum(-1).mean().sqrt()


def _part(part: str) -> str:
    """The parts of the face are one here."""
    return "expression" if part in FACE_PARTS else part


def _repeated(x: Tensor | None, n: int) -> Tensor | None:
    return None if x is None else x.repeat(n, *[1] * (x.dim() - 1))
