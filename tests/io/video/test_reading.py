"""Reading videos: frames, orientation, colours, and what is refused. The videos are made here."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import HEIGHT, WIDTH, colours, write_clip

from basicsr.io.video.frames import Orientation
from basicsr.io.video.reading import read_frames, video_facts
from basicsr.utils.errors import DataError


def assert_shows(path, expected, tolerance=6):
    for frame, colour in zip(read_frames(path), expected, strict=True):
        assert frame.shape == colour.shape
        assert np.abs(frame.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize(
    ("suffix", "encoder"),
    [
        (".mp4", "libx264"),
        (".mov", "libx265"),
        (".m4v", "libx264"),
        (".mkv", "libx264"),
        (".webm", "libvpx-vp9"),
        (".avi", "mpeg4"),
        (".mpg", "mpeg2video"),
        (".mts", "libx264"),
    ],
)
def test_frames_come_in_order_and_colour(tmp_path, suffix, encoder):
    file = tmp_path / f"a{suffix}"
    options = {"crf": "10"} if encoder.startswith("lib") else {"qmin": "1", "qmax": "2"}
    if encoder == "libx265":
        options["x265-params"] = "log-level=none"
    write_clip(file, colours(), encoder=encoder, options=options, time_base=Fraction(1, 25))
    facts = video_facts(file)
    assert facts[:2] == (HEIGHT, WIDTH)
    assert facts.frames == 6 or suffix in (".mpg", ".mts")  # of which it is a guess
    assert_shows(file, colours())
    for frame, late in zip(list(read_frames(file))[4:], read_frames(file, 4), strict=True):
        np.testing.assert_array_equal(late, frame)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("matrix", [1, 5, 7, 9])
@pytest.mark.parametrize(("pix_fmt", "dtype"), [("yuv444p", np.uint8), ("yuv444p10le", np.uint16)])
def test_colours_follow_the_matrix_and_range_of_the_video(tmp_path, matrix, levels, pix_fmt, dtype):
    weights = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
    red, blue = weights[matrix]
    most = np.iinfo(dtype).max
    bits = 8 if dtype == np.uint8 else 10
    shown = [(1, 1, 1), (0, 0, 0), (0.8, 0.2, 0.4), (0.1, 0.5, 0.9)]
    scale = 2 ** (bits - 8)
    black, span, half = (16 * scale, 219 * scale, 112 * scale)
    if levels == 2:
        black, span, half = 0, 2**bits - 1, (2**bits - 1) / 2
    file = tmp_path / "a.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, levels
        for rgb in shown:
            luma = rgb[0] * red + rgb[1] * (1 - red - blue) + rgb[2] * blue
            planes = (
                black + span * luma,
                128 * scale + half * (rgb[2] - luma) / (1 - blue),
                128 * scale + half * (rgb[0] - luma) / (1 - red),
            )
            frame = av.VideoFrame(WIDTH, HEIGHT, pix_fmt)
            for plane, value in zip(frame.planes, planes, strict=True):
                np.frombuffer(plane, dtype)[:] = round(value)
            frame.colorspace, frame.color_range = matrix, levels
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for frame, rgb in zip(read_frames(file), shown, strict=True):
        assert frame.dtype == dtype
        np.testing.assert_allclose(frame[0, 0] / most, rgb, atol=1.5 / 2**bits + 0.004)


# The nine numbers are 16.16 and, in the last column, 2.30 fixed-point.
@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    ],
)
def test_frames_are_turned_upright(tmp_path, matrix, turn):
    a, b, c, d = (each << 16 for each in matrix)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:16, :32] = 255
    image[32:, 48:] = 128
    file = tmp_path / "a.mp4"
    write_clip(file, [image] * 2, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    assert_shows(file, [turn(image)] * 2, tolerance=20)


def test_orientation_is_inverted():
    image = np.arange(24).reshape(2, 4, 3)
    for transposed, y, x in np.ndindex(2, 2, 2):
        orientation = Orientation(None, bool(transposed), bool(y), bool(x))
        np.testing.assert_array_equal(orientation.stored(orientation.upright(image)), image)


def test_broken_videos_are_reported_in_a_line(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mkv").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.mov")
    messages = {
        "none.mp4": "no such file",
        "text.mp4": r"not a readable video \(",
        "empty.mkv": r"not a readable video \(the file is empty\)",
        "folder.mp4": "not a file; remove it",
        "pipe.mov": "not a file; remove it",
        "link.mp4": "a link to 'nowhere', which does not exist",
    }
    for name, words in messages.items():
        with pytest.raises(DataError, match=f"{name}: {words}") as raised:
            video_facts(tmp_path / name)
        assert "\n" not in str(raised.value)


def noise(count=40):
    return list(np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi"])
def test_truncated_videos_are_reported(tmp_path, suffix):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    encoder = "mpeg4" if suffix == "avi" else "libx264"
    write_clip(whole, noise(), encoder=encoder, time_base=Fraction(1, 25))
    assert len(list(read_frames(whole))) == 40
    content = whole.read_bytes()
    for part in (0.1, 0.5, 0.8):
        cut.write_bytes(content[: round(len(content) * part)])
        with pytest.raises(DataError, match=r"damaged; |not a readable video") as raised:
            list(read_frames(cut))
        assert "\n" not in str(raised.value)


def test_videos_with_damage_end_in_a_line_or_frames(tmp_path):
    whole, broken = tmp_path / "whole.mkv", tmp_path / "broken.mkv"
    write_clip(whole, noise(12), time_base=Fraction(1, 25))
    content = np.frombuffer(whole.read_bytes(), np.uint8)
    random = np.random.default_rng(1)
    for _ in range(40):
        changed = content.copy()
        places = random.integers(0, len(content), random.integers(1, 200))
        changed[places] = random.integers(0, 256, len(places))
        broken.write_bytes(changed.tobytes())
        with contextlib.suppress(DataError):
            assert len(list(read_frames(broken))) > 0


def test_a_header_that_asks_for_gigabytes_is_damaged(tmp_path):
    file = tmp_path / "a.mp4"
    write_clip(file, colours(2))
    content = bytearray(file.read_bytes())
    place = content.index(b"stsz")
    content[place + 12 : place + 16] = b"\x0f\xff\xff\xff"  # the number of samples
    file.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.mp4: "):
        list(read_frames(file))


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"a.mp4: has no video track"):
        video_facts(tmp_path / "a.mp4")


def test_a_playlist_does_not_open_its_neighbour(tmp_path):
    write_clip(tmp_path / "secret.mp4", colours(2))
    (tmp_path / "a.mkv").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    (tmp_path / "b.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"
    )
    for name in ("a.mkv", "b.mp4"):
        with pytest.raises(
            DataError, match=f"{name}: not a readable video .damaged, or not of a format"
        ):
            video_facts(tmp_path / name)


@pytest.mark.parametrize("name", ["12:30.mp4", "http:__a.mp4", "%03d.mp4", "-a.mp4", "雨 *.mp4"])
def test_names_are_only_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / name, colours(2))
    assert len(list(read_frames(tmp_path / name))) == 2
    assert video_facts(Path(name))[:2] == (HEIGHT, WIDTH)


def test_huge_frames_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DERAIN_MAX_MEGAPIXELS", "0.001")
    write_clip(tmp_path / "a.mp4", colours(2))
    with pytest.raises(DataError, match=r"a.mp4: too large to be decoded \(64 x 48; the limit is"):
        video_facts(tmp_path / "a.mp4")
