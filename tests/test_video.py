"""Video in and out, against files whose every frame, time and colour is known."""

import bisect
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from comfyui_flow3d.flow3d.errors import Flow3DError, InputError
from comfyui_flow3d.flow3d.io.video import VideoReader, VideoWriter


def grey_clip(path: Path, ticks: list[int], time_base: Fraction, rate: int = 25, side: int = 64) -> None:
    """Frame i is a flat grey of 16 + 2 i, shown from ticks[i] on. Lossless."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"qp": "0", "bf": "0"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = time_base
        for i, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(np.full((side * 3 // 2, side), 128, np.uint8), format="yuv420p")
            plane = np.frombuffer(frame.planes[0], np.uint8).reshape(side, -1).copy()
            plane[:] = 16 + 2 * i
            frame.planes[0].update(plane.tobytes())
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def indices(reader: VideoReader) -> list[int]:
    """Which frame of `grey_clip` each frame shows."""
    luma = [float(f[8:-8, 8:-8].mean()) * 219 / 255 + 16 for f in reader]
    return [round((y - 16) / 2) for y in luma]


def test_constant_rate_is_one_to_one(tmp_path):
    grey_clip(tmp_path / "a.mp4", [512 * i for i in range(50)], Fraction(1, 12800))
    reader = VideoReader(tmp_path / "a.mp4")
    assert reader.fps == 25 and reader.frames == 50 and not reader.has_audio and (reader.width, reader.height) == (64, 64)
    assert indices(reader) == list(range(50))
    assert indices(reader) == list(range(50))  # it can be read again
    assert reader.note == ""


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_keeps_time(tmp_path, suffix):
    """Oracle: at (k + 1/2) / fps the frame is the last one begun, found by bisection in the list of times."""
    steps = np.random.default_rng(0).integers(15, 90, 60)
    ticks = np.concatenate([[0], np.cumsum(steps)])[:60].tolist()
    grey_clip(tmp_path / f"a.{suffix}", ticks, Fraction(1, 1000))
    reader = VideoReader(tmp_path / f"a.{suffix}")
    got = indices(reader)
    half = Fraction(1, 2)
    for k, shown in enumerate(got):
        assert shown == bisect.bisect_right(ticks, (k + half) / reader.fps * 1000) - 1
    assert abs(len(got) / reader.fps - ticks[-1] / 1000) < 0.15
    assert 10 < reader.fps < 30


def test_a_start_other_than_zero(tmp_path):
    grey_clip(tmp_path / "a.mkv", [700 + 40 * i for i in range(20)], Fraction(1, 1000))
    assert indices(VideoReader(tmp_path / "a.mkv")) == list(range(20))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_metadata(tmp_path, degrees):
    """The matrix in the track header (ISO 14496-12, 8.3.2) turns clockwise; the oracle is the turned array."""
    size = 64, 96
    image = np.zeros((*size, 3), np.uint8)
    image[:20, :30, 0], image[-20:, :30, 1] = 255, 255
    with VideoWriter(tmp_path / "a.mp4", size[1], size[0], 25) as writer:
        for _ in range(3):
            writer.write(image)
    one, zero = 0x10000, 0
    a, b = {0: (one, zero), 90: (zero, one), 180: (-one, zero), 270: (zero, -one)}[degrees]
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, 0x40000000)
    (tmp_path / "b.mp4").write_bytes(data)
    reader = VideoReader(tmp_path / "b.mp4")
    expected = np.rot90(image, -degrees // 90)
    frames = list(reader)
    assert frames[0].shape == expected.shape == (reader.height, reader.width, 3)
    assert np.abs(frames[0].astype(int) - expected).mean() < 3


def bt(kr: float, kb: float, full: bool, yuv: np.ndarray) -> np.ndarray:
    """Y'CbCr codes to RGB 0..255 by the definition (ITU-R BT.601 and BT.709)."""
    y, cb, cr = (yuv[..., 0] - (0 if full else 16)), yuv[..., 1] - 128.0, yuv[..., 2] - 128.0
    y, cb, cr = y / (255 if full else 219), cb / (255 if full else 224), cr / (255 if full else 224)
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([r, g, b], -1) * 255, 0, 255)


MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114)}


@pytest.mark.parametrize(("tag", "full", "side", "means"), [
    (1, False, 64, 1), (5, False, 64, 5), (6, False, 64, 5), (1, True, 64, 1), (5, True, 64, 5),
    (2, False, 64, 5), (2, False, 720, 1), (6, False, 720, 5),
])  # fmt: skip
def test_colour_matrix_and_range(tmp_path, tag, full, side, means):
    """A flat colour with each tag, decoded as the standard says; untagged: BT.601 below 720 lines, BT.709 from there."""
    code = np.array([140, 90, 170])
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full else 1
        frame = av.VideoFrame(side, side, "yuv420p")
        for plane, value in zip(frame.planes, code, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = tag, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    got = next(iter(VideoReader(tmp_path / "a.mkv")))
    expected = bt(*MATRICES[means], full, code.astype(float))
    assert np.abs(got - expected).max() <= 1.5


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([255 * x, 255 * y, 255 * (1 - x) * (1 - y)], -1).round().astype(np.uint8)


def test_what_is_written_is_bt709(tmp_path):
    """The encoded planes, turned to RGB by the BT.709 equations here, are the picture."""
    image = smooth_picture(128, 160)
    with VideoWriter(tmp_path / "a.mp4", 160, 128, 30) as writer:
        writer.write(image)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
    assert tags == (1, 1, 1, 1)
    planes = frame.to_ndarray()
    y, u, v = planes[:128], planes[128:160].reshape(64, 80), planes[160:].reshape(64, 80)
    yuv = np.stack([y, u.repeat(2, 0).repeat(2, 1), v.repeat(2, 0).repeat(2, 1)], -1).astype(float)
    error = bt(*MATRICES[1], False, yuv) - image
    assert np.abs(error).mean() < 1.5 and np.abs(error.mean((0, 1))).max() < 0.5


def test_round_trip_of_a_photo(tmp_path):
    from skimage import data

    image = data.astronaut()
    with VideoWriter(tmp_path / "a.mp4", 512, 512, 25) as writer:
        for _ in range(3):
            writer.write(image)
    for frame in VideoReader(tmp_path / "a.mp4"):
        error = frame.astype(float) - image
        assert 10 * np.log10(255**2 / (error**2).mean()) > 37.5  # 41 dB is what 4:2:0 alone leaves
        assert np.abs(error.mean((0, 1))).max() < 0.6


def test_odd_sides_lose_their_last_line(tmp_path):
    image = smooth_picture(65, 99)
    with VideoWriter(tmp_path / "a.mp4", 99, 65, 25) as writer:
        writer.write(image)
    (frame,) = VideoReader(tmp_path / "a.mp4")
    assert frame.shape == (64, 98, 3)
    assert np.abs(frame.astype(int) - image[:64, :98]).mean() < 2


def clip_with_sound(path: Path, codec: str, start: int = 0) -> None:
    """Three seconds at 25 fps: white from frame 25 to 29; a 1 kHz tone from 1.0 s to 1.2 s, 44.1 kHz. Times begin at `start` s."""
    rate = 44100
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout="stereo")
        for i in range(75):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255 if 25 <= i < 30 else 0, np.uint8))
            frame.pts, frame.time_base = i + 25 * start, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        t = np.arange(3 * rate) / rate
        wave = np.where((t >= 1) & (t < 1.2), np.sin(2 * np.pi * 1000 * t), 0)
        samples = np.repeat((wave * 20000).astype(np.int16), 2)[None]
        sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        sound.rate, sound.pts, sound.time_base = rate, start * rate, Fraction(1, rate)
        resampler = av.AudioResampler(audio.codec_context.format, "stereo", rate, frame_size=audio.codec_context.frame_size)
        for block in [*resampler.resample(sound), *resampler.resample(None)]:
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))


def sound_of(path: Path) -> tuple[str, float, float]:
    """(codec, onset of the tone, end of the sound) in seconds after the first frame."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        start = container.streams.video[0].start_time * container.streams.video[0].time_base
        loud = end = None
        for frame in container.decode(stream):
            wave = np.abs(frame.to_ndarray().astype(float))
            wave = wave.reshape(-1, 2).max(1) if frame.format.is_packed else wave.max(0)
            wave = wave if wave.max() <= 1.5 else wave / 32768
            times = float(frame.pts * frame.time_base - start) + np.arange(len(wave)) / frame.rate
            if loud is None and (wave > 0.2).any():
                loud = float(times[np.argmax(wave > 0.2)])
            end = float(times[-1])
        return stream.codec_context.name, loud, end


@pytest.mark.parametrize(
    ("name", "codec", "start", "out", "becomes"),
    [
        ("a.mp4", "aac", 0, "out.mp4", "aac"),
        ("a.mkv", "aac", 2, "out.mp4", "aac"),
        ("a.mkv", "flac", 0, "out.mp4", "aac"),
        ("a.mkv", "flac", 2, "out.mp4", "aac"),
        ("a.mkv", "flac", 0, "out.mkv", "flac"),
        ("a.mov", "pcm_s16le", 0, "out.mp4", "aac"),
        ("a.mp4", "aac", 0, "out.mkv", "aac"),
    ],
)
def test_sound_is_kept_in_step_and_trimmed(tmp_path, name, codec, start, out, becomes):
    clip_with_sound(tmp_path / name, codec, start)
    reader = VideoReader(tmp_path / name)
    assert reader.has_audio
    frames = list(reader)
    assert len(frames) == 75
    with VideoWriter(tmp_path / out, 64, 64, reader.fps, tmp_path / name) as writer:
        for frame in frames[:50]:
            writer.write(frame)
    written = list(VideoReader(tmp_path / out))
    assert [k for k, f in enumerate(written) if f.mean() > 128] == list(range(25, 30)) and len(written) == 50
    kind, onset, end = sound_of(tmp_path / out)
    assert kind == becomes
    assert abs(onset - 1.0) < 0.03
    assert abs(end - 2.0) < 0.11  # whole packets are kept: FLAC's last 104 ms


def test_a_silent_driver_is_no_error(tmp_path):
    grey_clip(tmp_path / "a.mp4", [512 * i for i in range(5)], Fraction(1, 12800))
    with VideoWriter(tmp_path / "b.mp4", 64, 64, 25, tmp_path / "a.mp4") as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    assert not VideoReader(tmp_path / "b.mp4").has_audio


@pytest.mark.parametrize("data", [b"", b"no video at all " * 100])
def test_files_that_are_no_video(tmp_path, data):
    (tmp_path / "bad.mp4").write_bytes(data)
    for path in (tmp_path / "bad.mp4", tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(InputError, match=path.name):
            VideoReader(path)


def test_a_file_with_sound_only(tmp_path):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as f:
        f.setparams((1, 2, 8000, 0, "NONE", ""))
        f.writeframes(bytes(16000))
    with pytest.raises(InputError, match="no picture"):
        VideoReader(tmp_path / "a.wav")


def test_a_file_without_its_index(tmp_path):
    """An mp4 whose index stands at the end, cut in the middle: nothing can be read, and the message says so."""
    grey_clip(tmp_path / "a.mp4", [512 * i for i in range(100)], Fraction(1, 12800))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 3])
    with pytest.raises(InputError, match=r"cut\.mp4.*cut off"):
        VideoReader(tmp_path / "cut.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_file_cut_in_the_middle(tmp_path, suffix):
    """Index first (or none needed), the end missing: the frames up to there come, and a note."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / f"a.{suffix}", 64, 64, 25) as writer:
        for i in range(100):
            writer.write(np.roll(noise, 3 * i, 1))
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
    reader = VideoReader(tmp_path / f"cut.{suffix}")
    frames = list(reader)
    assert 20 < len(frames) < 80
    assert f"cut.{suffix}" in reader.note


def test_an_exception_leaves_nothing(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"the old file")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 64, 64, 25) as writer:
        for _ in range(30):
            writer.write(np.zeros((64, 64, 3), np.uint8))
        raise KeyboardInterrupt
    with pytest.raises(Flow3DError, match="no frame"), VideoWriter(tmp_path / "b.mp4", 64, 64, 25):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"the old file"


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for path in (tmp_path / "file" / "a.mp4", tmp_path / "a.avi", tmp_path / "a.gif"):
        with pytest.raises(InputError, match=path.name), VideoWriter(path, 64, 64, 25):
            raise AssertionError("entered")
    with pytest.raises(InputError, match="small"):
        VideoWriter(tmp_path / "a.mp4", 1, 64, 25)


def test_memory_does_not_grow(tmp_path):
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: use `python run.py test`")
    memory = psutil.Process().memory_info  # what is held now: a peak could be an earlier test's
    image = smooth_picture(512, 512)
    with VideoWriter(tmp_path / "a.mp4", 512, 512, 25) as writer:
        for i in range(400):
            writer.write(np.roll(image, i, 1))
            if i == 100:
                written = memory().rss
        grown = memory().rss - written
    for i, _ in enumerate(VideoReader(tmp_path / "a.mp4")):
        if i == 100:
            read = memory().rss
        if i == 390:  # near the end, where the reader still has what it has gathered
            grown = max(grown, memory().rss - read)
    assert i == 399
    assert grown < 60e6  # 300 frames are 236 MB


DATA = Path(os.environ.get("FLOW3D_TEST_DATA", ""), "drivers")


@pytest.mark.skipif(not os.environ.get("FLOW3D_TEST_DATA") or not DATA.is_dir(), reason="no clips in $FLOW3D_TEST_DATA")
def test_real_clips_frame_for_frame():
    """Constant-rate clips: as many frames as a plain decode, each near FFmpeg's own conversion."""
    for path in sorted(DATA.glob("d1*.mp4")):
        reader = VideoReader(path)
        with av.open(str(path)) as container:
            count = 0
            for ours, frame in zip(reader, container.decode(video=0), strict=True):
                count += 1
                if count % 50 == 1:
                    assert np.abs(ours.astype(int) - frame.to_ndarray(format="rgb24")).mean() < 1.5
        assert count == reader.frames
