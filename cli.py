"""The `flow3d` command: parses, calls, reports.

Exit status: 0 done, 1 a failure, 2 bad input, 3 some items of a batch failed, 130 cancelled. Errors are one sentence on stderr; FLOW3D_TRACEBACK=1 adds
where they came from. What takes long to import is imported by the command that needs it.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .batch.command import add_arguments
from .flow3d.errors import Flow3DError, InputError

if TYPE_CHECKING:
    from tqdm import tqdm

    from .flow3d.animate import Options
    from .flow3d.fit.detect import MediaPipeDetector
    from .flow3d.head.model import HeadModel
    from .flow3d.track import HeadTrack


TRACK_SUFFIX = ".safetensors"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (None: this process's) and return its exit status."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        return _failed("cancelled; nothing was written.", 130)
    except InputError as error:
        return _failed(str(error), 2)
    except Flow3DError as error:
        return _failed(str(error), 1)
    except Exception as error:  # a defect or a full disk: a sentence for the user, the rest on demand
        return _failed(f"{type(error).__name__}: {error}. Set FLOW3D_TRACEBACK=1 to see where it happened.", 1)


def _failed(sentence: str, status: int) -> int:
    if os.environ.get("FLOW3D_TRACEBACK"):
        traceback.print_exc()
    print(f"flow3d: {sentence}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(prog="flow3d", description="Portrait animation, steered by explicit 3D correspondence.")
    commands = root.add_subparsers(metavar="COMMAND", required=True)

    demo = _command(commands, "demo", demo_command, "the main job on bundled input: a video, a contact sheet, a track")
    demo.add_argument("--list", action="store_true", help="list the bundled motions")
    demo.add_argument("--motion", metavar="NAME", help="the bundled motion that drives (default: medley)")
    demo.add_argument("-o", "--output", type=Path, default=Path("output"), metavar="FOLDER", help="default: output")
    _animation_arguments(demo)

    animate = _command(commands, "animate", animate_command, "animate a portrait by a driver")
    animate.add_argument("source", type=Path, metavar="SOURCE", help="an image with a face")
    animate.add_argument("driver", metavar="DRIVER", help="a video, an image, a saved track, or a bundled motion's name")
    animate.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.mp4")
    animate.add_argument("--mode", default="relative", metavar="relative|absolute", help="default: relative")
    _face_arguments(animate, "SOURCE")
    animate.add_argument("--driver-face", default="0", metavar="WHO", help="whom to take of several people in DRIVER")
    _animation_arguments(animate)

    fit = _command(commands, "fit", fit_command, "fit a head to an image or a video and save the track")
    fit.add_argument("input", type=Path, metavar="INPUT", help="an image or a video with a face")
    fit.add_argument("-o", "--output", type=Path, required=True, metavar="TRACK.safetensors")
    fit.add_argument("--overlay", type=Path, metavar="OUT.mp4|OUT.jpg", help="also draw the head over the input")
    _face_arguments(fit, "INPUT")
    fit.add_argument("--photometric", action="store_true", help="refine the fit against the pictures (about 1 s a frame)")
    fit.add_argument("--cuts", default="new track", metavar="WHAT", help="at a cut: new track (default), error, or ignore")
    _head_argument(fit)

    edit = _command(commands, "edit", edit_command, "turn, shift and reshape a saved track's head")
    edit.add_argument("track", metavar="TRACK", help="a saved track, or a bundled motion's name")
    edit.add_argument("--set", action="append", required=True, metavar="KEY=VALUE", dest="edits", help=_EDIT_HELP)
    edit.add_argument("-o", "--output", type=Path, required=True, metavar="TRACK.safetensors")
    _head_argument(edit)

    convert = _command(commands, "convert-head", convert_command, "turn a FLAME file into a safe and small one")
    convert.add_argument("source", type=Path, metavar="FLAME.pkl", help="a .pkl, .npz or .safetensors file")
    convert.add_argument("-o", "--output", type=Path, required=True, metavar="HEAD.safetensors")

    track = _command(commands, "convert-track", convert_track_command, "read and write tracks of other programs")
    track.add_argument("source", metavar="IN", help="a track, a Live Link Face .csv, FLAME parameters (a file or a folder), "
                       "or a bundled motion's name")  # fmt: skip
    track.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=".safetensors, .csv or .glb")
    track.add_argument("--fps", type=float, default=25.0, metavar="N", help="frame rate of FLAME parameters (default: 25)")
    _head_argument(track)

    add_arguments(_command(commands, "batch", batch_command, "many items through ComfyUI servers, from a table"))

    control = _command(commands, "init-controlnet", init_controlnet_command, "start a flow ControlNet to train from Stable Diffusion 1.5")
    control.add_argument("--from", type=Path, required=True, dest="source", metavar="SD15.safetensors",
                         help="a checkpoint or UNet of SD1.5, X-Portrait's checkpoint, or a ControlNet of SD1.5")  # fmt: skip
    control.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.safetensors")
    control.add_argument("--samples", type=int, default=20, metavar="N", help="points along each pixel's ray (default: 20)")
    control.add_argument("--delta", type=float, default=0.01, metavar="METRES", help="sampled around the surface (default: 0.01)")
    control.add_argument("--near", type=float, default=0.65, metavar="METRES", help="nearest depth beside the head (default: 0.65)")
    control.add_argument("--far", type=float, default=1.25, metavar="METRES", help="farthest depth beside the head (default: 1.25)")
    control.add_argument("--seed", type=int, default=0, metavar="N", help="of the new random weights (default: 0)")

    doctor = _command(commands, "doctor", doctor_command, "what is installed, what was found where, what is missing")
    doctor.add_argument("--download", action="store_true", help="fetch the missing weight files")

    bench = _command(commands, "bench", bench_command, "measure speed on this machine")
    bench.add_argument("what", choices=("flow", "fit", "animate"))
    bench.add_argument("--json", action="store_true", help="print named numbers for scripts")
    return root


_EDIT_HELP = (
    "an edit, such as yaw=10 (degrees), x=2 (cm) or jawOpen=0.4, or keyframes, such as yaw=0:0,24:20,48:0; may be repeated"
)


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def _head_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--head", default="open", metavar="NAME|FILE", help="the head model (default: open)")


def _face_arguments(command: argparse.ArgumentParser, where: str) -> None:
    who = "largest, left, central or confident, an index from 0, or both: left:1"
    command.add_argument("--face", default="0", metavar="WHO", help=f"whom to take of several people in {where}: {who}")
    command.add_argument("--landmarks", type=Path, metavar="FILE", help=f"points of the faces in {where}, .json or .npz")


def _animation_arguments(command: argparse.ArgumentParser) -> None:
    _head_argument(command)
    command.add_argument("--edit", action="append", default=[], metavar="KEY=VALUE", dest="edits", help=_EDIT_HELP)
    command.add_argument("--frames", type=int, metavar="N", help="write N frames at most")
    command.add_argument("--loop", action="store_true", help="write exactly --frames frames, repeating the driver")
    command.add_argument("--size", type=int, metavar="PIXELS", help="scale the portrait's short side")


@dataclass
class Bars:
    """Progress bars on stderr, one for each stage of the work; a `flow3d.animate.Progress`."""

    shown: dict[str, "tqdm"] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if stage not in self.shown:
            self.close()
            pause = 0.2 if sys.stderr.isatty() else 10.0  # seconds; a log file wants few lines
            self.shown[stage] = tqdm(total=total, desc=stage, file=sys.stderr, dynamic_ncols=True, mininterval=pause)
        bar = self.shown[stage]
        bar.total = max(total, done)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    def close(self) -> None:
        for bar in self.shown.values():
            bar.close()


@contextmanager
def _bars() -> Iterator[Bars]:
    bars = Bars()
    try:
        yield bars
    finally:
        bars.close()


class Detector:
    """MediaPipe's detector, made when it is first needed: a bundled motion needs none."""

    def __init__(self) -> None:
        self._made: MediaPipeDetector | None = None

    def __call__(self) -> "MediaPipeDetector":
        if self._made is None:
            from .flow3d.fit.detect import MediaPipeDetector
            from .flow3d.paths import find_weight

            self._made = MediaPipeDetector(find_weight("face_landmarker.task"), max_faces=8)
        return self._made

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, *_: object) -> None:
        if self._made is not None:
            self._made.close()


def _load_head(name: str, bars: Bars) -> "HeadModel":
    from .flow3d.head.load import load_head

    return load_head(name, progress=lambda done, total: bars("find landmarks on the head", done, total))


def _animation_options(options: argparse.Namespace, head: "HeadModel", mode: str) -> "Options":
    """What was asked, checked before the work begins."""
    from .flow3d.animate import Options
    from .flow3d.fit.edit import check_edits, parse_edits
    from .flow3d.fit.retarget import MODES

    if options.frames is not None and options.frames < 1:
        raise InputError(f"--frames is {options.frames}; it must be 1 or more.")
    if options.loop and options.frames is None:
        raise InputError("--loop needs --frames N, the number of frames to write.")
    if options.size is not None and not 32 <= options.size <= 8192:
        raise InputError(f"--size is {options.size}; it must be between 32 and 8192 pixels.")
    if mode not in MODES:
        raise InputError(f"--mode is '{mode}'; it must be one of {', '.join(MODES)}.")
    edits = parse_edits(options.edits)
    check_edits(head, edits)
    return Options(mode=mode, edits=edits, frames=options.frames, loop=options.loop, size=options.size)


def demo_command(options: argparse.Namespace) -> None:
    from .flow3d.io.motions import load_motion, motion_names

    if options.list:
        for name in motion_names():
            motion = load_motion(name)
            print(f"{name:16} {len(motion) / motion.fps:.1f} s, {len(motion)} frames")
        return
    from .flow3d.demo import DEFAULT_MOTION, run_demo

    with _bars() as bars:
        head = _load_head(options.head, bars)
        chosen = _animation_options(options, head, "relative")
        files = run_demo(head, options.output, options.motion or DEFAULT_MOTION, chosen, bars)
    for what, path in (("video", files.video), ("contact sheet", files.sheet), ("track", files.track)):
        print(f"{what + ':':15}{path.resolve()}")


def animate_command(options: argparse.Namespace) -> None:
    from .flow3d.animate import open_driver, open_portrait, retargeted, write_animation
    from .flow3d.fit.given import GivenFaces
    from .flow3d.fit.people import parse_choice
    from .flow3d.io.files import check_target
    from .flow3d.io.images import read_image
    from .flow3d.io.landmarks import read_landmarks
    from .flow3d.io.video import SUFFIXES

    check_target(options.output, SUFFIXES)
    who, driving = parse_choice(options.face), parse_choice(options.driver_face)
    given = None
    if options.landmarks is not None:
        height, width = read_image(options.source).shape[:2]
        given = GivenFaces(read_landmarks(options.landmarks).of_picture(width, height))
    with _bars() as bars, Detector() as detector:
        head = _load_head(options.head, bars)
        chosen = _animation_options(options, head, options.mode)
        portrait = open_portrait(head, options.source, given or detector(), chosen.size, who)
        driver = open_driver(head, options.driver, detector, chosen.frames, bars, driving)
        target = retargeted(head, portrait, driver, chosen)
        write_animation(head, portrait, target, options.output, driver.audio, bars)
    print(portrait.report)
    print(driver.report)
    print(f"{options.output.resolve()}: {len(target)} frames at {target.fps:g} frames a second")


def fit_command(options: argparse.Namespace) -> None:
    from .flow3d.animate import open_driver
    from .flow3d.fit.given import GivenFaces
    from .flow3d.fit.people import CUTS, parse_choice
    from .flow3d.io.files import check_target
    from .flow3d.io.landmarks import read_landmarks
    from .flow3d.io.tracks import save_track

    check_target(options.output, (TRACK_SUFFIX,))
    if not options.input.is_file():
        raise InputError(f"{options.input}: there is no such file.")
    if options.cuts not in CUTS:
        raise InputError(f"--cuts is '{options.cuts}'; it must be one of {', '.join(CUTS)}.")
    who = parse_choice(options.face)
    given = None if options.landmarks is None else GivenFaces(read_landmarks(options.landmarks))
    with _bars() as bars, Detector() as detector:
        head = _load_head(options.head, bars)
        fitted = open_driver(
            head, options.input, lambda: given or detector(), None, bars, who, options.cuts, options.photometric
        )
        if options.overlay is not None:
            _write_overlay(head, options.input, fitted.track, options.overlay, bars)
        save_track(fitted.track, options.output)
    print(fitted.report)
    for path in filter(None, (options.output, options.overlay)):
        print(path.resolve())


def _write_overlay(head: "HeadModel", source: Path, track: "HeadTrack", target: Path, bars: Bars) -> None:
    from .flow3d.animate import VIDEO_SUFFIXES
    from .flow3d.io.images import read_image, write_image
    from .flow3d.io.video import VideoReader, VideoWriter
    from .flow3d.render.overlay import draw_head

    if source.suffix.lower() not in VIDEO_SUFFIXES:
        write_image(target, draw_head(read_image(source), head, track.vertices(head)[0], track.camera))
        return
    reader = VideoReader(source)
    with VideoWriter(target, reader.width, reader.height, reader.fps, source if reader.has_audio else None) as writer:
        for t, image in zip(range(len(track)), reader, strict=False):
            writer.write(draw_head(image, head, track[t : t + 1].vertices(head)[0], track.camera))
            bars("overlay", t + 1, len(track))


def edit_command(options: argparse.Namespace) -> None:
    from .flow3d.fit.edit import edit_track, parse_edits
    from .flow3d.io.files import check_target
    from .flow3d.io.motions import load_motion, motion_names
    from .flow3d.io.tracks import load_track, save_track

    check_target(options.output, (TRACK_SUFFIX,))
    edits = parse_edits(options.edits)
    with _bars() as bars:
        head = _load_head(options.head, bars)
    bundled = options.track in motion_names() and not Path(options.track).exists()
    track = load_motion(options.track, head) if bundled else load_track(options.track)
    save_track(edit_track(head, track, edits), options.output)
    print(options.output.resolve())


def convert_command(options: argparse.Namespace) -> None:
    from .flow3d.head.load import convert_head

    head = convert_head(options.source, options.output)
    print(f"{options.output.resolve()}: {len(head.template)} vertices, {head.n_shape} identity and {head.n_expression} "
          f"expression components; licence: {head.licence}")  # fmt: skip


def convert_track_command(options: argparse.Namespace) -> None:
    from .flow3d.fit.arkit import on_head
    from .flow3d.io.files import check_target
    from .flow3d.io.formats import WRITE_SUFFIXES, read_track, write_track
    from .flow3d.io.motions import load_motion, motion_names

    check_target(options.output, WRITE_SUFFIXES)
    with _bars() as bars:
        head = _load_head(options.head, bars)
    bundled = options.source in motion_names() and not Path(options.source).exists()
    track = load_motion(options.source) if bundled else read_track(options.source, head, options.fps)
    write_track(on_head(track, head) if options.head != "open" else track, options.output, head)
    print(f"{options.output.resolve()}: {len(track)} frames at {track.fps:g} frames a second")


def init_controlnet_command(options: argparse.Namespace) -> None:
    """Write a fresh flow ControlNet."""
    from .models.flow_controlnet_file import init_controlnet
    from .models.flow_format import FlowFormat

    encoding = FlowFormat(options.samples, options.delta, options.near, options.far)
    init_controlnet(options.source, options.output, encoding, options.seed)
    print(f"{options.output}: a flow ControlNet of {encoding.channels} channels, to be trained")


def doctor_command(options: argparse.Namespace) -> None:
    from .flow3d.doctor import doctor_report, download_weights, format_report

    if options.download:
        with _bars() as bars:
            download_weights(progress=lambda done, total: bars("download", done, total))
    print(format_report(doctor_report()))


def batch_command(options: argparse.Namespace) -> int:
    from .batch.command import batch

    return batch(options)


def bench_command(options: argparse.Namespace) -> None:
    import json

    from .flow3d.bench import measure

    with _bars() as bars:
        numbers = measure(options.what, _load_head("open", bars), bars)
    if options.json:
        print(json.dumps(numbers))
        return
    if options.what == "flow":
        from .flow3d.bench_flow import flow_table

        print(flow_table(numbers))
        return
    for name, value in numbers.items():
        print(f"{name:32} {value:10.1f}")
