"""Identity: people drawn at random from MakeHuman's sliders, aligned rigidly, and their principal components."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import makehuman
from .expressions import flipped

SEED = 20240601
LOCAL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck", "asym")
DROPPED = re.compile(
    r"head-trans|head-angle|head-age|neck-trans|neck-scale-vert|measure-neck-height|neck-back|asymm-|nose-trans-backward"
)
"""Targets that place the head or bow the neck instead of shaping the face, ageing by another way than the macro targets,
the trunk, and one that moves the upper teeth through the face."""
LOCAL_SIGMA, LOCAL_REACH = 0.5, 0.005  # a slider's standard deviation: as a share of its range; metres at the most
UNCOUPLED = 0.2  # share of a paired slider's deviation that left and right do not have in common
SIDEWAYS = re.compile("asym-|nose-trans-in|mouth-trans-in")  # sliders without a symmetric part
EYE_RIM = (0.018, 0.038)  # metres from the eyeball's centre: whole within, untouched beyond
OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
    ("compress", "uncompress"), ("l", "r"),
)  # fmt: skip
RACES, GENDERS, AGES, LEVELS = ("african", "asian", "caucasian"), ("female", "male"), ("child", "young", "old"), (
    "min", "average", "max",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Slider:
    """One of MakeHuman's local sliders: displacements (N, 3) at -1 and +1, and its standard deviation."""

    low: np.ndarray
    high: np.ndarray
    sigma: float


def crowd(
    data: Path, target: Callable[[Path], np.ndarray], count: int, more: dict[str, "Slider"] | None = None
) -> np.ndarray:
    """Displacements (count, V, 3) of random people.

    Args:
        target: reads a target's displacements (V, 3) of the head. more: sliders besides MakeHuman's own.
    """
    rng = np.random.default_rng(SEED)
    sliders = local_sliders(data, target) | (more or {})
    people = local_part(sliders, local_values(sliders, count, rng)) + macro_part(data, target, count, rng)
    return people.reshape(count, -1, 3)


def local_sliders(data: Path, target: Callable[[Path], np.ndarray]) -> dict[str, Slider]:
    """The local sliders by name."""
    shift: dict[str, np.ndarray] = {}
    for folder in LOCAL_FOLDERS:
        for name, path in makehuman.target_files(data, folder).items():
            if not DROPPED.search(name):
                shift[name] = target(path)
    sliders: dict[str, Slider] = {}
    done: set[str] = set()
    for name, high in shift.items():
        if name in done:
            continue
        stem, _, end = name.rpartition("-")
        ends = next(((a, b) for a, b in OPPOSITES if end in (a, b) and {f"{stem}-{a}", f"{stem}-{b}"} <= shift.keys()), None)
        low, slider = np.zeros_like(high), name
        if ends:
            low, high = (shift[f"{stem}-{e}"] for e in ends)
            done |= {f"{stem}-{e}" for e in ends}
            slider = f"{stem}-{ends[0]}-{ends[1]}"
        reach = max(np.linalg.norm(x, axis=1).max() for x in (low, high))
        if reach > 0:
            sigma = min(LOCAL_SIGMA, LOCAL_REACH / reach)
            sliders[slider] = Slider(low, high, sigma * UNCOUPLED if SIDEWAYS.match(slider) else sigma)
    return sliders


def eye_size(rest: np.ndarray, eyes: list[np.ndarray]) -> Slider:
    """A slider that MakeHuman lacks: eyeballs with all that surrounds them grow by a quarter, as in drawn faces."""
    shift = np.zeros_like(rest)
    for centre in eyes:
        arm = rest - centre
        fade = ((EYE_RIM[1] - np.linalg.norm(arm, axis=1)) / (EYE_RIM[1] - EYE_RIM[0])).clip(0, 1)
        shift += 0.25 * (fade * fade * (3 - 2 * fade))[:, None] * arm
    return Slider(-shift, shift, 0.25)


def local_values(sliders: dict[str, Slider], count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random slider positions (count,) by name; left and right mostly agree."""
    values: dict[str, np.ndarray] = {}
    for name, slider in sliders.items():
        own = rng.normal(0, slider.sigma, count)
        if name.startswith("r-"):
            shared = values["l-" + name[2:]]
            own = np.sqrt(1 - UNCOUPLED**2) * shared + UNCOUPLED * own
        values[name] = own
    return values


def local_part(sliders: dict[str, Slider], values: dict[str, np.ndarray]) -> np.ndarray:
    """Displacements (count, 3 V) of people with the given slider positions."""
    names = list(sliders)
    weights = [np.clip(values[n], 0, None) for n in names] + [np.clip(-values[n], 0, None) for n in names]
    shifts = [sliders[n].high for n in names] + [sliders[n].low for n in names]
    return np.stack(weights, 1).astype(np.float32) @ np.stack([s.ravel() for s in shifts]).astype(np.float32)


def _between(position: np.ndarray, stops: int) -> np.ndarray:
    """Linear interpolation weights (count, stops) for positions 0..1 along evenly spaced stops."""
    return np.clip(1 - np.abs(position[:, None] * (stops - 1) - np.arange(stops)), 0, 1)


def macro_part(
    data: Path, target: Callable[[Path], np.ndarray], count: int, rng: np.random.Generator
) -> np.ndarray:
    """Displacements (count, 3 V) of people of random sex, age, origin, muscle and weight.

    One in eight is a child or between child and young, the others between young and old.
    """
    folder = makehuman.target_files(data, "macrodetails")
    origin = rng.dirichlet([0.5] * 3, count)
    sex = _between(rng.beta(0.4, 0.4, count), 2)
    child = rng.random(count) < 1 / 8
    age = _between(np.where(child, rng.uniform(0.05, 0.5, count), rng.uniform(0.5, 1.0, count)), 3)
    muscle, weight = (_between(np.clip(rng.normal(0.5, 0.2, count), 0, 1), 3) for _ in range(2))
    total = np.zeros((count, target(next(iter(folder.values()))).size), np.float32)

    def add(name: str, share: np.ndarray) -> None:
        if name in folder:
            shift = target(folder[name]).ravel().astype(np.float32)
            np.add(total, share.astype(np.float32)[:, None] * shift, out=total)

    for g, gender in enumerate(GENDERS):
        for a, years in enumerate(AGES):
            for r, race in enumerate(RACES):
                add(f"{race}-{gender}-{years}", sex[:, g] * age[:, a] * origin[:, r])
            for m, strength in enumerate(LEVELS):
                for w, bulk in enumerate(LEVELS):
                    share = sex[:, g] * age[:, a] * muscle[:, m] * weight[:, w]
                    add(f"universal-{gender}-{years}-{strength}muscle-{bulk}weight", share)
    return total


def align(people: np.ndarray, weights: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Turn and shift each of (P, V, 3) onto a reference (V, 3) in the weighted least squares sense; scale stays."""
    share = (weights / weights.sum()).astype(people.dtype)
    aim = (reference - share @ reference).astype(people.dtype)
    out = people - np.einsum("v,pvx->px", share, people)[:, None]
    u, _, vt = np.linalg.svd(np.einsum("pvx,vy->pxy", out, share[:, None] * aim))
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return np.matmul(out, u @ vt) + (share @ reference).astype(people.dtype)


def aligned_mean(people: np.ndarray, frame: np.ndarray, rest: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Generalised Procrustes alignment without scale: people (P, V, 3) aligned, and their symmetric mean (V, 3).

    The mean stands as `rest` (V, 3) does. `frame` (V,) weighs the vertices that tell a head's orientation.
    """
    mean = rest
    for _ in range(5):
        people = align(people, frame, mean)
        mean = people.mean(0, dtype=np.float64)
        mean = align(((mean + flipped(mean, mirror)) / 2)[None], frame, rest)[0]
    return align(people, frame, mean), mean


def components(
    deviations: np.ndarray, weights: np.ndarray, mirror: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal components of deviations (P, V, 3) and their mirror images together: each is symmetric or antisymmetric.

    Returns:
        (count, V, 3) one standard deviation each, by falling variance, orthogonal under the vertex weights (V,);
        (count,) bool: symmetric; (count,) the share of the weighted variance that each explains.
    """
    image = flipped(deviations, mirror)
    found = [_principal((deviations + sign * image) / 2, weights, count) for sign in (1, -1)]
    basis = np.concatenate([b for b, _, _ in found])
    variance = np.concatenate([v for _, v, _ in found])
    symmetric = np.arange(len(basis)) < len(found[0][0])
    best = np.argsort(-variance, kind="stable")[:count]
    return basis[best], symmetric[best], variance[best] / sum(total for _, _, total in found)


def _principal(deviations: np.ndarray, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    flat = (deviations * np.sqrt(weights).astype(deviations.dtype)[:, None]).reshape(len(deviations), -1)
    variance, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    variance, vectors = variance[::-1][:count] / len(flat), vectors[:, ::-1][:, :count]
    basis = np.tensordot(vectors.T / np.sqrt(len(flat)), deviations.astype(np.float64), 1)
    sign = np.sign(basis.reshape(count, -1)[np.arange(count), np.abs(basis.reshape(count, -1)).argmax(1)])
    return basis * sign[:, None, None], variance, float((flat.astype(np.float64) ** 2).sum() / len(flat))
