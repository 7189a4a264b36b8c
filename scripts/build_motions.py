"""Make the bundled motions: keyframes of named channels, joined by smooth moves, as tracks of a neutral head.

    python scripts/build_motions.py [FOLDER]

Channels have the names, units and signs of the edits (`flow3d/fit/edit.py`): yaw, pitch, roll, gazeYaw, gazePitch in
degrees, x, y, z in centimetres, ARKit's expressions in 0..1. Every channel starts and ends at 0, so that a motion loops.
Between keyframes a channel follows the minimum-jerk profile 10 s^3 - 15 s^4 + 6 s^5 (Flash and Hogan 1985, eq. 3), which
rests at each keyframe and whose acceleration is continuous. Nothing is random: two runs write the same bytes.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.fit.angles import gaze_rotation, pose_rotation
from comfyui_flow3d.flow3d.fit.arkit import ARKIT, ARKIT_NAMES
from comfyui_flow3d.flow3d.head.model import FLAME_JOINTS
from comfyui_flow3d.flow3d.io.motions import FOLDER
from comfyui_flow3d.flow3d.io.tracks import save_track
from comfyui_flow3d.flow3d.rotations import to_matrix
from comfyui_flow3d.flow3d.track import HeadTrack

FPS = 25
ROOT = (0.0, 0.12, 0.95)
"""Metres, camera frame: the foot of the neck of a head that stands in the middle of the picture."""
PIVOT = (0.0, -0.055, -0.02)
"""Metres, camera axes: from the root joint to the joint of skull and spine, about which a head turns."""
VISEMES: dict[str, dict[str, float]] = {
    "-": {},
    "a": {"jawOpen": 0.55, "mouthLowerDown": 0.2, "mouthUpperUp": 0.12},
    "e": {"jawOpen": 0.26, "mouthStretch": 0.3, "mouthSmile": 0.25, "mouthUpperUp": 0.15, "mouthLowerDown": 0.15},
    "i": {"jawOpen": 0.14, "mouthStretch": 0.4, "mouthSmile": 0.3, "mouthLowerDown": 0.2},
    "o": {"jawOpen": 0.38, "mouthFunnel": 0.5, "mouthPucker": 0.15},
    "u": {"jawOpen": 0.14, "mouthFunnel": 0.3, "mouthPucker": 0.6},
    "m": {"mouthPress": 0.4, "mouthRollLower": 0.2, "mouthRollUpper": 0.15, "jawOpen": 0.05, "mouthClose": 0.05},
    "f": {"jawOpen": 0.1, "mouthRollLower": 0.4, "mouthUpperUp": 0.2},
    "s": {"jawOpen": 0.08, "mouthStretch": 0.2, "mouthLowerDown": 0.15, "mouthSmile": 0.1},
    "l": {"jawOpen": 0.22, "mouthLowerDown": 0.1},
}
"""Mouth shapes of speech; a channel without a side means both."""

Keys = list[tuple[float, float]]
"""(seconds, value)."""


class Motion:
    """Channels under construction; keys added twice to a channel add up."""

    def __init__(self, seconds: float):
        self.times = np.arange(round(seconds * FPS) + 1) / FPS
        self.channels: dict[str, np.ndarray] = {}

    def add(self, channel: str, *keys: tuple[float, float]) -> None:
        """Move `channel` through the keys, from 0 and back to 0 at the ends."""
        self._add(channel, minimum_jerk(self.times, [(0.0, 0.0), *keys, (self.times[-1], 0.0)]))

    def both(self, channel: str, *keys: tuple[float, float], right: float = 1.0) -> None:
        """The same on both sides of the face, scaled by `right` on the subject's right."""
        self.add(channel + "Left", *keys)
        self.add(channel + "Right", *[(t, v * right) for t, v in keys])

    def blink(self, at: float, strength: float = 1.0, sides: tuple[str, ...] = ("Left", "Right"), shut: float = 0.04) -> None:
        """Eyes fully shut from `at` on for `shut` seconds: down in 0.08 s, up in 0.2 s."""
        for side in sides:
            keys = [(at - 0.08, 0.0), (at, strength), (at + shut, strength), (at + shut + 0.2, 0.0)]
            self.add("eyeBlink" + side, *keys)

    def look(self, *keys: tuple[float, float, float], saccade: float = 0.06) -> None:
        """Jump the gaze to (time, yaw, pitch) and rest there; the lids follow the pitch."""
        for name, index in (("gazeYaw", 1), ("gazePitch", 2)):
            steps: Keys = []
            before = 0.0
            for key in keys:
                steps += [(key[0], before), (key[0] + saccade, key[index])]
                before = key[index]
            self.add(name, *steps)
            if name == "gazePitch":
                self.both("eyeBlink", *[(t, max(0.0, -v) / 45) for t, v in steps])
                self.both("eyeWide", *[(t, max(0.0, v) / 60) for t, v in steps])

    def _add(self, channel: str, values: np.ndarray) -> None:
        self.channels[channel] = self.channels.get(channel, 0.0) + values

    def hold_gaze(self, share: float = 0.8) -> None:
        """Turn the eyes against the head, as they do while one looks at somebody."""
        for head, gaze in (("yaw", "gazeYaw"), ("pitch", "gazePitch")):
            if head in self.channels:
                self._add(gaze, -share * self.channels[head])

    def __getitem__(self, channel: str) -> torch.Tensor:
        return torch.tensor(self.channels.get(channel, np.zeros(len(self.times))))

    def track(self) -> HeadTrack:
        """The motion as a track. The head turns about `PIVOT`: its root moves accordingly."""
        unknown = set(self.channels) - {*ARKIT_NAMES, "yaw", "pitch", "roll", "x", "y", "z", "gazeYaw", "gazePitch"}
        assert not unknown, unknown
        frames = len(self.times)
        rotation = pose_rotation(self["yaw"], self["pitch"], self["roll"])
        pivot = torch.tensor(PIVOT, dtype=torch.float64)
        shift = torch.stack([self["x"], -self["y"], -self["z"]], -1) / 100
        translation = torch.tensor(ROOT, dtype=torch.float64) + pivot - to_matrix(rotation) @ pivot + shift
        joints = torch.zeros(frames, len(FLAME_JOINTS) - 1, 3, dtype=torch.float64)
        joints[:, 2] = joints[:, 3] = gaze_rotation(self["gazeYaw"], self["gazePitch"])
        return HeadTrack(
            shape=torch.zeros(0),
            expression=torch.stack([self[n] for n in ARKIT_NAMES], -1).clamp(0, 1).float(),
            joints=joints.float(),
            rotation=rotation.float(),
            translation=translation.float(),
            camera=Camera.from_field_of_view(512, 512),
            fps=float(FPS),
            head_name=ARKIT,
        )


def minimum_jerk(times: np.ndarray, keys: Keys) -> np.ndarray:
    """Values at `times` of a channel that rests at each key and moves between them with least jerk."""
    at, value = np.array([k[0] for k in keys]), np.array([k[1] for k in keys])
    assert (np.diff(at) >= 0).all(), f"keys out of order: {keys}"
    i = np.clip(np.searchsorted(at, times, side="right") - 1, 0, len(at) - 2)
    s = np.clip((times - at[i]) / np.maximum(at[i + 1] - at[i], 1e-9), 0, 1)
    return value[i] + (value[i + 1] - value[i]) * (10 * s**3 - 15 * s**4 + 6 * s**5)


def nod() -> Motion:
    m = Motion(3.6)
    m.add("pitch", (0.2, 0), (0.48, 3), (0.88, -14), (1.28, 4), (1.68, -12), (2.08, 2), (2.48, -6), (3.0, 0))
    m.add("yaw", (0.3, 0), (1.3, 2), (2.4, -1), (3.2, 0))
    m.add("browInnerUp", (0.2, 0), (0.48, 0.35), (0.88, 0.05), (1.28, 0.25), (1.8, 0), (3.0, 0))
    m.both("mouthSmile", (0.8, 0), (1.5, 0.25), (2.4, 0.25), (3.3, 0), right=0.9)
    m.hold_gaze()
    m.blink(0.72)
    m.blink(2.32)
    return m


def shake() -> Motion:
    m = Motion(3.6)
    m.add("yaw", (0.2, 0), (0.6, 11), (1.08, -12), (1.56, 10), (2.04, -8), (2.48, 3), (2.96, 0))
    m.add("roll", (0.2, 0), (0.7, 1.5), (1.2, -1.5), (1.7, 1), (2.3, 0))
    m.add("pitch", (0.2, 0), (1.2, -3), (2.4, -2), (3.1, 0))
    m.both("browDown", (0.3, 0), (0.9, 0.4), (2.2, 0.4), (2.9, 0))
    m.both("mouthPress", (0.4, 0), (1.0, 0.35), (2.2, 0.3), (2.9, 0))
    m.both("mouthFrown", (0.4, 0), (1.0, 0.2), (2.2, 0.2), (2.9, 0))
    m.hold_gaze()
    m.blink(0.8)
    return m


def turn() -> Motion:
    """Yaw reaches +20 and -20 degrees, held for 0.4 s each; the eyes leave first and the blinks fall into the moves."""
    m = Motion(5.0)
    m.add("yaw", (0.28, 0), (1.2, 20), (1.6, 20), (3.04, -20), (3.44, -20), (4.52, 0))
    m.add("roll", (0.28, 0), (1.2, -1.5), (1.6, -1.5), (3.04, 1.5), (3.44, 1.5), (4.52, 0))
    m.add("pitch", (0.28, 0), (0.8, -1.5), (1.2, 0), (1.6, 0), (2.3, -2), (3.04, 0), (3.44, 0), (4.0, -1), (4.52, 0))
    m.add("gazeYaw", (0.16, 0), (0.32, 10), (1.2, 1), (1.56, 1), (1.76, -12), (3.04, -1), (3.4, -1), (3.6, 10), (4.4, 0))
    m.blink(0.6, 0.9)
    m.blink(2.2)
    m.blink(3.92, 0.9)
    return m


def tilt() -> Motion:
    """Roll reaches +15 and -15 degrees."""
    m = Motion(4.4)
    m.add("roll", (0.2, 0), (1.04, 15), (1.4, 15), (2.64, -15), (3.0, -15), (4.0, 0))
    m.add("yaw", (0.2, 0), (1.04, 2), (1.4, 2), (2.64, -2), (3.0, -2), (4.0, 0))
    m.both("mouthSmile", (0.4, 0), (1.2, 0.35), (3.0, 0.35), (4.0, 0), right=0.9)
    m.add("browInnerUp", (0.3, 0), (1.0, 0.3), (1.6, 0.1), (2.6, 0.3), (3.6, 0))
    m.blink(2.0)
    m.blink(3.6)
    return m


def smile() -> Motion:
    m = Motion(4.0)
    rise, hold, fall = 0.9, 2.6, 3.7
    for name, value in (("mouthSmile", 0.9), ("cheekSquint", 0.55), ("eyeSquint", 0.35), ("mouthDimple", 0.3)):
        m.both(name, (0.25, 0), (rise, value), (hold, 0.92 * value), (fall, 0), right=0.94)
    m.both("mouthUpperUp", (0.4, 0), (1.1, 0.22), (hold, 0.2), (3.5, 0))
    m.add("browInnerUp", (0.2, 0), (0.7, 0.3), (1.6, 0.1), (fall, 0))
    m.add("pitch", (0.3, 0), (0.9, 2.5), (1.8, 1.0), (hold, 1.5), (fall, 0))
    m.add("roll", (0.4, 0), (1.3, 3), (hold, 2.5), (fall, 0))
    m.add("yaw", (0.4, 0), (1.4, -2.5), (hold, -2), (fall, 0))
    m.hold_gaze()
    m.blink(0.5)
    m.blink(2.8)
    return m


def talk() -> Motion:
    """About four and a half syllables a second in three phrases; the head marks the stresses."""
    m = Motion(6.0)
    phrases = (
        (0.3, "m a l o m e s a l i m a"),
        (2.3, "u a f o l i m e s a l o"),
        (4.2, "a l e m u s a m o"),
    )
    spoken = [(0.14, "-")]
    for start, text in phrases:
        sounds = text.split()
        spoken += [(start + 0.125 * k + 0.03 * (k % 3), s) for k, s in enumerate(sounds)]
        spoken += [(start + 0.125 * len(sounds) + 0.2, "-")]
    channels = sorted({c for v in VISEMES.values() for c in v})
    for channel in channels:
        keys = [(t, VISEMES[s].get(channel, 0.0) * (0.85 + 0.15 * np.sin(5 * t))) for t, s in spoken]
        if channel + "Left" in ARKIT_NAMES:
            m.both(channel, *keys, right=0.95)
        else:
            m.add(channel, *keys)
    m.add("pitch", (0.2, 0), (0.45, -2.5), (0.9, 1), (1.3, -2), (1.9, 1.5), (2.45, -3), (3.1, 0.5), (3.7, 1.5),
          (4.4, -3), (4.9, 0), (5.3, -1.5), (5.8, 0))  # fmt: skip
    m.add("yaw", (0.3, 0), (1.2, 3.5), (2.1, 1), (3.0, -4), (4.0, -2), (4.8, 2.5), (5.7, 0))
    m.add("roll", (0.3, 0), (1.0, -1.5), (2.4, 2), (3.6, -1), (4.6, 2), (5.7, 0))
    m.add("browInnerUp", (0.2, 0), (0.45, 0.35), (0.9, 0.05), (2.2, 0), (2.45, 0.4), (3.0, 0.05), (4.2, 0), (4.4, 0.45), (5.2, 0))
    m.both("browOuterUp", (2.2, 0), (2.45, 0.25), (3.0, 0), (4.2, 0), (4.4, 0.3), (5.2, 0))
    m.hold_gaze()
    m.blink(1.88)
    m.blink(3.84)
    m.blink(5.6, 0.9)
    return m


def blink_and_wink() -> Motion:
    m = Motion(4.8)
    m.blink(0.52)
    m.blink(0.96)
    for at, side, lean in ((1.92, "Left", 3.0), (3.28, "Right", -3.0)):
        m.blink(at, 1.0, (side,), shut=0.28)
        around = ((at - 0.2, 0), (at, 1), (at + 0.28, 1), (at + 0.6, 0))
        for name, value in (("cheekSquint", 0.6), ("mouthSmile", 0.45), ("mouthDimple", 0.3), ("browDown", 0.3)):
            m.add(name + side, *[(t, v * value) for t, v in around])
        slowly = ((at - 0.4, 0), (at + 0.04, 1), (at + 0.28, 1), (at + 0.8, 0))
        m.add("roll", *[(t, v * lean) for t, v in slowly])
        m.add("yaw", *[(t, -v * lean / 2) for t, v in slowly])
    m.blink(4.32)
    m.hold_gaze()
    return m


def surprise() -> Motion:
    m = Motion(3.8)
    start, peak, hold, end = 0.36, 0.64, 1.5, 3.3
    m.add("browInnerUp", (start, 0), (peak, 0.9), (hold, 0.75), (end, 0))
    m.both("browOuterUp", (start, 0), (peak, 0.85), (hold, 0.7), (end, 0))
    m.both("eyeWide", (start - 0.04, 0), (peak - 0.04, 0.9), (hold, 0.65), (2.2, 0.1), (end, 0))
    m.add("jawOpen", (start, 0), (peak + 0.08, 0.55), (hold, 0.42), (2.6, 0.05), (end, 0))
    m.add("mouthFunnel", (start, 0), (peak + 0.12, 0.25), (hold, 0.2), (2.4, 0), (end, 0))
    m.add("pitch", (start - 0.12, -1), (peak, 5), (hold, 3.5), (end, 0))
    m.add("z", (start - 0.12, 0.2), (peak, -1.6), (hold, -1.2), (end, 0))
    m.add("y", (start, 0), (peak, 0.35), (hold, 0.2), (end, 0))
    m.both("mouthSmile", (1.7, 0), (2.5, 0.35), (2.9, 0.3), (3.5, 0))
    m.hold_gaze()
    m.blink(0.28, 0.7)
    m.blink(2.04)
    m.blink(2.4)
    return m


def idle() -> Motion:
    """Two breaths of three seconds, a slow sway, blinks, and the eyes' small jumps."""
    m = Motion(6.0)
    m.add("y", (1.3, 0.22), (3.0, 0), (4.3, 0.22))
    m.add("pitch", (1.3, 1.1), (3.0, -0.3), (4.3, 0.9))
    m.add("x", (1.6, 0.35), (3.6, -0.3), (5.0, 0.1))
    m.add("yaw", (1.8, 2.0), (3.9, -1.8), (5.2, 0.3))
    m.add("roll", (1.5, -1.0), (3.5, 1.2), (5.0, -0.2))
    m.hold_gaze(0.9)
    m.look((0.6, 1.2, -0.6), (1.32, -0.8, 0.4), (2.2, 0.6, 1.0), (2.9, -1.6, -0.8), (3.8, 0.9, 0.0), (4.8, -0.5, -0.6), (5.6, 0, 0), saccade=0.04)
    m.both("mouthSmile", (2.6, 0), (3.6, 0.12), (4.8, 0.1), (5.8, 0))
    m.blink(1.36)
    m.blink(3.56)
    m.blink(3.92, 0.8)
    return m


def look_around() -> Motion:
    """The eyes go first and the head follows most of the way, while they come back to its middle."""
    m = Motion(6.0)
    m.look((0.4, 20, 2), (0.95, 5, 1), (1.8, -24, 0), (2.5, -6, 0), (3.3, 6, 16), (3.9, 1, 5), (4.55, 0, -12), (5.1, 0, 0))
    m.add("yaw", (0.48, 0), (1.1, 14), (1.85, 14), (2.65, -15), (3.35, -15), (4.0, 4), (4.6, 4), (5.4, 0))
    m.add("pitch", (0.48, 0), (1.1, 1), (2.65, 0), (3.35, 0), (4.0, 8), (4.6, 7), (5.4, 0))
    m.add("roll", (0.48, 0), (1.1, -2), (1.85, -2), (2.65, 2), (3.35, 2), (4.0, -2), (5.2, 0))
    m.add("browInnerUp", (3.2, 0), (3.7, 0.4), (4.5, 0.3), (5.2, 0))
    m.both("browOuterUp", (3.2, 0), (3.7, 0.35), (4.5, 0.25), (5.2, 0))
    m.blink(1.84, 0.9)
    m.blink(4.6)
    return m


def laugh() -> Motion:
    m = Motion(4.8)
    for name, value in (("mouthSmile", 0.9), ("cheekSquint", 0.7), ("eyeSquint", 0.5), ("mouthUpperUp", 0.3), ("mouthDimple", 0.2)):
        m.both(name, (0.2, 0), (0.7, value), (2.9, 0.9 * value), (3.6, 0.4 * value), (4.5, 0), right=0.95)
    m.both("mouthLowerDown", (0.3, 0), (0.8, 0.3), (2.8, 0.25), (3.6, 0), (4.5, 0))
    m.both("noseSneer", (0.3, 0), (0.8, 0.25), (2.8, 0.2), (3.6, 0))
    bursts: Keys = [(0.3, 0)]
    bob: Keys = [(0.3, 0)]
    for k in range(9):
        at, fade = 0.72 + 0.24 * k, 1 - 0.06 * k
        bursts += [(at, 0.5 * fade), (at + 0.12, 0.24 * fade)]
        bob += [(at, 0.5 * fade), (at + 0.12, -0.25 * fade)]
    m.add("jawOpen", *bursts, (3.4, 0.05), (4.3, 0))
    m.add("pitch", *bob, (3.2, 0))
    m.add("pitch", (0.3, 0), (0.9, 6), (1.9, 3), (2.6, -4), (3.4, -1), (4.5, 0))
    m.add("roll", (0.4, 0), (1.2, 4), (2.4, -3), (3.4, 1), (4.5, 0))
    m.add("yaw", (0.4, 0), (1.4, -4), (2.6, 4), (4.4, 0))
    m.both("eyeBlink", (1.4, 0), (1.8, 0.6), (2.5, 0.65), (2.9, 0))
    m.hold_gaze(0.7)
    m.blink(3.52)
    return m


def medley() -> Motion:
    """A little of everything: a turn each way, a look up in surprise, a tilt with a wink, a nod."""
    m = Motion(6.0)
    m.add("yaw", (0.2, 0), (0.92, 15), (1.2, 15), (2.2, -14), (2.52, -14), (3.28, 4), (4.0, -3), (4.9, 0))
    m.add("pitch", (0.2, 0), (0.92, 1), (1.7, -2), (2.52, 0), (3.0, 7), (3.5, 5), (4.1, 0), (4.72, 0), (5.08, -10), (5.52, 1.5), (5.9, 0))
    m.add("roll", (0.2, 0), (0.92, -2), (1.2, -2), (2.2, 2), (2.52, 2), (3.28, 0), (3.5, 0), (4.08, 8), (4.4, 8), (5.0, 0))
    m.hold_gaze(0.45)
    m.both("mouthSmile", (0.3, 0), (1.0, 0.45), (2.1, 0.2), (2.6, 0), (3.5, 0), (4.1, 0.5), (4.6, 0.5), (5.7, 0), right=0.92)
    m.both("browOuterUp", (2.6, 0), (2.92, 0.8), (3.4, 0.6), (3.9, 0))
    m.add("browInnerUp", (2.6, 0), (2.92, 0.85), (3.4, 0.65), (3.9, 0))
    m.both("eyeWide", (2.6, 0), (2.88, 0.8), (3.4, 0.5), (3.8, 0))
    m.add("jawOpen", (2.64, 0), (2.98, 0.5), (3.4, 0.4), (3.84, 0))
    m.add("mouthFunnel", (2.64, 0), (3.0, 0.2), (3.4, 0.15), (3.8, 0))
    for name, value in (("cheekSquint", 0.6), ("browDown", 0.25), ("mouthDimple", 0.25)):
        m.add(name + "Left", (3.95, 0), (4.16, value), (4.4, value), (4.75, 0))
    m.blink(0.6)
    m.blink(1.72)
    m.blink(4.16, 1.0, ("Left",), shut=0.24)
    m.blink(5.0)
    return m


MOTIONS = {
    "nod": nod, "shake": shake, "turn": turn, "tilt": tilt, "smile": smile, "talk": talk, "blink-and-wink": blink_and_wink,
    "medley": medley, "surprise": surprise, "idle": idle, "look-around": look_around, "laugh": laugh,
}  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, make in MOTIONS.items():
        track = make().track()
        path = folder / f"{name}.safetensors"
        save_track(track, path)
        print(f"{name}: {len(track)} frames, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
