"""Who is who in a clip: matching against brute force, and real portraits that cross, leave, return and are cut between."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from portrait_clips import HEIGHT, WIDTH, Cutout, background, crossing, crossing_places, cut_out, picture, portrait

from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.fit.faces import Face
from comfyui_flow3d.flow3d.fit.people import (
    CENTRAL,
    CONFIDENT,
    CUTS,
    ERROR,
    IGNORE,
    LARGEST,
    LEFT_TO_RIGHT,
    NEW_TRACK,
    Choice,
    Follower,
    Looks,
    Person,
    assign,
    choose,
    notes,
    ordered,
    parse_choice,
)  # fmt: skip

FRAMES = 40


# --- numbers alone ---------------------------------------------------------------------------------------------------


def cheapest(cost: np.ndarray, limit: float) -> float:
    """The least total over all ways to pair rows and columns, where leaving a possible pair out costs the limit."""
    n, m = cost.shape
    few, table = (n, cost) if n <= m else (m, cost.T)
    ways = itertools.permutations(range(max(n, m)), few)
    return min(sum(min(table[i, j], limit) for i, j in enumerate(way)) for way in ways)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (2, 4), (5, 3), (4, 4)])
def test_assignment_is_the_cheapest_of_all(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape[0] * 10 + shape[1])
    for _ in range(50):
        cost, limit = rng.exponential(1.0, shape), float(rng.uniform(0.3, 2))
        pairs = assign(cost, limit)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        assert all(cost[i, j] < limit for i, j in pairs)
        total = sum(cost[i, j] for i, j in pairs) + limit * (min(shape) - len(pairs))
        assert total == pytest.approx(cheapest(cost, limit))


def test_assignment_without_candidates() -> None:
    assert assign(np.full((2, 3), np.inf), 1.0) == []


def face_at(x: float, y: float, size: float = 80, seed: int = 0, confidence: float = 1.0) -> Face:
    """A face whose 478 points are the seed's, `size` pixels large, around (x, y)."""
    shape = np.random.default_rng(seed).uniform(-0.5, 0.5, (478, 2))
    for landmark, place in ((33, (-0.3, -0.2)), (133, (-0.1, -0.2)), (263, (0.3, -0.2)), (362, (0.1, -0.2)), (61, (-0.15, 0.25)), (291, (0.15, 0.25))):  # fmt: skip
        shape[landmark] = place
    return Face.of478(shape * size + (x, y), confidence)


GREY = np.full((HEIGHT, WIDTH, 3), 127, np.uint8)


def followed(frames: list[list[Face]], image: np.ndarray = GREY, cuts: str = NEW_TRACK) -> list[Person]:
    follower = Follower(cuts)
    for faces in frames:
        follower.add(image, faces)
    return follower.people()


def smoothest(paths: np.ndarray) -> list[tuple[int, ...]]:
    """Brute force: who is who in each frame of (T, n, 2) places, so that all second differences are least in sum."""
    count = paths.shape[1]
    orders = list(itertools.permutations(range(count)))
    kept = {(a, b): (0.0, [a, b]) for a in [orders[0]] for b in orders}
    for t in range(2, len(paths)):
        after: dict = {}
        for (a, b), (cost, way) in kept.items():
            for c in orders:
                bend = paths[t][list(c)] - 2 * paths[t - 1][list(b)] + paths[t - 2][list(a)]
                total = cost + float((bend**2).sum())
                if (b, c) not in after or total < after[b, c][0]:
                    after[b, c] = (total, [*way, c])
        kept = after
    return min(kept.values(), key=lambda entry: entry[0])[1]


@pytest.mark.parametrize("seed", range(8))
def test_alike_faces_are_told_apart_by_their_movement(seed: int) -> None:
    """Three faces with the same looks on smooth, crossing paths, given in random order: as brute force has it."""
    rng = np.random.default_rng(seed)
    steps = np.linspace(0, 1, 30)[:, None]
    start, end = rng.uniform((80, 80), (560, 280), (2, 3, 2))
    paths = start + (end - start) * steps[:, None] + 20 * np.sin(3 * steps[:, None] + rng.uniform(0, 6, (1, 3, 1)))
    shuffled = [rng.permutation(3) for _ in steps]
    given = np.array([path[order] for path, order in zip(paths, shuffled, strict=True)])
    best = smoothest(given)
    people = followed([[face_at(x, y, 60, int(who)) for (x, y), who in zip(places, (0, 0, 0), strict=True)] for places in given])
    assert len(people) == 3
    for t, order in enumerate(best):
        for person in people:
            first = int(np.argmin([np.linalg.norm(person.faces[0].centre - face_at(*given[0][best[0][k]], 60).centre) for k in range(3)]))
            face = person.faces[t]
            assert face is not None
            assert np.linalg.norm(face.centre - face_at(*given[t][order[first]], 60).centre) < 1e-6, f"frame {t}"


def test_somebody_hidden_comes_out_where_they_were_going() -> None:
    """For ten frames one of two alike faces is hidden behind the other, which stands still."""
    frames = [[face_at(320, 180, 90)] + ([face_at(100 + 12 * t, 180, 80)] if not 13 <= t < 23 else []) for t in range(36)]
    people = followed(frames)
    assert [len(p.seen) for p in people] == [36, 26]
    assert all(face.size == pytest.approx(people[1].seen[0].size) for face in people[1].seen)


def test_a_jump_is_somebody_else() -> None:
    """A face of other looks across the picture, in the frame after the first one left it."""
    left, right = GREY.copy(), GREY.copy()
    left[:, :320], right[:, 320:] = (200, 120, 90), (90, 60, 40)
    follower = Follower()
    for t in range(10):
        follower.add(left if t < 5 else right, [face_at(100, 180) if t < 5 else face_at(540, 180)])
    people = follower.people()
    assert [len(p.seen) for p in people] == [5, 5] and people[0].faces[5] is None


def test_a_face_read_twice_is_one_face() -> None:
    twice = [face_at(100, 100, 80, confidence=0.9), face_at(102, 101, 80, confidence=0.6), face_at(300, 100, 80)]
    people = followed([twice] * 3)
    assert len(people) == 2 and people[0].faces[0] is not None
    assert sorted(p.seen[0].confidence for p in people) == [0.9, 1.0]


def test_a_flash_is_no_other_person() -> None:
    """The picture turns white for a frame, and dark for one; the face stays where it is."""
    follower = Follower()
    rng = np.random.default_rng(0)
    scene = rng.integers(60, 180, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for t in range(12):
        image = np.full_like(scene, 250) if t == 4 else scene // 8 if t == 8 else scene
        follower.add(image, [face_at(200 + 0.5 * t, 150)])
    assert len(follower.people()) == 1 and follower.shots == [0]


def test_an_empty_clip_and_frames_without_faces() -> None:
    assert Follower().people() == []
    assert followed([[], [], []]) == []
    (only,) = followed([[], [face_at(100, 100)], []])
    assert [face is None for face in only.faces] == [True, False, True]


# --- choice ----------------------------------------------------------------------------------------------------------


def test_orders() -> None:
    """A: large, left, unsure. B: in the middle. C: small, right, sure, and seen for longest."""
    a, b, c = ([face_at(x, 180, size, confidence=sure)] * count + [None] * (20 - count)
               for x, size, sure, count in ((80, 120, 0.4, 20), (330, 60, 0.5, 15), (600, 50, 0.9, 20)))  # fmt: skip
    people = [Person(faces) for faces in (c, a, b)]
    names = {id(people[0]): "c", id(people[1]): "a", id(people[2]): "b"}
    expected = {LARGEST: "acb", LEFT_TO_RIGHT: "abc", CENTRAL: "bac", CONFIDENT: "cab"}
    for order, word in expected.items():
        assert "".join(names[id(p)] for p in ordered(people, order, WIDTH, HEIGHT)) == word, order
    brief = Person([face_at(10, 180, 300), *[None] * 19])
    for order in expected:
        assert ordered([brief, *people], order, WIDTH, HEIGHT)[-1] is brief, order


def test_choice() -> None:
    people = [Person([face_at(x, 100)]) for x in (300, 100, 200)]
    assert choose(people, Choice(LEFT_TO_RIGHT, 2), WIDTH, HEIGHT) is people[0]
    with pytest.raises(InputError, match=r"no face number 3 \(left to right\): there are 3 faces, numbers 0 to 2"):
        choose(people, Choice(LEFT_TO_RIGHT, 3), WIDTH, HEIGHT)
    with pytest.raises(InputError, match="there is 1 face, number 0"):
        choose(people[:1], Choice(index=1), WIDTH, HEIGHT)
    with pytest.raises(InputError, match="no face number -1"):
        choose(people, Choice(index=-1), WIDTH, HEIGHT)
    with pytest.raises(InputError, match="'tallest'.*largest, left to right"):
        choose(people, Choice("tallest"), WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("text", "order", "index"),
    [("0", LARGEST, 0), ("2", LARGEST, 2), ("left", LEFT_TO_RIGHT, 0), ("left:1", LEFT_TO_RIGHT, 1), ("Largest", LARGEST, 0),
     ("central", CENTRAL, 0), ("most confident:3", CONFIDENT, 3), ("left to right:1", LEFT_TO_RIGHT, 1)],
)  # fmt: skip
def test_a_choice_in_words(text: str, order: str, index: int) -> None:
    assert parse_choice(text) == Choice(order, index)


@pytest.mark.parametrize("text", ["", "l", "right", "left:", "left:x", "left:-1", "-1", "1.5", ":1:", "left:1:2"])
def test_a_choice_in_other_words(text: str) -> None:
    with pytest.raises(InputError, match="face is '.*'; it must be largest, left, central or confident"):
        parse_choice(text)


# --- real portraits --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(face_landmarker: Path) -> Iterator[MediaPipeDetector]:
    with MediaPipeDetector(face_landmarker, max_faces=5) as made:
        yield made


Head = Callable[..., Cutout]


@pytest.fixture(scope="module")
def head(detector: MediaPipeDetector, test_data: Path) -> Head:
    """A portrait's head, by name and the height of its face in pixels."""

    def made(name: str, height: float = 120) -> Cutout:
        image = portrait(test_data / "sources" / f"{name}.jpg")
        return cut_out(image, detector.detect(image)[0].box, height)

    return made


def watch(frames: Iterator[np.ndarray] | list[np.ndarray], detector: MediaPipeDetector, cuts: str = NEW_TRACK) -> Follower:
    follower = Follower(cuts)
    for image in frames:
        follower.add(image, detector.detect(image))
    return follower


def keeps_to(person: Person, places: list[tuple[float, float]], least: int, off: float = 0.25) -> None:
    """The person is seen in `least` frames or more, wherever seen within `off` face sizes of the places."""
    for t, (face, place) in enumerate(zip(person.faces, places, strict=True)):
        if face is not None:
            assert np.linalg.norm(face.centre - place) < off * face.size, f"frame {t}: {face.centre}, not {place}"
    assert len(person.seen) >= least


@pytest.mark.parametrize(("back", "front"), [("s1", "s4"), ("s4", "s1"), ("s9", "s7"), ("s12", "s12")])
def test_two_people_cross(detector: MediaPipeDetector, head: Head, back: str, front: str) -> None:
    """Whoever walks behind is hidden in the middle, and is the same person afterwards; also two who look the same."""
    people = watch(crossing(head(back), head(front), FRAMES, background()), detector).people()
    first, second = zip(*crossing_places(FRAMES), strict=True)
    by_start = sorted(ordered(people, CONFIDENT, WIDTH, HEIGHT)[:2], key=lambda p: p.seen[0].centre[0])
    keeps_to(by_start[0], list(first), FRAMES - 12)
    keeps_to(by_start[1], list(second), FRAMES - 2)
    assert all(len(p.seen) <= 2 for p in people if p not in by_start)


def test_a_face_leaves_and_returns(detector: MediaPipeDetector, head: Head) -> None:
    """Out at the left, back from the right 30 frames later, while somebody else has come in at the left and gone."""
    subject, other = head("s1"), head("s7")
    xs = [*np.linspace(200, -90, 15), *[-90] * 30, *np.linspace(720, 400, 15)]
    guests = [*[-90] * 20, *np.linspace(-90, 250, 10), *np.linspace(250, -90, 10), *[-90] * 20]
    behind = background(3)
    clip = [picture(behind, [(subject, x, 180), (other, g, 190)]) for x, g in zip(xs, guests, strict=True)]
    people = watch(clip, detector).people()
    assert len(people) == 2
    away, guest = people
    keeps_to(away, [(x, 180.0) for x in xs], 20)
    keeps_to(guest, [(g, 190.0) for g in guests], 10)
    assert away.faces[5] is not None and away.faces[55] is not None and away.faces[30] is None


@pytest.fixture(scope="module")
def two_shots(head: Head) -> list[np.ndarray]:
    """Ten frames of one person, ten of another in the same place, before other backgrounds."""
    shots = ((head("s1"), background(1)), (head("s12"), background(2)))
    return [picture(behind, [(who, 320 + t, 180)]) for who, behind in shots for t in range(10)]


def test_a_cut_begins_a_new_track(detector: MediaPipeDetector, two_shots: list[np.ndarray]) -> None:
    follower = watch(two_shots, detector)
    first, second = follower.people()
    assert follower.shots == [0, 10]
    assert [face is not None for face in first.faces] == [True] * 10 + [False] * 10
    assert [face is not None for face in second.faces] == [False] * 10 + [True] * 10
    (told,) = notes(follower, Choice(), second)
    assert told == "2 shots, cut before frames 10: this face is in frames 10 to 19 only"


def test_a_cut_is_an_error_where_that_was_asked_for(detector: MediaPipeDetector, two_shots: list[np.ndarray]) -> None:
    with pytest.raises(InputError, match="another shot begins with frame 10. Trim .* or set 'cuts' to 'new track'"):
        watch(two_shots, detector, ERROR)


def test_a_person_is_known_again_across_ignored_cuts(detector: MediaPipeDetector, two_shots: list[np.ndarray]) -> None:
    """A, B, A again: with cuts ignored two people, by their looks; with cuts heeded three tracks."""
    clip = two_shots + two_shots[:10]
    for cuts, seen in ((IGNORE, [20, 10]), (NEW_TRACK, [10, 10, 10])):
        follower = watch(clip, detector, cuts)
        assert [len(p.seen) for p in follower.people()] == seen, cuts


@pytest.mark.parametrize("change", ["closer", "mirrored"])
def test_a_cut_within_a_scene(detector: MediaPipeDetector, head: Head, change: str) -> None:
    """The same person before the same background, suddenly closer, or seen from the other side."""
    wide = [picture(background(4), [(head("s4"), 200 + t, 160)]) for t in range(8)]
    if change == "closer":
        after = [np.repeat(np.repeat(image[80:260, 40:360], 2, 0), 2, 1) for image in wide]
    else:
        after = [np.ascontiguousarray(image[:, ::-1]) for image in wide]
    assert watch(wide + after, detector).shots == [0, 8]


def test_no_cut_in_real_clips(detector: MediaPipeDetector, test_data: Path) -> None:
    """Clips with moving cameras and heads are one shot each, and show one person."""
    from comfyui_flow3d.flow3d.io.video import VideoReader

    for path in sorted((test_data / "drivers").glob("*.mp4")):
        frames = (image for image, _ in zip(VideoReader(path), range(100), strict=False))
        follower = watch(frames, detector)
        assert follower.shots == [0], path.name
        assert len(follower.people()) == 1, path.name


def test_a_short_break_is_no_cut(detector: MediaPipeDetector, two_shots: list[np.ndarray]) -> None:
    """A grey frame in the middle of a shot: a gap in one track, however cuts are treated."""
    clip = [*two_shots[:5], np.full_like(two_shots[0], 127), *two_shots[6:10]]
    for cuts in CUTS:
        (only,) = watch(clip, detector, cuts).people()
        assert [face is None for face in only.faces] == [False] * 5 + [True] + [False] * 4


def test_looks_of_one_person_and_of_two(detector: MediaPipeDetector, test_data: Path) -> None:
    """A still picture, its copy half as large, turned and darker: the same looks; two people in one picture: not."""
    import cv2

    image = portrait(test_data / "sources" / "two_people.jpg")
    one, two = detector.detect(image)
    turn = cv2.getRotationMatrix2D((image.shape[1] / 2, image.shape[0] / 2), 20, 0.5)
    moved = cv2.warpAffine(image, turn, image.shape[1::-1], flags=cv2.INTER_AREA)
    again = min(detector.detect(moved), key=lambda f: float(np.linalg.norm(f.centre - (turn[:, :2] @ one.centre + turn[:, 2]))))
    looks = Looks.of(image, one)
    assert looks.distance(looks) < 1e-6
    assert looks.distance(Looks.of((moved * 0.9).astype(np.uint8), again)) < 0.3
    assert looks.distance(Looks.of(image, two)) > 0.45
