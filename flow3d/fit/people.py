"""Who is who in a clip: faces found frame by frame become people, each followed through crossings, gaps and cuts.

Faces and people are matched with the Hungarian method, as SORT and DeepSORT do it (Bewley et al. 2016, Wojke et al.
2017): first by where a person is expected to be, how large, and how they look; then, for those who were away, by looks
alone. Looks are a histogram of colours and a small grey picture of the face set upright: no network. Pictures are not
kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from ..errors import InputError
from .faces import Face

LARGEST, LEFT_TO_RIGHT, CENTRAL, CONFIDENT = ORDERS = ("largest", "left to right", "most central", "most confident")
NEW_TRACK, ERROR, IGNORE = CUTS = ("new track", "error", "ignore")

_SIDE = 48  # pixels of the upright face that looks are taken from
_FEATURES = np.array([[0.32, 0.40], [0.68, 0.40], [0.50, 0.77]])  # right eye, left eye and mouth in it, shares of its side
_GREY = 32  # pixels of the grey picture
_BINS = 16
_COLOUR_RANGE = 96, 160  # of OpenCV's a and b, where skin, hair and clothes lie

_PLACE = 0.3  # face sizes off the expected place that cost 1; more after a gap
_PLACE_LOST = 0.1  # what each frame of a gap adds
_PLACE_MOST = 1.0
_SIZE = 0.35  # of a change of the size's logarithm that costs 1
_LOOKS = 0.3  # of a difference of looks that costs 1
_LIMIT = 4.0  # a dearer pair is no pair
_MEMORY = 25  # frames that somebody out of sight is expected back where they were going
_SAME_LOOKS = 0.45  # two faces of one person differ by less: 99% of pairs in five clips, no pair of different people
_NEW_LOOKS = 0.2  # a difference from all that is known of a person that is worth remembering
_GALLERY = 16  # looks that are remembered of a person

_THUMB = 32  # pixels
_CUT = 0.10  # mean difference of two pictures, 0..1: a moving camera stays below 0.08 a frame, cuts reach 0.14 (measured)
_CUT_OVER_USUAL = 3.0
_CUT_COLOURS = 0.3
_CUT_PATTERN = 0.5
_BRIEF = 0.1  # people seen less often than this share of the most seen come last in any order


@dataclass(frozen=True)
class Choice:
    """Which of several people: the one at `index`, from 0, in an order."""

    order: str = LARGEST
    index: int = 0

    def __str__(self) -> str:
        if self.index:
            return f"number {self.index} ({self.order})"
        return "the leftmost" if self.order == LEFT_TO_RIGHT else f"the {self.order}"


def parse_choice(text: str) -> Choice:
    """`largest`, `left:1` or `2`: the start of an order's name, an index from 0, or both. Raises InputError for others."""
    name, colon, number = text.strip().lower().partition(":")
    if not colon:
        name, number = (LARGEST, name) if name.isdecimal() else (name, "0")
    orders = [order for order in ORDERS if name and (order.startswith(name) or order == f"most {name}")]
    if len(orders) != 1 or not number.isdecimal():
        raise InputError(f"face is '{text}'; it must be largest, left, central or confident, an index from 0, or both: left:1.")
    return Choice(orders[0], int(number))


@dataclass(frozen=True, eq=False)
class Looks:
    """What a face looks like, its pose in the picture taken out."""

    colours: np.ndarray  # square roots of a histogram's shares
    pattern: np.ndarray  # (1024,) grey values less their mean, of length 1

    @classmethod
    def of(cls, image: np.ndarray, face: Face) -> "Looks":
        """Args: image: (H, W, 3) uint8 RGB."""
        upright = cv2.warpAffine(image, _upright(face), (_SIDE, _SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cls.of_picture(upright, _GREY)

    @classmethod
    def of_picture(cls, image: np.ndarray, side: int) -> "Looks":
        """The looks of a whole small picture, its pattern `side` pixels wide and high."""
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA).ravel()
        pattern = grey - grey.mean()
        return cls(_colours(image), pattern / max(float(np.linalg.norm(pattern)), 1e-6))

    def colour_distance(self, other: "Looks") -> float:
        """Hellinger's distance of the histograms, 0..1."""
        return float(np.sqrt(max(0.0, 1 - self.colours @ other.colours)))

    def pattern_distance(self, other: "Looks") -> float:
        """One less the correlation of the grey values, 0..2."""
        return 1 - float(self.pattern @ other.pattern)

    def distance(self, other: "Looks") -> float:
        """0 for the same picture; measured 0.17 between faces of one person, 0.8 between two people's (medians)."""
        return self.colour_distance(other) + 0.3 * self.pattern_distance(other)


def _colours(image: np.ndarray) -> np.ndarray:
    """(272,) square roots: the shares of lightness, and of hue and saturation together."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.int64)
    low, high = _COLOUR_RANGE
    a, b = ((lab[:, 1:] - low) * _BINS // (high - low)).clip(0, _BINS - 1).T
    light = np.bincount(lab[:, 0] * _BINS // 256, minlength=_BINS)
    tint = np.bincount(a * _BINS + b, minlength=_BINS**2)
    return np.sqrt(np.concatenate([light, tint]) / (2 * len(lab)))


def _upright(face: Face) -> np.ndarray:
    """(2, 3) the similarity that brings eyes and mouth to their places in the upright face; its box where they are unknown."""
    here, there = face.features, _FEATURES * _SIDE
    known = np.isfinite(here).all(1)
    if known.sum() < 2 or np.ptp(here[known], axis=0).max() < 1e-3:
        left, top, _, _ = face.box
        here, there = np.array([[left, top], [left + face.size, top + face.size]]), np.array([[0.0, 0.0], [_SIDE, _SIDE]])
        known = np.array([True, True])
    p, q = (here[known] - 0.5) @ (1, 1j), (there[known] - 0.5) @ (1, 1j)  # complex numbers: a similarity is one factor
    scale = np.vdot(p - p.mean(), q - q.mean()) / np.vdot(p - p.mean(), p - p.mean()).real
    shift = q.mean() - scale * p.mean()
    return np.array([[scale.real, -scale.imag, shift.real], [scale.imag, scale.real, shift.imag]])


def assign(cost: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of the least total cost, where each pair that is left out costs `limit`; (n, m) finite costs."""
    rows, columns = linear_sum_assignment(np.minimum(cost, limit))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if cost[i, j] < limit]


@dataclass(frozen=True, eq=False)
class Person:
    """One person's face in every frame of a clip, None where it is not seen."""

    faces: list[Face | None]

    @property
    def seen(self) -> list[Face]:
        return [face for face in self.faces if face is not None]


@dataclass(eq=False)
class _Followed:
    """What is known of a person so far."""

    shot: int
    faces: dict[int, Face] = field(default_factory=dict)
    gallery: list[Looks] = field(default_factory=list)
    last: int = 0  # frame
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pixels a frame

    def saw(self, frame: int, face: Face, looks: Looks, alone: bool) -> None:
        """Args: alone: no other face hides a part of this one, so that its looks are its own."""
        if self.faces:
            passed = frame - self.last
            moved = (face.centre - self.faces[self.last].centre) / passed
            self.velocity = moved if passed > 1 else 0.5 * self.velocity + 0.5 * moved
        self.faces[frame], self.last = face, frame
        if not self.gallery or (alone and self.differs(looks) > _NEW_LOOKS):
            self.gallery = [*self.gallery[-_GALLERY + 1 :], looks]

    def differs(self, looks: Looks) -> float:
        return min(known.distance(looks) for known in self.gallery)

    def cost(self, frame: int, face: Face, looks: Looks) -> float:
        """How unlikely it is that this is the person, by place, size and looks."""
        gone, last = frame - self.last, self.faces[self.last]
        expected = last.centre + self.velocity * (10 * (1 - 0.9**gone))  # a movement ends some time
        reach = last.size * min(_PLACE + _PLACE_LOST * (gone - 1), _PLACE_MOST)
        place = np.linalg.norm(face.centre - expected) / reach
        size = np.log(face.size / last.size) / _SIZE
        differs = 0.0 if gone == 1 and _stays(last, face) else self.differs(looks) / _LOOKS
        return float(place**2 + size**2 + differs**2)


class Follower:
    """Takes a clip's frames one after the other and finds out who is who.

    Args:
        cuts: what a cut between shots means: NEW_TRACK, nobody of the one shot is in the next; ERROR, InputError; IGNORE,
            cuts are not looked for, and people are known again by their looks.
    """

    def __init__(self, cuts: str = NEW_TRACK):
        self.count = 0  # frames so far
        self.most = 0  # faces in one frame
        self.shots = [0]  # the frames that shots begin with
        self._people: list[_Followed] = []
        self._cuts = cuts
        self._detector = _CutDetector()

    def add(self, image: np.ndarray, faces: Sequence[Face]) -> None:
        """The next frame, (H, W, 3) uint8 RGB, and the faces in it. Raises InputError where a cut is an error."""
        faces = _without_doubles(faces)
        if self._cuts != IGNORE and self._detector.cuts(image, faces):
            self._begin_shot()
        looks = [Looks.of(image, face) for face in faces]
        here = [p for p in self._people if p.shot == len(self.shots) - 1]
        owner: dict[int, _Followed] = {}
        recent = [p for p in here if self.count - p.last <= _MEMORY]
        self._match(owner, recent, [[p.cost(self.count, f, k) for f, k in zip(faces, looks, strict=True)] for p in recent], _LIMIT)
        away = [p for p in here if p not in owner.values()]
        self._match(owner, away, [[np.inf if j in owner else p.differs(k) for j, k in enumerate(looks)] for p in away], _SAME_LOOKS)
        for j, (face, look) in enumerate(zip(faces, looks, strict=True)):
            if j not in owner:
                owner[j] = _Followed(len(self.shots) - 1)
                self._people.append(owner[j])
            owner[j].saw(self.count, face, look, alone=not any(_overlap(face, other) for other in faces if other is not face))
        self.count += 1
        self.most = max(self.most, len(faces))

    def _match(self, owner: dict[int, _Followed], people: list[_Followed], cost: list[list[float]], limit: float) -> None:
        """Enter into `owner` whose face each is, where that costs less than the limit."""
        if people and cost[0]:
            for i, j in assign(np.array(cost), limit):
                owner[j] = people[i]

    def _begin_shot(self) -> None:
        if self._cuts == ERROR:
            raise InputError(
                f"FLAME Fit: another shot begins with frame {self.count}. Trim the clip to one shot, or set 'cuts' to "
                "'new track'."
            )
        self.shots.append(self.count)

    def people(self) -> list[Person]:
        """Everybody so far, in the order of their appearance."""
        return [Person([p.faces.get(i) for i in range(self.count)]) for p in self._people]


class _CutDetector:
    """Tells a cut from movement: the picture changes at once, and stays changed, and no face goes on where it was."""

    def __init__(self) -> None:
        self._usual = 0.0
        self._last: np.ndarray | None = None  # the picture before, small
        self._jumped = False  # since the last picture with a face
        self._faced: np.ndarray | None = None  # that picture, small
        self._faces: Sequence[Face] = ()

    def cuts(self, image: np.ndarray, faces: Sequence[Face]) -> bool:
        """Whether a new shot has begun since the last frame that showed faces. False in frames without faces."""
        step = max(1, min(image.shape[:2]) // (4 * _THUMB))  # every pixel of a large picture would cost as much as all else
        part = np.ascontiguousarray(image[::step, ::step])
        small = cv2.resize(part, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
        if self._last is not None:
            change = _difference(self._last, small)
            self._jumped |= change > _CUT_OVER_USUAL * self._usual and _another_scene(self._last, small)
            self._usual = 0.9 * self._usual + 0.1 * change
        self._last = small
        if not faces:
            return False
        jumped, before = self._jumped, self._faced
        stays = any(_stays(old, new) for old in self._faces for new in faces)
        self._jumped, self._faced, self._faces = False, small, faces
        return jumped and before is not None and not stays and _another_scene(before, small)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(cv2.absdiff(a, b).mean()) / 255


def _another_scene(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two small pictures differ by more than movement within a frame's time makes them."""
    if _difference(a, b) < _CUT:
        return False
    first, second = Looks.of_picture(a, _THUMB), Looks.of_picture(b, _THUMB)
    return first.colour_distance(second) > _CUT_COLOURS or first.pattern_distance(second) > _CUT_PATTERN


def _rms(a: Face, b: Face) -> float:
    """Root mean square distance of the points that both have, in the larger one's sizes."""
    between = np.concatenate([a.points - b.points, a.points68 - b.points68])
    known = between[np.isfinite(between).all(1)]
    return float(np.sqrt((known**2).sum(1).mean())) / max(a.size, b.size) if len(known) else np.inf


def _stays(a: Face, b: Face) -> bool:
    """Whether two faces of consecutive frames agree point by point: one face, whatever the light does."""
    return _rms(a, b) < 0.03


def _without_doubles(faces: Sequence[Face]) -> list[Face]:
    """The faces, each one once: what was read twice from a neighbour's crop goes."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: f.confidence, reverse=True):
        if all(_rms(face, other) > 0.1 for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda f: f.size, reverse=True)


def _overlap(a: Face, b: Face) -> bool:
    """Whether the boxes of two faces meet."""
    (left, top, right, bottom), (x0, y0, x1, y1) = a.box, b.box
    return left < x1 and x0 < right and top < y1 and y0 < bottom


def ordered(people: Sequence[Person], order: str, width: int, height: int) -> list[Person]:
    """People in one of ORDERS, in a clip of `width` x `height` pixels.

    Largest and most confident count over the whole clip, most central while they are seen, left to right where they are
    seen first. Whoever is seen in less than a tenth as many frames as somebody else comes last.
    """
    middle = np.array([width / 2, height / 2])
    keys = {
        LARGEST: lambda p: -sum(f.size for f in p.seen),
        LEFT_TO_RIGHT: lambda p: p.seen[0].centre[0],
        CENTRAL: lambda p: np.mean([np.linalg.norm(f.centre - middle) for f in p.seen]),
        CONFIDENT: lambda p: -sum(f.confidence for f in p.seen),
    }
    longest = max((len(p.seen) for p in people), default=0)
    return sorted(people, key=lambda p: (len(p.seen) < _BRIEF * longest, float(keys[order](p))))


def choose(people: Sequence[Person], choice: Choice, width: int, height: int) -> Person:
    """The person of the choice. Raises InputError where there are not so many."""
    if choice.order not in ORDERS:
        raise InputError(f"FLAME Fit: the face order is '{choice.order}'; it must be one of {', '.join(ORDERS)}.")
    if not 0 <= choice.index < len(people):
        there = "is 1 face, number 0" if len(people) == 1 else f"are {len(people)} faces, numbers 0 to {len(people) - 1}"
        raise InputError(f"FLAME Fit: there is no face number {choice.index} ({choice.order}): there {there}. Choose one of these.")
    return ordered(people, choice.order, width, height)[choice.index]


def notes(follower: Follower, choice: Choice, person: Person) -> list[str]:
    """What to tell about the choice of a person: how many others there are, and which shots do not show this one."""
    told = []
    if follower.most > 1:
        told.append(f"{follower.most} faces in a picture, {choice} is taken" + (" and followed" if follower.count > 1 else ""))
    if len(follower.shots) > 1:
        there = [i for i, face in enumerate(person.faces) if face is not None]
        told.append(
            f"{len(follower.shots)} shots, cut before frames {', '.join(map(str, follower.shots[1:9]))}"
            f"{', ...' if len(follower.shots) > 9 else ''}: this face is in frames {there[0]} to {there[-1]} only"
        )
    return told


def border_note(faces: Sequence[Face | None], width: int, height: int) -> list[str]:
    """One sentence where the picture's border cuts the face, else none."""
    boxes = [face.box for face in faces if face is not None]
    cut = sum(left < 0 or top < 0 or right > width or bottom > height for left, top, right, bottom in boxes)
    return [f"the border cuts the face in {cut} of {len(faces)} pictures, so the fit is less certain"] if cut else []
