"""Video as a stream of uint8 RGB frames at a constant rate, in bounded memory. PyAV does the work.

Constant rate: output frame k shows the latest frame whose timestamp is at most (k + 1/2) / fps after the first frame's,
where fps is the stream's average rate (the rule of FFmpeg's `fps` filter). A file of variable frame rate therefore
keeps its duration, and its sound stays in step.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.audio.resampler import AudioResampler

from ..errors import Flow3DError, InputError
from .files import written

BT709, BT601 = 1, 5
"""Values of av.video.reformatter.Colorspace."""
LIMITED, FULL = 1, 2
"""Values of av.video.reformatter.ColorRange."""
_UNTAGGED = (2,)  # AVCOL_SPC_UNSPECIFIED
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # AVColorSpace to swscale's numbers
_SMOOTH = 0x4 | 0x2000 | 0x4000 | 0x40000  # bicubic, full chroma in and out, accurate rounding
_QUALITY = {"crf": "14", "preset": "fast", "x264-params": "chroma-qp-offset=-6"}
"""Nearly lossless; the finer chroma costs 3% of the size and spares saturated colours 0.5 to 0.9 dB."""
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,mxf,nut,ivf,rm,h264,hevc,mjpeg,yuv4mpegpipe,gif,apng,"
    "png_pipe,jpeg_pipe,webp_pipe,wav,mp3,flac,aac"
)
"""FFmpeg's names of what is read. Sound without pictures is told from what is no video at all."""
_MOST_PIXELS = 1 << 26  # twice those of 8K
_MAX_RATE = Fraction(240)
_LONGEST_LAST_FRAME = Fraction(1)  # seconds that a file's last frame is shown at most
_COPIED_AUDIO = {
    ".mp4": ("aac", "mp3", "ac3", "eac3", "opus", "alac"),
    ".mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"),
    ".mkv": ("aac", "mp3", "ac3", "eac3", "opus", "alac", "vorbis", "flac", "pcm_s16le", "pcm_s24le", "pcm_f32le"),
}
SUFFIXES = (".mp4", ".mov", ".mkv")
"""What `VideoWriter` writes."""
_MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}


def _opened(path: Path) -> "av.container.InputContainer":
    """The file, opened if it is a container by itself: FFmpeg would follow a playlist to any other file, whatever its name."""
    return av.open(str(path), options={"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"})


class VideoReader:
    """A video file. Iterating yields uint8 (H, W, 3) RGB frames, upright, at the constant rate `fps`; it can be repeated.

    Attributes:
        fps: frames a second. frames: how many to expect (an estimate; 0 where the file does not say).
        width, height: of the upright frames. has_audio: whether there is sound.
        note: after an iteration, one sentence where the file was damaged and the frames end early; otherwise "".

    Raises InputError where the file cannot be opened or holds no picture.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.note = ""
        if not self.path.is_file():
            raise InputError(f"{self.path}: there is no such file.")
        if self.path.stat().st_size == 0:
            raise InputError(f"{self.path.name}: the file is empty (0 bytes). Copy or record it again.")
        try:
            with _opened(self.path) as container:
                if not container.streams.video:
                    raise InputError(f"{self.path.name}: there is no picture in this file. Choose a video.")
                stream = container.streams.video[0]
                if stream.width * stream.height > _MOST_PIXELS:
                    raise InputError(f"{self.path.name}: {stream.width} x {stream.height} pixels are too many. Make it smaller.")
                self.fps = _rate(stream)
                self.has_audio = bool(container.streams.audio)
                self.frames = self._estimate(container, stream)
                first = next(self._decoded(container), None)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.path.name}: cannot be read as a video ({error.strerror or error}). It may be cut off or damaged: "
                "convert or record it again."
            ) from error
        if first is None:
            raise InputError(f"{self.path.name}: not one frame can be decoded. Convert or record it again.")
        self.height, self.width = first[1].shape[:2]

    def _estimate(self, container: "av.container.InputContainer", stream: "av.VideoStream") -> int:
        if stream.duration and stream.time_base:
            return round(stream.duration * Fraction(stream.time_base) * self.fps)
        if container.duration:
            return round(Fraction(container.duration, av.time_base) * self.fps)
        return stream.frames

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames at the constant rate. One decoded frame is held at a time."""
        self.note = ""
        with _opened(self.path) as container:
            count = 0
            shown: np.ndarray | None = None
            start = end = Fraction(0)
            half = Fraction(1, 2)
            for time, image, duration in self._decoded(container):
                if shown is None:
                    start = time if time is not None else Fraction(0)
                at = time - start if time is not None else end
                while shown is not None and (count + half) / self.fps < at:
                    yield shown
                    count += 1
                shown, end = image, at + duration
            while shown is not None and (count + half) / self.fps < end:
                yield shown
                count += 1
        if not self.note and count < 0.9 * self.frames - 1:
            self.note = f"{self.path.name}: the file ends after {count} of about {self.frames} frames; it may be cut off."

    def _decoded(
        self, container: "av.container.InputContainer"
    ) -> Iterator[tuple[Fraction | None, np.ndarray, Fraction]]:
        """(timestamp in seconds or None, upright RGB frame, how long it is shown in seconds) in display order."""
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in self._frames(container, stream):
            tick = Fraction(frame.time_base if frame.time_base is not None else stream.time_base or 0)
            shown = min(max((getattr(frame, "duration", 0) or 0) * tick, 1 / self.fps), _LONGEST_LAST_FRAME)
            yield None if frame.pts is None else frame.pts * tick, _to_rgb(frame, stream), shown

    def _frames(self, container: "av.container.InputContainer", stream: "av.VideoStream") -> Iterator[av.VideoFrame]:
        """Frames in display order; where the file breaks, they end and `note` says so."""
        count = 0
        try:
            for packet in container.demux(stream):
                for frame in packet.decode():
                    count += 1
                    yield frame
        except av.error.FFmpegError as error:
            if not count:
                raise
            self.note = f"{self.path.name}: damaged after frame {count} ({error.strerror or error}); the rest is left out."


def _rate(stream: "av.VideoStream") -> Fraction:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    if not rate or rate <= 0:
        return Fraction(25)
    return min(Fraction(rate), _MAX_RATE)


def _to_rgb(frame: av.VideoFrame, stream: "av.VideoStream") -> np.ndarray:
    """uint8 (H, W, 3): by the frame's own matrix and range, with square pixels, turned upright.

    Untagged pictures are BT.709 from 720 lines up and BT.601 below, as players assume.
    """
    tagged = frame.colorspace not in _UNTAGGED and frame.colorspace in _MATRICES
    matrix = _MATRICES[frame.colorspace] if tagged else (BT709 if min(frame.width, frame.height) >= 720 else BT601)
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    aspect = stream.sample_aspect_ratio or Fraction(1)
    rgb = frame.reformat(
        width=max(1, round(frame.width * aspect)),
        height=frame.height,
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=BT601 if matrix == BT709 else BT709,  # RGB has no matrix, but where both agree PyAV 14 ignores both
        src_color_range=FULL if full else LIMITED,
        dst_color_range=FULL,
        interpolation=_SMOOTH,
    ).to_ndarray()
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, quarters)) if quarters else rgb


class VideoWriter:
    """Writes H.264 (yuv420p, BT.709, CRF 14) as a context manager; the file appears whole at the end or not at all.

    The last row or column of an odd side is cut off, as yuv420p needs even sides. Sound comes from `audio_from`: its
    packets are copied where the container holds their codec, else re-encoded to AAC; it starts with that file's first
    frame and ends with the last frame written.

    Raises InputError for a container other than mp4, mov and mkv, or a place that cannot be written to.
    """

    def __init__(self, path: Path | str, width: int, height: int, fps: Fraction | float, audio_from: Path | None = None):
        self.path = Path(path)
        if self.path.suffix.lower() not in _MUXERS:
            raise InputError(f"{self.path.name}: cannot write '{self.path.suffix}' videos. Use .mp4, .mov or .mkv.")
        self.width, self.height = width // 2 * 2, height // 2 * 2
        if not self.width or not self.height:
            raise InputError(f"{self.path.name}: a video of {width} x {height} pixels is too small.")
        self.fps = Fraction(fps).limit_denominator(1001 * 60)
        self.audio_from = audio_from
        self.frames = 0
        self._open = ExitStack()

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            part = stack.enter_context(written(self.path))
            self._container = stack.enter_context(
                av.open(str(part), "w", format=_MUXERS[self.path.suffix.lower()], options=self._options())
            )
            self._stream = self._video_stream()
            self._audio = None
            if self.audio_from is not None:
                self._audio = _Audio.open(stack, Path(self.audio_from), self._container, self.path.suffix.lower())
            self._open = stack.pop_all()
        return self

    def _options(self) -> dict[str, str]:
        return {} if self.path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}

    def _video_stream(self) -> "av.VideoStream":
        stream = self._container.add_stream("libx264", rate=self.fps, options=_QUALITY)
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self.fps
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        return stream

    def write(self, image: np.ndarray) -> None:
        """Append one frame, uint8 (H, W, 3) RGB of the size given at the start."""
        if image.shape[0] < self.height or image.shape[1] < self.width:
            raise ValueError(f"VideoWriter: a frame of {image.shape} in a video of {self.height} x {self.width}")
        cut = np.ascontiguousarray(image[: self.height, : self.width])
        frame = av.VideoFrame.from_ndarray(cut, format="rgb24").reformat(
            format="yuv420p",
            src_color_range=FULL,
            dst_colorspace=BT709,
            dst_color_range=LIMITED,
            interpolation=_SMOOTH,
        )
        frame.pts, frame.time_base = self.frames, 1 / self.fps
        self._container.mux(self._stream.encode(frame))
        self.frames += 1
        if self._audio is not None:
            self._audio.copy_until(float(self.frames / self.fps))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            try:
                if not self.frames:
                    raise Flow3DError(f"{self.path.name}: no frame was written, so there is no video.")
                self._container.mux(self._stream.encode(None))
                if self._audio is not None:
                    self._audio.finish()
            except BaseException as failure:
                if not self._open.__exit__(type(failure), failure, failure.__traceback__):
                    raise
        self._open.__exit__(kind, error, trace)


class _Audio(ABC):
    """The sound of one file on its way into another: copied or re-encoded packet by packet, never ahead of the picture."""

    @classmethod
    def open(
        cls, stack: ExitStack, path: Path, target: "av.container.OutputContainer", suffix: str
    ) -> "_Audio | None":
        """None where `path` has no sound. Raises InputError where it cannot be opened."""
        try:
            source = stack.enter_context(_opened(path))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{path.name}: its sound cannot be read ({error.strerror or error}). Leave it out.") from error
        if not source.streams.audio:
            return None
        codec = source.streams.audio[0].codec_context
        if codec is None:
            return None
        kind = _CopiedAudio if codec.name in _COPIED_AUDIO[suffix] else _EncodedAudio
        return kind(source, target)

    def __init__(self, source: "av.container.InputContainer", target: "av.container.OutputContainer"):
        self._source, self._target = source, target
        self._in = source.streams.audio[0]
        video = source.streams.video[0] if source.streams.video else None
        clock = video if video is not None else self._in
        self._start = Fraction(clock.start_time or 0) * Fraction(clock.time_base or 0)
        self._packets = iter(source.demux(self._in))
        self._next = self._following()

    def copy_until(self, seconds: float) -> None:
        """Pass on what begins before `seconds` after the picture's start."""
        while self._next is not None and self._time(self._next) < seconds:
            if self._time(self._next) > -0.1:  # what is just before the start primes the decoder
                self._pass(self._next)
            self._next = self._following()

    def _following(self) -> "av.Packet | None":
        """The next packet with a time; None at the end, or where the sound is damaged: the picture goes on without it."""
        try:
            return next((p for p in self._packets if p.pts is not None and p.dts is not None), None)
        except av.error.FFmpegError:
            return None

    def _time(self, packet: "av.Packet") -> float:
        return float((packet.pts or 0) * packet.time_base - self._start)

    @abstractmethod
    def _pass(self, packet: "av.Packet") -> None:
        """Put one packet of the source into the target."""

    @abstractmethod
    def finish(self) -> None:
        """Pass on what an encoder still holds."""


class _CopiedAudio(_Audio):
    def __init__(self, source: "av.container.InputContainer", target: "av.container.OutputContainer"):
        super().__init__(source, target)
        self._out = target.add_stream_from_template(self._in)

    def _pass(self, packet: "av.Packet") -> None:
        shift = round(self._start / packet.time_base)
        packet.pts, packet.dts = (packet.pts or 0) - shift, (packet.dts or 0) - shift
        packet.stream = self._out
        self._target.mux(packet)

    def finish(self) -> None:
        """Copied packets are never held back."""


class _EncodedAudio(_Audio):
    _RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

    def __init__(self, source: "av.container.InputContainer", target: "av.container.OutputContainer"):
        super().__init__(source, target)
        rate = self._in.rate if self._in.rate in self._RATES else 48000
        layout = "mono" if self._in.channels == 1 else "stereo"
        self._out = target.add_stream("aac", rate=rate, layout=layout)
        self._resampler = AudioResampler("fltp", layout, rate, frame_size=1024)
        self._samples: int | None = None

    def _pass(self, packet: "av.Packet") -> None:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            return
        for frame in frames:
            if self._samples is None:
                self._samples = max(0, round(self._time(packet) * self._out.rate))
            if isinstance(frame, av.AudioFrame):
                frame.pts = None
                self._encode(self._resampler.resample(frame))

    def _encode(self, frames: "list[av.AudioFrame]") -> None:
        for frame in frames:
            frame.pts, frame.time_base = self._samples, Fraction(1, self._out.rate)
            self._samples = (self._samples or 0) + frame.samples
            self._target.mux(self._out.encode(frame))

    def finish(self) -> None:
        if self._samples is not None:
            self._encode(self._resampler.resample(None))
        self._target.mux(self._out.encode(None))
