"""Whether a head model read from a file is whole: shapes, values and indices."""

from collections.abc import Iterator

import torch

from .model import HeadModel


def fault_of(head: HeadModel) -> str:
    """What is wrong with the head, in a few words; empty where nothing is."""
    return next(_faults(head), "")


def _faults(head: HeadModel) -> Iterator[str]:
    if 0 in (head.template.dim(), head.faces.dim(), head.shape_basis.dim(), head.expression_basis.dim()):
        yield "template, faces, shape_basis or expression_basis is a single number"
    v, f, j = len(head.template), len(head.faces), head.n_joints
    if 0 in (v, f):
        yield "it has no vertices or no triangles"
    shapes = {
        "template": (v, 3),
        "shape_basis": (head.n_shape, v, 3),
        "expression_basis": (head.n_expression, v, 3),
        "pose_basis": (9 * (j - 1), v, 3),
        "joint_regressor": (j, v),
        "skin_weights": (v, j),
        "faces": (f, 3),
        "parts": (f,),
    }
    for name, shape in shapes.items():
        x = getattr(head, name)
        if x is None:
            continue
        if tuple(x.shape) != shape:
            yield f"{name} has shape {tuple(x.shape)}, expected {shape}"
        elif x.is_floating_point() is (name in ("faces", "parts")):
            yield f"{name} holds {str(x.dtype).removeprefix('torch.')}"
        elif not bool(torch.isfinite(x).all()):
            yield f"{name} holds values that are not finite"
    if head.faces.is_floating_point() or int(head.faces.min()) < 0 or int(head.faces.max()) >= v:
        yield f"faces name vertices outside 0 to {v - 1}"
    if len(head.joint_names) != j or any(not -1 <= p < i for i, p in enumerate(head.parents)):
        yield f"the joints {head.joint_names} do not fit the parents {head.parents}"
    if head.expression_names and len(head.expression_names) != head.n_expression:
        yield f"{len(head.expression_names)} names for {head.n_expression} expressions"
    for name, mask in head.masks.items():
        if tuple(mask.shape) != (v,):
            yield f"mask {name} has shape {tuple(mask.shape)}, expected ({v},)"
    for name, marks, count in (("landmarks68", head.landmarks68, 68), ("landmarks_dense", head.landmarks_dense, 478)):
        if marks is None:
            continue
        if tuple(marks.face.shape) != (count,) or tuple(marks.bary.shape) != (count, 3):
            yield f"{name} has {tuple(marks.face.shape)} faces and {tuple(marks.bary.shape)} weights, expected {count}"
        elif int(marks.face.max()) >= f or not bool(torch.isfinite(marks.bary).all()):
            yield f"{name} lies outside the {f} triangles"
