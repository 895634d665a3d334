"""Reading and writing videos; most tests write with OpenCV, which is always installed."""

from __future__ import annotations

import shutil
import subprocess
import weakref

import cv2
import numpy as np
import pytest

from basicsr.io import videos
from basicsr.io.videos import read_frames, video_facts, write_video
from basicsr.utils.errors import DataError


def colours(count=6, height=48, width=64):
    """Yield frames of one colour each, which a codec changes little."""
    for i in range(count):
        yield np.full((height, width, 3), (40 * i, 200 - 30 * i, 90), np.uint8)


@pytest.fixture
def without_ffmpeg(monkeypatch):
    monkeypatch.setattr(videos, "has_ffmpeg", lambda: False)


@pytest.fixture
def ffmpeg():
    if not shutil.which("ffmpeg"):
        pytest.skip("ffmpeg is not installed")
    return lambda *arguments: subprocess.run(
        ["ffmpeg", "-y", "-loglevel", "error", *map(str, arguments)], check=True
    )


def assert_shows(path, expected):
    for frame, colour in zip(read_frames(path), expected, strict=True):
        assert np.abs(frame[: colour.shape[0], : colour.shape[1]].astype(int) - colour).max() < 12


@pytest.mark.parametrize("suffix", sorted(videos.WRITTEN_SUFFIXES))
def test_frames_come_back_in_order_and_colour(tmp_path, without_ffmpeg, suffix):
    file = tmp_path / f"a{suffix}"
    write_video(file, colours(), 12.5, file)
    assert video_facts(file) == (48, 64, 6, 12.5)
    assert_shows(file, colours())


def test_odd_sides_grow_by_a_pixel(tmp_path, without_ffmpeg):
    file = tmp_path / "a.mp4"
    write_video(file, colours(3, 47, 65), 25.0, file)
    assert video_facts(file)[:3] == (48, 66, 3)
    assert_shows(file, colours(3, 47, 65))


def test_frames_are_consumed_one_by_one(tmp_path, without_ffmpeg):
    seen = []

    def frames():
        for frame in colours(20):
            seen.append(weakref.ref(frame))
            yield frame
            assert sum(each() is not None for each in seen) <= 4

    write_video(tmp_path / "a.mp4", frames(), 25.0, tmp_path / "a.mp4")
    assert len(seen) == 20


def test_broken_videos_are_reported_in_a_line(tmp_path, without_ffmpeg):
    (tmp_path / "text.mp4").write_text("no video")
    whole = tmp_path / "whole.mkv"
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    write_video(whole, iter(noise), 25.0, whole)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    messages = {"none.mp4": "no such file", "text.mp4": "not a readable video"}
    for name, words in messages.items():
        with pytest.raises(DataError, match=f"{name}: {words}"):
            video_facts(tmp_path / name)
    with pytest.raises(DataError, match=r"cut.mkv: damaged; \d+ of \d+ frames can be read"):
        list(read_frames(tmp_path / "cut.mkv"))


def test_an_error_in_a_frame_ends_the_process_and_is_raised(tmp_path, ffmpeg):
    def frames():
        yield from colours(2)
        raise DataError("the third frame")

    with pytest.raises(DataError, match="the third frame"):
        write_video(tmp_path / "a.mp4", frames(), 25.0, tmp_path / "a.mp4")


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("avi", "pcm_s16le")])
def test_sound_and_title_are_kept(tmp_path, ffmpeg, container, codec):
    source, out = tmp_path / f"a.{container}", tmp_path / "out.mp4"
    picture = ("-f", "lavfi", "-i", "color=c=0x28c85a:s=64x48:r=25:d=1")
    tone = ("-f", "lavfi", "-i", "sine=d=1")
    ffmpeg(*picture, *tone, "-c:a", codec, "-metadata", "title=Rain", source)
    write_video(out, read_frames(source), 25.0, source)
    assert_shows(out, [np.full((48, 64, 3), (40, 200, 90))] * 25)
    facts = subprocess.run(["ffmpeg", "-hide_banner", "-i", out], capture_output=True, text=True)
    assert "Audio:" in facts.stderr
    assert "Rain" in facts.stderr
    assert "Video: h264" in facts.stderr


def test_a_failure_of_ffmpeg_is_reported(tmp_path, ffmpeg):
    with pytest.raises(DataError, match="ffmpeg could not write it"):
        write_video(tmp_path / "none" / "a.mp4", colours(), 25.0, tmp_path / "none.mp4")


def test_a_full_disk_is_noticed_without_ffmpeg(tmp_path, without_ffmpeg, monkeypatch):
    class Lossy:
        """Writer that loses frames, as OpenCV's does on a full disk."""

        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, path, *settings):
            self.inner = cv2_writer(path, *settings)
            self.count = 0

        def isOpened(self):
            return True

        def write(self, frame):
            self.count += 1
            if self.count < 4:
                self.inner.write(frame)

        def release(self):
            self.inner.release()

    cv2_writer = cv2.VideoWriter
    monkeypatch.setattr(cv2, "VideoWriter", Lossy)
    with pytest.raises(DataError, match="is the disk full"):
        write_video(tmp_path / "a.mp4", colours(), 25.0, tmp_path / "a.mp4")
