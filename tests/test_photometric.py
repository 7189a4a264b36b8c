"""The photometric stage: its parts against finite differences, dense algebra and known noise; the whole on known truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from comfyui_flow3d.benchmarks.fit import errors
from comfyui_flow3d.benchmarks.photometric import photo
from comfyui_flow3d.benchmarks.synthetic_heads import detections, person, sample
from comfyui_flow3d.flow3d.camera import Camera
from comfyui_flow3d.flow3d.errors import InputError
from comfyui_flow3d.flow3d.fit import photometric
from comfyui_flow3d.flow3d.fit.albedo import AlbedoModel, albedo_model, face_vertices
from comfyui_flow3d.flow3d.fit.anchor import Anchor
from comfyui_flow3d.flow3d.fit.appearance import Appearance, FaceRender
from comfyui_flow3d.flow3d.fit.levenberg_marquardt import Pose, Shared, Solver
from comfyui_flow3d.flow3d.fit.observations import observe
from comfyui_flow3d.flow3d.fit.photo_view import face_square, linear, view
from comfyui_flow3d.flow3d.fit.photometric import refine_photometric
from comfyui_flow3d.flow3d.fit.photometric_problem import Problem, State, System, first_look, solve_all
from comfyui_flow3d.flow3d.fit.pixel_noise import pixel_noise, robust_loss, robust_weights
from comfyui_flow3d.flow3d.fit.solve import fit_track
from comfyui_flow3d.flow3d.head.model import INNER_MOUTH
from comfyui_flow3d.flow3d.render.light import shading
from comfyui_flow3d.flow3d.render.maps import normal_map
from comfyui_flow3d.flow3d.render.rasterize import rasterize
from comfyui_flow3d.flow3d.rotations import compose


def pose_of(track):
    return Pose(*(getattr(track, n).double() for n in Pose.__dataclass_fields__))


@pytest.fixture(scope="module")
def still(open_head):
    """A sample, its picture and its landmark fit."""
    given = sample(open_head, 2, 1)
    return given, photo(open_head, given.truth, 2), fit_track(open_head, given.faces, given.truth.camera)[0]


@pytest.fixture(scope="module")
def render(open_head):
    return FaceRender(open_head)


def some_look(render, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    look = first_look(render)
    light = look.light + 0.3 * torch.randn(9, 3, generator=g)
    return Appearance(light.to(dtype), torch.randn(look.paint.shape, generator=g).to(dtype))


def test_linear_light_is_that_of_srgb():
    """Oracle: scikit-image's luminance."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    lightness = rgb2lab(grey)[..., 0]
    luminance = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    assert np.abs(linear(grey)[..., 0] - luminance).max() < 1e-4


def test_a_view_keeps_the_cameras_geometry():
    """A picture of pixel coordinates is seen where the view's camera says, and not beyond the picture's edge."""
    camera = Camera.from_field_of_view(200, 160)
    x, y = np.meshgrid(np.arange(200), np.arange(160))
    image = np.stack([x, y, np.full_like(x, 90)], -1).astype(np.uint8)
    seen = view(image, camera, (-30, 40, 100), 25)
    point = torch.tensor([[0.02, 0.03, 1.0]])
    (px, py), (vx, vy) = camera.project(point)[0], seen.camera.project(point)[0]
    assert (vx.item(), vy.item()) == pytest.approx(((px.item() + 30) / 4, (py.item() - 40) / 4), abs=1e-4)
    column = linear(np.arange(256, dtype=np.uint8))
    row, col = 10, 15
    assert float(seen.colours[row, col, 1]) == pytest.approx(column[40 + 4 * row : 44 + 4 * row].mean(), rel=1e-4)
    assert float(seen.colours[row, col, 0]) == pytest.approx(column[4 * col - 30 : 4 * col - 26].mean(), rel=1e-4)
    assert not seen.usable[:, :8].any() and seen.usable[:, 8:].all()


def test_the_face_is_skin_and_symmetric(open_head):
    face = face_vertices(open_head)
    inner = open_head.faces[open_head.face_parts == INNER_MOUTH].unique()
    assert not face[inner].any() and not (face & open_head.masks["eyeballs"]).any()
    x = open_head.template[face, 0]
    assert (x > 0.002).sum().item() == pytest.approx((x < -0.002).sum().item(), rel=0.03)
    assert (face & open_head.masks["face"]).sum() > 0.9 * face.sum()


def test_albedo_is_smooth_and_its_mean_is_the_skins(open_head):
    """Colours vary by 15%; over an edge by far less than white noise would."""
    vertices = face_vertices(open_head).nonzero()[:, 0]
    model = albedo_model(open_head, vertices)
    smooth = model.basis[:, :-1].double()
    assert smooth.mean(0).abs().max() < 1e-5
    assert smooth.square().sum(1).mean().sqrt().item() == pytest.approx(0.15, rel=1e-3)
    place = torch.full((len(open_head.template),), -1)
    place[vertices] = torch.arange(len(vertices))
    edges = place[open_head.faces[:, :2]]
    edges = edges[(edges >= 0).all(1)]
    across = (smooth[edges[:, 0]] - smooth[edges[:, 1]]).square().sum(1).mean().sqrt()
    assert across < 0.3 * 2**0.5 * 0.15
    assert torch.equal(model.basis[:, -1] > 0, open_head.masks["lips"][vertices])


def test_surface_model_is_the_head(open_head, render):
    """Places against `HeadTrack.vertices`, derivatives against its finite differences."""
    head = open_head.to(dtype=torch.float64)
    truth = person(open_head, np.random.default_rng(5), 1)
    x, shape = pose_of(truth), truth.shape.double()
    exact = replace(truth, shape=shape, **{n: getattr(x, n) for n in Pose.__dataclass_fields__})
    assert (render.surface.placed(shape, x) - exact.vertices(head)[:, render.near]).abs().max() < 1e-9
    moves = render.surface.moves(shape, x)[0]
    e, h = head.n_expression, 1e-5
    unit = torch.eye(len(moves), dtype=torch.float64)
    angles = render.surface.joints

    def moved(k, step):
        u = step * unit[k]
        joints = x.joints.clone()
        for i, (joint, axis) in enumerate(angles):
            turn = torch.zeros(1, 3, dtype=torch.float64)
            turn[0, axis] = u[e + i]
            joints[:, joint] = compose(turn, joints[:, joint])
        own = u[e + len(angles) :]
        track = replace(
            exact, shape=shape + own[6:], expression=x.expression + u[:e], joints=joints,
            rotation=compose(own[None, :3], x.rotation), translation=x.translation + own[3:6],
        )  # fmt: skip
        return track.vertices(head)[0, render.near]

    for k in (0, 24, e, e + 1, e + 3, *range(len(moves) - 126, len(moves) - 118), len(moves) - 1):
        difference = (moved(k, h) - moved(k, -h)) / (2 * h)
        assert (moves[k] - difference).norm() < 1e-5 * difference.norm() + 1e-9


def test_columns_are_derivatives_of_the_colours(open_head, still):
    """Finite differences, in float64."""
    given, image, _ = still
    render = FaceRender(open_head.to(dtype=torch.float64))
    shape, x, look = given.truth.shape.double(), pose_of(given.truth), some_look(render, torch.float64)
    v = render.vertices(shape, x)
    seen = view(image, given.truth.camera, face_square(given.truth.camera.project(v)), 48)
    pixels = render.pixels(seen, shape, x)
    moves = render.moves(shape, x)[[3, 24, 57, 60, 100]]
    columns = render.geometry_columns(v, moves, look, pixels, seen.camera)
    h = 1e-5
    for k, move in enumerate(moves):
        a, b = (render.colours(v + s * h * move, look, pixels, seen.camera) for s in (1, -1))
        assert (columns[..., k] - (a - b) / (2 * h)).norm() < 1e-5 * columns[..., k].norm()
    light, paint = render.appearance_columns(v, look, pixels, seen.camera)
    base = render.colours(v, look, pixels, seen.camera)
    g = torch.Generator().manual_seed(3)
    more = Appearance(torch.randn(9, 3, generator=g).double(), torch.randn(look.paint.shape, generator=g).double())
    by_light = render.colours(v, replace(look, light=look.light + more.light), pixels, seen.camera) - base
    by_paint = render.colours(v, replace(look, paint=look.paint + more.paint), pixels, seen.camera) - base
    assert torch.allclose(torch.einsum("ncj,jc->nc", light, more.light), by_light, atol=1e-10)
    assert torch.allclose(torch.einsum("nck,kc->nc", paint, more.paint), by_paint, atol=1e-10)


@pytest.mark.parametrize(("blur", "grey", "alike"), [(0.0, False, 1.0), (0.0, True, 3.0), (2.0, False, 50.3), (2.0, True, 150.8)])
def test_noise_in_patches_counts_once(blur, grey, alike):
    """White noise blurred by a Gaussian of `blur` pixels has 4 pi blur^2 pixels for each independent number."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(128, 128, 1 if grey else 3)).repeat(3 if grey else 1, 2)
    noise = gaussian_filter(noise, (blur, blur, 0)) if blur else noise
    noise *= 0.02 / noise.std()
    places = torch.from_numpy(np.argwhere(np.hypot(*np.mgrid[-64:64, -64:64]) < 60))
    residual = torch.from_numpy(noise)[places[:, 0], places[:, 1]].float()
    got = pixel_noise(residual, places, (128, 128))
    assert got.sigma == pytest.approx(0.02, rel=0.06)
    assert got.alike == pytest.approx(alike, rel=0.2)


def test_weights_are_the_loss_gradient():
    r = (torch.randn(40, 3, dtype=torch.float64) * 3).requires_grad_()
    (slope,) = torch.autograd.grad(robust_loss(r, 0.7).sum(), r)
    assert torch.allclose(slope, 2 * robust_weights(r.detach(), 0.7)[:, None] * r.detach() / 0.49)
    assert robust_loss(torch.full((1, 3), 1e3), 1.0) < 16.1


def test_anchor_is_a_quadratic_that_forgets_frames(open_head):
    """Its gradient by finite differences of its cost; marginal frames by the dense matrix's Schur complement."""
    given = sample(open_head, 7, 3)
    seen = observe(open_head, given.faces, given.truth.camera)
    solver = Solver(open_head, given.truth.camera, seen, 80.0)
    x, shape = pose_of(given.truth), given.truth.shape.double()[: solver.n_shape]
    anchor = Anchor.at(solver, Shared(shape, given.truth.camera.focal), x, seen)
    g = torch.Generator().manual_seed(0)
    away = solver.unflat(solver.flat(x) + 0.01 * torch.rand(3, solver.flat(x).shape[1], generator=g, dtype=torch.float64), x)
    frames, shared = anchor.gradient(shape + 0.1, away)
    h = 1e-4
    for k in (5, 10):
        up, down = (anchor.cost(shape + 0.1 + s * h * torch.eye(len(shape), dtype=torch.float64)[k], away) for s in (1, -1))
        assert (up - down) / (4 * h) == pytest.approx(float(shared[k]), rel=1e-5, abs=1e-5)
    for axis in range(3):
        step = torch.zeros(3, 3, dtype=torch.float64)
        step[1, axis] = h
        up, down = (anchor.cost(shape + 0.1, replace(away, translation=away.translation + s * step)) for s in (1, -1))
        assert (up - down) / (4 * h) == pytest.approx(float(frames[1, -3 + axis]), rel=1e-5)
    one = anchor.marginal(torch.tensor([1]))
    dense = torch.block_diag(*anchor.frames, anchor.shared)
    p, n = anchor.frames.shape[1], len(anchor.frames)
    dense[: n * p, n * p :] = anchor.cross.flatten(0, 1)
    dense[n * p :, : n * p] = anchor.cross.flatten(0, 1).T
    covariance = torch.linalg.inv(torch.block_diag(one.frames[0], one.shared) + _off_diagonal(one.cross[0]))
    kept = torch.cat([torch.arange(p, 2 * p), torch.arange(n * p, len(dense))])
    whole = torch.linalg.inv(dense)[kept[:, None], kept]
    assert (covariance - whole).norm() < 1e-6 * whole.norm()


def _off_diagonal(cross):
    p, g = cross.shape
    out = cross.new_zeros(p + g, p + g)
    out[:p, p:], out[p:, :p] = cross, cross.T
    return out


def test_step_is_that_of_the_dense_system():
    g = torch.Generator().manual_seed(0)
    j = torch.randn(200, 2 * 4 + 5, generator=g, dtype=torch.float64)
    j[:100, 4:8] = 0
    j[100:, :4] = 0
    h, r = j.T @ j, j.T @ torch.randn(200, generator=g, dtype=torch.float64)
    frames, cross = torch.stack([h[:4, :4], h[4:8, 4:8]]), torch.stack([h[:4, 8:], h[4:8, 8:]])
    system = System(frames, cross, h[8:, 8:], r[:8].reshape(2, 4), r[8:])
    own, common = solve_all(system, 0.0)
    assert torch.allclose(torch.cat([own.flatten(), common]), -torch.linalg.solve(h, r), atol=1e-8)


def test_light_that_is_known_is_found(open_head, still):
    """A picture with skin of one colour, shaded pixel by pixel: what falls on every normal, within a per cent of its mean."""
    given, _, _ = still
    truth = given.truth
    vertices = truth.vertices(open_head)
    normals = normal_map(vertices, open_head.faces, rasterize(vertices, open_head.faces, truth.camera))[0]
    render = FaceRender(open_head, lambda head, v: AlbedoModel(v, head.template.new_zeros(len(v), 0)))
    light = torch.zeros(9, 3)
    light[0] = 2.5
    light[1:] = 0.5 * torch.randn(8, 3, generator=torch.Generator().manual_seed(4))
    colours = render.albedo.colours(torch.zeros(0, 3))[0] * shading(normals, light)
    encoded = torch.where(colours <= 0.0031308, colours * 12.92, 1.055 * colours.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
    image = (encoded.clamp(0, 1) * 255).round().byte().numpy()
    x, shape = pose_of(truth), truth.shape.double()
    seen = view(image, truth.camera, face_square(truth.camera.project(render.vertices(shape, x))), 96)
    problem = Problem(render, _no_anchor(), [seen])
    state = problem.look_steps(State(shape, x, first_look(render)), 6)
    shown = normals[normals.norm(dim=-1) > 0.5]
    shown = shown[shown[:, 2] < -0.3]
    wanted, found = shading(shown, light), shading(shown, state.look.light)
    assert (wanted - found).abs().mean() < 0.01 * wanted.mean()


def _no_anchor():
    none = torch.zeros(0)
    return Anchor(None, none, None, none, none, none, none)


def test_truth_is_nearer_afterwards(open_head, still, render):
    given, image, fitted = still
    calls = []
    refined, report = refine_photometric(open_head, fitted, [image], given.faces, lambda *c: calls.append(c), render)
    before, after = (errors(open_head, given.truth, t) for t in (fitted, refined))
    assert after.rotation < before.rotation
    assert after.shape < 0.95 * before.shape
    assert after.expression < 0.95 * before.expression
    assert report.residual_after < 0.9 * report.residual_before
    assert report.error_after < 1.1 * report.error_before == pytest.approx(1.1 * float(fitted.error), rel=0.02)
    assert calls[-1] == (10, 10) and list(dict.fromkeys(c[0] for c in calls)) == list(range(11))
    assert refined.texture is not None and refined.light is not None
    assert refined.texture.shape == open_head.template.shape and 0 <= refined.texture.min() and refined.texture.max() <= 1
    assert refined.light.shape == (9, 3)
    assert refined.rotation_deviation < fitted.rotation_deviation
    meshes = [open_head.dense.on(t.vertices(open_head), open_head.faces)[0] for t in (fitted, refined)]
    pixels = [given.truth.camera.project(m) for m in meshes]
    assert (pixels[0] - pixels[1]).norm(dim=1).median() < 0.5  # the photo's own offsets still meet the landmarks


def test_a_clip_shares_its_shape(open_head, render, monkeypatch):
    """Two key frames, one that follows, one without a face, and one that shows no skin and stays as it was."""
    monkeypatch.setattr(photometric, "_KEY_FRAMES", 2)
    monkeypatch.setattr(photometric, "_SIDES", (64,))
    monkeypatch.setattr(photometric, "_STEPS", 4)
    truth = person(open_head, np.random.default_rng(3), 5)
    faces = detections(open_head, truth, np.random.default_rng(4))
    faces[3] = None
    images = [photo(open_head, truth[i : i + 1], 3) for i in range(5)]
    images[1] = np.zeros_like(images[1])
    fitted, _ = fit_track(open_head, faces, truth.camera)
    refined, report = refine_photometric(open_head, fitted, images, faces, render=render)
    changed = (refined.expression != fitted.expression).any(1)
    assert changed.tolist() == [True, False, True, False, True]
    assert (report.frames, report.left) == (3, 1) and "1 frames" in str(report)
    assert report.residual_after < report.residual_before
    before, after = (errors(open_head, truth, t) for t in (fitted, refined))
    assert after.rotation < before.rotation and after.expression < before.expression
    assert torch.isfinite(refined.vertices(open_head)).all()


def test_what_cannot_be_refined_is_refused(open_head, still, render):
    given, image, fitted = still

    def refine(images, faces=given.faces, progress=None):
        return refine_photometric(open_head, fitted, images, faces, progress, render)

    with pytest.raises(InputError, match="256 x 512.*512 x 512"):
        refine([image[:, :256]])
    with pytest.raises(InputError, match="fewer pictures"):
        refine([])
    with pytest.raises(InputError, match="uint8"):
        refine([image / 255])
    with pytest.raises(InputError, match="0 faces.*Fit the"):
        refine([image], [None])
    with pytest.raises(InputError, match="hardly any skin"):
        refine([np.full_like(image, 255)])

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine([image], progress=cancel)
