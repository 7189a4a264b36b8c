"""The contact sheet, and the demo's bundled landmarks."""

from dataclasses import replace

import numpy as np
import torch
from skimage.data import astronaut
from small_head import random_track, small_head

from comfyui_flow3d.flow3d.demo import LANDMARKS, load_face, save_face
from comfyui_flow3d.flow3d.io.sheet import Row, contact_sheet, telling_frames


def test_every_picture_is_on_the_sheet_once():
    colours = np.array([[200, 30, 40], [20, 180, 60], [30, 60, 190], [120, 90, 10], [90, 10, 120]], np.uint8)
    wide, high = np.broadcast_to(colours[0], (50, 100, 3)), np.broadcast_to(colours[1], (400, 200, 3))
    rows = [Row("first", [wide, high]), Row("second", [np.broadcast_to(c, (64, 64, 3)) for c in colours[2:]])]
    page = contact_sheet(rows, ["0", "1", "2"], cell=64)
    areas = [(np.abs(page.astype(int) - c).max(-1) <= 2).sum() for c in colours]
    assert areas == [64 * 32, 32 * 64, 64 * 64, 64 * 64, 64 * 64]
    assert [np.argwhere((page == c).all(-1)).mean(0)[0] < page.shape[0] / 2 for c in colours] == [True] * 2 + [False] * 3


def test_telling_frames_are_where_the_head_has_moved_most():
    still = random_track(small_head(), 1, 0)[[0] * 31]
    rotation = still.rotation.clone()
    rotation[7, 1] += 0.3
    rotation[22, 0] -= 0.4
    assert telling_frames(replace(still, rotation=rotation), 3) == [0, 7, 22]
    assert telling_frames(still[:1], 6) == [0]
    assert len(telling_frames(still[:3], 6)) == 3


def test_faces_are_kept_to_a_hundredth_of_a_pixel(tmp_path):
    face = load_face(LANDMARKS)
    save_face(replace(face, points=face.points + 0.004), tmp_path / "face.json")
    again = load_face(tmp_path / "face.json", 2.0)
    assert np.abs(again.points - 2 * face.points).max() <= 0.02
    assert again.scores.shape == (51,) and again.matrix.shape == (4, 4)


def test_bundled_landmarks_are_what_the_detector_sees(face_landmarker):
    from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector

    with MediaPipeDetector(face_landmarker) as detector:
        (face, *_) = detector.detect(astronaut())
    kept = load_face(LANDMARKS)
    eyes = np.linalg.norm(kept.points[33] - kept.points[263])
    assert np.linalg.norm(face.points - kept.points, axis=1).mean() < 0.02 * eyes
    assert torch.allclose(torch.tensor(kept.scores), torch.tensor(face.scores), atol=0.25)
