"""Where MediaPipe's landmarks lie on a head: the landmarker looks at renders of it from many sides (self-detection).

Each detected point is carried back to the triangle it was seen on, all views are gathered on one common shape (the
template with its mouth open, so that the lips are apart), and their robust mean is laid onto the surface.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import radians
from typing import NamedTuple, Protocol

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..camera import Camera
from ..errors import Flow3DError
from ..fit import mediapipe_points as mp
from ..render.rasterize import Fragments, rasterize
from ..render.shade import eyeball_vertices, shade, vertex_normals
from ..rotations import compose
from .model import SKIN, HeadModel, Landmarks, to_camera
from .surface import closest_on_surface, mirror_vertices

SIZE = 512  # pixels: side of the renders
DISTANCE = 0.85  # metres from the camera to the head's middle
FOCAL = 2.0 * SIZE
YAWS, PITCHES = (-30.0, -15.0, 0.0, 15.0, 30.0), (-15.0, 0.0, 15.0)  # degrees
OPENINGS = (0.0, 0.45)  # of jawOpen, or of 0.35 rad of the jaw joint
PEOPLE, PEOPLE_SIGMA, PEOPLE_COMPONENTS = 3, 0.6, 40  # the template, then random identities
REACH = 4.0  # pixels: a landmark that falls beside the part it belongs to snaps to it within this distance
OVAL_REACH = 16.0  # pixels: the face's oval often falls beside the head
GRAZING = 0.25  # cosine between normal and line of sight below which a point is too uncertain
OVAL_TURN = 16.0  # degrees of yaw and pitch together beyond which the oval follows the silhouette, not the face
OUTLIERS = 2.5  # hits beyond this many median distances from the median do not count in the mean
MIDLINE_REACH = 0.002  # metres
FEWEST = 3  # hits below which a landmark counts as not found

LANDMARKS_68 = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""MediaPipe's point nearest in meaning to each of the 68 points of iBUG's mark-up."""

Progress = Callable[[int, int], None]


class Detection(Protocol):
    points: np.ndarray  # (478, 2) pixels


class Detector(Protocol):
    """What finds the landmarks: `fit.detect.MediaPipeDetector`."""

    def detect(self, image: np.ndarray) -> list: ...


@dataclass(frozen=True, eq=False)
class View:
    """One render of the head: who, how wide the mouth is open, from where."""

    shape: Tensor  # (S,)
    opening: float
    yaw: float  # degrees
    pitch: float


class _Hits(NamedTuple):
    """What one view says: for each landmark the triangle, barycentrics, and whether to believe it."""

    face: np.ndarray  # (478,)
    bary: np.ndarray  # (478, 3)
    valid: np.ndarray  # (478,) bool


def embed_landmarks(head: HeadModel, detector: Detector, progress: Progress | None = None) -> HeadModel:
    """The head with `landmarks_dense`, `landmarks68` and `landmark_spread` found by running the landmarker on renders.

    A head whose mesh is its own mirror image gets an embedding that is, too. Landmarks that fewer than three views
    saw have face -1 and a spread of nan. Takes 10 to 30 s on a CPU.

    Args:
        progress: called with (renders done, renders in all).

    Raises Flow3DError where the detector finds no face on the head.
    """
    shape = torch.zeros(1, head.n_shape, dtype=head.dtype, device=head.device)
    common = _posed(head, shape, OPENINGS[-1])[0].cpu().double().numpy()
    faces = head.faces.cpu().numpy()
    hits: list[list[np.ndarray]] = [[] for _ in range(mp.N_POINTS)]
    plan = list(views(head))
    for i, view in enumerate(plan):
        seen = _look(head, detector, view)
        if seen is not None:
            points = (common[faces[seen.face]] * seen.bary[..., None]).sum(1)
            for k in np.flatnonzero(seen.valid):
                hits[k].append(points[k])
        if progress:
            progress(i + 1, len(plan))
    found = np.array([len(h) >= FEWEST for h in hits])
    if not found.any():
        raise Flow3DError(f"Head model '{head.name}': the landmarker found no face in {len(plan)} renders of it.")
    places, spread = np.zeros((mp.N_POINTS, 3)), np.full(mp.N_POINTS, np.nan)
    for k in np.flatnonzero(found):
        places[k], spread[k] = _robust_mean(np.array(hits[k]))
    embedded = _settle(head, common, places, found)
    marks = Landmarks(*(torch.from_numpy(x).to(head.device) for x in embedded))
    marks = Landmarks(marks.face.long(), marks.bary.to(head.dtype))
    pick = list(LANDMARKS_68)
    return replace(
        head,
        landmarks_dense=marks,
        landmarks68=Landmarks(marks.face[pick], marks.bary[pick]),
        landmark_spread=torch.from_numpy(spread).to(head.device, head.dtype),
    )


def views(head: HeadModel) -> Iterator[View]:
    """The renders to look at, the same ones each time."""
    random = torch.Generator().manual_seed(0)
    n = min(PEOPLE_COMPONENTS, head.n_shape)
    for person in range(PEOPLE):
        shape = torch.zeros(head.n_shape, dtype=head.dtype)
        if person:
            shape[:n] = PEOPLE_SIGMA * torch.randn(n, generator=random)
        for opening in OPENINGS:
            for yaw in YAWS:
                for pitch in PITCHES:
                    yield View(shape.to(head.device), opening, yaw, pitch)


def render_view(head: HeadModel, view: View) -> tuple[np.ndarray, Fragments, Tensor, Camera]:
    """A view as an image (H, W, 3) uint8, what is seen where, the vertices (1, V, 3) in the camera frame, the camera."""
    camera = Camera(FOCAL, SIZE / 2, SIZE / 2, SIZE, SIZE)
    vertices = _posed(head, view.shape[None], view.opening)
    ball = eyeball_vertices(head).any(0)
    middle = vertices[:, ball].mean(1) if ball.any() else vertices.mean(1)
    turn = compose(
        vertices.new_tensor([[radians(view.pitch), 0.0, 0.0]]), vertices.new_tensor([[0.0, radians(view.yaw), 0.0]])
    )
    placed = to_camera(vertices, middle, turn, vertices.new_tensor([[0.0, -0.03, DISTANCE]]))
    fragments = rasterize(placed, head.faces, camera)
    image = (shade(head, placed, camera, fragments)[0] * 255).round().to(torch.uint8).cpu().numpy()
    return image, fragments, placed, camera


def _posed(head: HeadModel, shape: Tensor, opening: float) -> Tensor:
    """(1, V, 3): a head with its mouth open, by expression where it has one for that, else by its jaw joint."""
    expression = shape.new_zeros(1, head.n_expression)
    joints = shape.new_zeros(1, head.n_joints - 1, 3)
    if "jawOpen" in head.expression_names:
        expression[0, head.expression_index("jawOpen")] = opening
    elif "jaw" in head.joint_names:
        joints[0, head.joint_names.index("jaw") - 1, 0] = 0.35 * opening
    return head.vertices(shape, expression, joints)[0]


def _look(head: HeadModel, detector: Detector, view: View) -> _Hits | None:
    """Detect on one view and carry the points back to the surface."""
    image, fragments, vertices, camera = render_view(head, view)
    detections = detector.detect(image)
    if not detections:
        return None
    pixel = detections[0].points
    triangle = fragments.triangle[0].cpu().numpy()
    iris = _iris(head)
    at, distance = np.zeros((mp.N_POINTS, 2), int), np.full(mp.N_POINTS, np.inf)
    for wanted, allowed in ((~iris, _on_face(head)[triangle]), (iris, _on_eyeballs(head)[triangle])):
        allowed = allowed & (triangle >= 0)
        if allowed.any():
            at[wanted], distance[wanted] = _nearest_allowed(pixel[wanted], allowed)
    face = np.maximum(triangle[at[:, 1], at[:, 0]], 0)
    corners = vertices[0].cpu().double().numpy()[head.faces.cpu().numpy()[face]]
    snapped = np.abs(at + 0.5 - pixel).max(1) > 0.5
    ray = np.where(snapped[:, None], at + 0.5, pixel)
    bary = _ray_barycentrics(corners, ray, camera)
    normals = vertex_normals(vertices, head.faces)[0].cpu().double().numpy()[head.faces.cpu().numpy()[face]]
    point, normal = (corners * bary[..., None]).sum(1), (normals * bary[..., None]).sum(1)
    facing = -(point * normal).sum(1) / np.linalg.norm(point, axis=1) / np.linalg.norm(normal, axis=1).clip(1e-9)
    oval = np.isin(np.arange(mp.N_POINTS), mp.OVAL)  # it lies on the silhouette
    near = distance <= np.where(oval, OVAL_REACH, REACH)
    return _Hits(face, bary, near & ((facing > GRAZING) | oval) & _trusted(view))


def _trusted(view: View) -> np.ndarray:
    """(478,) bool: the landmarks that such a view tells rightly."""
    trusted = np.ones(mp.N_POINTS, bool)
    if view.opening == 0:
        trusted[list(mp.INNER_LIPS)] = False  # closed lips hide them
    if abs(view.yaw) + abs(view.pitch) > OVAL_TURN:
        trusted[list(mp.OVAL)] = False
    return trusted


def _iris(head: HeadModel) -> np.ndarray:
    """(478,) bool: the landmarks that lie on eyeballs, none where the head has no eyeballs."""
    iris = np.zeros(mp.N_POINTS, bool)
    iris[list(mp.IRISES)] = bool(eyeball_vertices(head).any())
    return iris


def _on_face(head: HeadModel) -> np.ndarray:
    """(F,) bool: the skin without ears and neck, where the head tells them apart: no landmark lies there."""
    skin = head.face_parts == SKIN
    for name in ("ears", "neck"):
        if name in head.masks:
            skin = skin & ~head.masks[name][head.faces].all(1)
    return skin.cpu().numpy()


def _on_eyeballs(head: HeadModel) -> np.ndarray:
    """(F,) bool: the triangles of the eyeballs."""
    return eyeball_vertices(head).any(0)[head.faces].all(1).cpu().numpy()


def _nearest_allowed(pixel: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For points (N, 2) the nearest allowed pixel (N, 2) of a mask (H, W), and how many pixels (N,) away it is."""
    h, w = allowed.shape
    x, y = np.floor(pixel).astype(int).clip(0, (w - 1, h - 1)).T
    distance, (row, column) = distance_transform_edt(~allowed, return_indices=True)
    inside = ((pixel >= 0) & (pixel < (w, h))).all(1)
    return np.stack([column[y, x], row[y, x]], 1), np.where(inside, distance[y, x], np.inf)


def _ray_barycentrics(corners: np.ndarray, pixel: np.ndarray, camera: Camera) -> np.ndarray:
    """Where the rays through pixels (N, 2) meet the planes of triangles (N, 3, 3), clamped to the triangles: (N, 3)."""
    ray = np.stack([(pixel[:, 0] - camera.cx), (pixel[:, 1] - camera.cy), np.full(len(pixel), camera.focal)], 1)
    volume = np.stack([np.linalg.det(np.stack([corners[:, i - 2], corners[:, i - 1], ray], 1)) for i in range(3)], 1)
    total = volume.sum(1, keepdims=True)
    bary = np.where(np.abs(total) > 1e-15, volume / np.where(total == 0, 1, total), 1 / 3).clip(0, 1)
    return bary / bary.sum(1, keepdims=True).clip(1e-9)


def _robust_mean(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean of (N, 3) without outliers, and the root mean square distance of all points from it, metres."""
    far = np.linalg.norm(points - np.median(points, 0), axis=1)
    mean = points[far <= OUTLIERS * np.median(far) + 1e-9].mean(0)
    return mean, float(np.sqrt(((points - mean) ** 2).sum(1).mean()))


def _settle(head: HeadModel, common: np.ndarray, places: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay the mean places onto the surface of the common shape, symmetrically where the mesh is symmetric."""
    faces, iris = head.faces.cpu().numpy(), _iris(head)
    flip = np.array([-1.0, 1.0, 1.0])
    mirror = mirror_vertices(head.template.cpu().double().numpy(), faces)
    partner = np.array(mp.MIRRORED)
    if mirror is not None:
        images = places[partner] * flip
        places = np.where((found & found[partner])[:, None], (places + images) / 2, np.where(found[:, None], places, images))
        found = found | found[partner]
    face, bary = np.full(mp.N_POINTS, -1), np.zeros((mp.N_POINTS, 3))
    for on_eye, allowed in ((False, _on_face(head)), (True, _on_eyeballs(head))):
        chosen = np.flatnonzero(found & (iris == on_eye))
        if len(chosen) and allowed.any():
            candidates = np.flatnonzero(allowed)
            hit, bary[chosen] = closest_on_surface(common[faces[candidates]], places[chosen])
            face[chosen] = candidates[hit]
    if mirror is not None:
        _onto_midline(common, faces, mirror, places, face, bary)
        _mirror_embedding(faces, mirror, face, bary)
    return face, bary


def _onto_midline(
    common: np.ndarray, faces: np.ndarray, mirror: np.ndarray, places: np.ndarray, face: np.ndarray, bary: np.ndarray
) -> None:
    """Move the landmarks that are their own mirror images onto the nearest edge along the midline, if near (in place)."""
    along, corner = np.nonzero((mirror[faces] == faces) & (mirror[np.roll(faces, -1, 1)] == np.roll(faces, -1, 1)))
    own = np.flatnonzero((np.array(mp.MIRRORED) == np.arange(mp.N_POINTS)) & (face >= 0))
    if not len(along) or not len(own):
        return
    ends = np.stack([faces[along, corner], faces[along, (corner + 1) % 3]], 1)
    hit, share = closest_on_surface(common[ends[:, [0, 1, 1]]], places[own])
    for k, edge, weights in zip(own, hit, share, strict=True):
        landed = weights[0] * common[ends[edge, 0]] + (1 - weights[0]) * common[ends[edge, 1]]
        if np.linalg.norm(landed - (bary[k] @ common[faces[face[k]]])) < MIDLINE_REACH:
            face[k], bary[k] = along[edge], 0.0
            bary[k, corner[edge]] = weights[0]
            bary[k, (corner[edge] + 1) % 3] = 1 - weights[0]


def _mirror_embedding(faces: np.ndarray, mirror: np.ndarray, face: np.ndarray, bary: np.ndarray) -> None:
    """Make the left landmark of each pair the exact mirror image of the right one (in place)."""
    triangle = {tuple(sorted(f)): i for i, f in enumerate(faces.tolist())}
    for right, left in enumerate(mp.MIRRORED):
        if left > right and face[right] >= 0:
            image = mirror[faces[face[right]]]
            face[left] = triangle[tuple(sorted(image.tolist()))]
            bary[left] = [bary[right][image == corner][0] for corner in faces[face[left]]]
