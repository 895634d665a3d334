"""Restoring files: which are written, which are skipped, and which messages appear."""

from __future__ import annotations

import errno
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clips import write_clip
from PIL import Image
from torch.distributed import HashStore

from basicsr.archs import RestorationNetwork
from basicsr.inference import segments
from basicsr.inference.files import (
    ByChannels,
    Outcome,
    StripsOn,
    joined,
    require_photographs,
    restore_files,
    restore_photograph,
)
from basicsr.inference.jobs import RECORDS, Findings, Records, RestoreJob, find_jobs
from basicsr.inference.segments import FrameReader, RestoredFrames
from basicsr.io.images import read_image, write_png
from basicsr.io.video.reading import read_frames, video_facts
from basicsr.utils.errors import CheckpointError, DataError
from basicsr.utils.team import Team

SETTINGS = {"weights": "abc", "precision": "fp32"}
LEVEL = 100
OUT = Path("out")


class Halving:
    """Restorer that halves every level, with a network of some number of channels."""

    def __init__(self, channels=3):
        self.network = RestorationNetwork(channels, channels)
        self.calls = 0

    def __call__(self, image):
        assert image.shape[2] == self.network.in_channels
        self.calls += 1
        return image.astype(np.float32) / np.float32(2 * np.iinfo(image.dtype).max)


@pytest.fixture(autouse=True)
def current_folder(tmp_path, monkeypatch):
    """Change to a temporary folder with photographs in `in` and below it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "day 1/a.png"):
        write_png(Path("in", name), np.full((6, 8, 3), LEVEL, np.uint8))


def run(*inputs, settings=SETTINGS, compare=False, network=None):
    """Restore `inputs` to `out`; return the outcome and the number of calls of the network."""
    network = network or Halving()
    jobs = find_jobs(inputs or ["in"], OUT)
    OUT.mkdir(exist_ok=True)
    return restore_files(network, jobs, Records(OUT, settings), compare), network.calls


def written():
    files = (path for path in OUT.rglob("*") if path.is_file())
    return sorted(path.relative_to(OUT).as_posix() for path in files)


def test_folders_keep_their_structure():
    assert run() == (Outcome(3, 0, []), 3)
    assert written() == [RECORDS, "a.png", "b.png", "day 1/a.png"]
    assert (read_image("out/day 1/a.png") == LEVEL // 2).all()


def test_patterns_and_files():
    assert [job.source.name for job in find_jobs(["in/[ab].png", "in/b.png"], OUT)] == [
        "a.png",
        "b.png",
    ]
    assert [str(job.target) for job in find_jobs(["in/d*"], OUT)] == ["out/a.png"]
    Path("in/[b].png").write_bytes(Path("in/a.png").read_bytes())
    assert [str(job.source) for job in find_jobs(["in/[b].png"], OUT)] == ["in/[b].png"]


def test_output_folder_inside_the_input_folder_is_skipped():
    inside = Path("in/restored")
    write_png(inside / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert sorted(str(job.target) for job in find_jobs(["in"], inside)) == [
        "in/restored/a.png",
        "in/restored/b.png",
        "in/restored/day 1/a.png",
    ]


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        (["none"], "out", "none: no such file or folder"),
        (["in/*.jpg"], "out", "in/*.jpg: no such file or folder"),
        (["empty"], "out", "empty: no images in this folder"),
        (["in"], "in", "in: would be overwritten; choose another folder"),
        (["in/a.png"], "in", "in/a.png: would be overwritten; choose another folder"),
        (["in/a.png", "in/day 1"], "out", "in/a.png and in/day 1/a.png would both become out/a"),
        (["."], ".", "would be overwritten"),
    ],
)
def test_invalid_inputs_are_reported_before_restoring(inputs, out, message):
    Path("empty").mkdir()
    with pytest.raises(DataError) as error:
        find_jobs(inputs, Path(out))
    assert message in str(error.value)


def test_only_new_and_changed_files_are_restored_again():
    run()
    assert run() == (Outcome(0, 3, []), 0)
    write_png(Path("in/c.png"), np.zeros((4, 4, 3), np.uint8))
    os.utime("in/b.png", ns=(1, 1))
    Path("out/day 1/a.png").unlink()
    assert run() == (Outcome(3, 1, []), 3)
    assert run(settings={**SETTINGS, "weights": "def"}) == (Outcome(4, 0, []), 4)


def test_files_written_by_others_are_never_overwritten():
    OUT.mkdir()
    Path("out/a.png").write_text("precious")
    outcome, calls = run()
    assert (outcome.restored, calls) == (2, 2)
    assert outcome.failures[0].startswith("out/a.png: is in the way")
    assert Path("out/a.png").read_text() == "precious"

    Path("out/b.png").write_text("retouched by hand")
    outcome, _ = run(settings={})
    assert [line.partition(":")[0] for line in outcome.failures] == ["out/a.png", "out/b.png"]
    assert Path("out/b.png").read_text() == "retouched by hand"


def test_a_truncated_record_does_not_affect_the_others():
    run("in/a.png")
    with Path(OUT, RECORDS).open("a") as file:
        file.write('\n{"file": "b.p')
    assert run("in/a.png", "in/b.png")[0] == Outcome(1, 1, [])
    assert run("in/a.png", "in/b.png")[0] == Outcome(0, 2, [])


def test_an_interruption_leaves_complete_files_only():
    class Interrupted(Halving):
        def __call__(self, image):
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().__call__(image)

    with pytest.raises(KeyboardInterrupt):
        run(network=Interrupted())
    assert written() == [RECORDS, "a.png"]
    assert run() == (Outcome(2, 1, []), 2)


def test_bad_files_do_not_stop_the_others():
    Path("in/aa.jpg").write_text("no photograph")
    Path("in/b.mp4").write_text("no video")
    whole = Path("in/b.png").read_bytes()
    Path("in/cut.png").write_bytes(whole[:-30])
    outcome, _ = run()
    assert outcome.restored == 3
    assert [line.partition(":")[0] for line in outcome.failures] == [
        "in/aa.jpg",
        "in/b.mp4",
        "in/cut.png",
    ]
    assert written() == [RECORDS, "a.png", "b.png", "day 1/a.png"]
    assert run("in/aa.jpg", "in/a.png")[0].before == 1


LONG = "雨" * 83 + ".png"


def test_odd_files_are_named_and_the_others_restored(monkeypatch):
    Path("in/dangling.png").symlink_to("nowhere")
    Path("in/loop.jpg").symlink_to("loop.jpg")
    os.mkfifo("in/pipe.webp")
    Path("in/long").mkdir()
    for name in (LONG, "x" * 251 + ".png", "line\nbreak.png"):
        write_png(Path("in/long/short.png"), np.full((6, 8, 3), LEVEL, np.uint8))
        Path("in/long/short.png").rename(Path("in/long", name))
    Path("elsewhere").mkdir()
    write_png(Path("elsewhere/c.png"), np.full((6, 8, 3), LEVEL, np.uint8))
    Path("in/linked").symlink_to(Path("elsewhere").absolute())
    Path("elsewhere/back").symlink_to(Path("in").absolute())
    with open(b"in/\xe9.png", "wb"):
        pass
    findings = Findings()
    jobs = find_jobs(["in"], OUT, findings)
    OUT.mkdir()
    outcome = restore_files(Halving(), jobs, Records(OUT, SETTINGS), compare=True)
    assert outcome.restored == 3 + 3 + 1
    assert [line.partition(": ")[0] for line in outcome.failures] == [
        "in/dangling.png",
        "in/loop.jpg",
        "in/pipe.webp",
    ]
    assert findings.problems == [
        "'in/\\udce9.png': this file name is not UTF-8 text; rename the file"
    ]
    assert findings.repeated == [Path("in/linked/back")]
    assert (read_image("out/linked/c.png") == LEVEL // 2).all()
    names = os.listdir("out/long")
    assert LONG in names
    assert len(names) == 6
    assert sum(name.endswith(".compare.jpg") for name in names) == 3
    again = restore_files(Halving(), jobs, Records(OUT, SETTINGS), compare=True)
    assert (again.restored, again.before) == (0, 7)


def test_two_files_of_one_output_do_not_stop_the_others():
    write_png(Path("more/a.png"), np.zeros((4, 4, 3), np.uint8))
    write_png(Path("more/z.png"), np.zeros((4, 4, 3), np.uint8))
    findings = Findings()
    jobs = find_jobs(["in/a.png", "more"], OUT, findings)
    assert [str(job.source) for job in jobs] == ["in/a.png", "more/z.png"]
    assert findings.problems == [
        "in/a.png and more/a.png would both become out/a.png; restore them into two folders"
    ]


@pytest.mark.parametrize(
    "damage", [b"5", b"{}", b"\xff", b"[1]", b'{"file": 5, "bytes": 1}', b"9" * 5000, b"[" * 99999]
)
def test_damaged_records_are_counted_and_do_not_affect_the_others(damage):
    run("in/a.png")
    with Path(OUT, RECORDS).open("ab") as file:
        file.write(b"\n" + damage)
    records = Records(OUT, SETTINGS)
    assert records.damaged == [3]
    assert run("in/a.png", "in/b.png")[0] == Outcome(1, 1, [])
    assert run("in/a.png", "in/b.png")[0] == Outcome(0, 2, [])


@pytest.mark.parametrize("target", [Path("precious"), Path("/nonexistent/x")])
def test_planted_links_are_not_followed(target):
    if not target.is_absolute():
        target.write_text("precious")
    OUT.mkdir()
    Path(OUT, RECORDS).symlink_to(target.absolute())
    with pytest.raises(OSError, match="is a link, which is not followed; remove it") as error:
        run("in/a.png")
    assert error.value.filename == str(OUT / RECORDS)
    Path(OUT, RECORDS).unlink()
    for name in (".a.png.part", ".a.png.compare.jpg.part"):
        Path(OUT, name).symlink_to(target.absolute())
    assert run("in/a.png", compare=True)[0] == Outcome(1, 0, [])
    assert written() == [RECORDS, "a.png", "a.png.compare.jpg"]
    if not target.is_absolute():
        assert target.read_text() == "precious"


def test_a_link_in_place_of_an_output_is_in_the_way():
    OUT.mkdir()
    Path("precious").write_text("precious")
    for name in ("a.png", "b.png"):
        Path(OUT, name).symlink_to(Path("precious" if name == "a.png" else "nowhere").absolute())
    outcome, _ = run()
    assert outcome.restored == 1
    assert [line.partition(": is in the way")[0] for line in outcome.failures] == [
        "out/a.png",
        "out/b.png",
    ]


def test_comparisons_written_by_others_are_never_overwritten():
    OUT.mkdir()
    Path(OUT, "a.png.compare.jpg").write_text("precious")
    os.utime(Path(OUT, "a.png.compare.jpg"), (1, 1))
    outcome, _ = run("in/a.png", compare=True)
    assert outcome.failures[0].startswith("out/a.png.compare.jpg: is in the way")
    assert Path(OUT, "a.png.compare.jpg").read_text() == "precious"


def test_a_folder_that_cannot_be_written_does_not_stop_the_others():
    OUT.mkdir()
    Path(OUT, "day 1").write_text("a file in place of a folder")
    outcome, calls = run()
    assert (outcome.restored, calls) == (2, 2)
    assert outcome.failures == ["out/day 1/a.png: Not a directory"]


def test_what_the_new_files_lack_is_collected():
    write_png(Path("in/b.png"), np.zeros((4, 4, 3), np.uint8))
    content = Path("in/b.png").read_bytes()
    chunk = b"\0\0\0\1sRGB\7" + zlib.crc32(b"sRGB\7").to_bytes(4, "big")
    for name in ("b.png", "c.png"):
        Path("in", name).write_bytes(content[:33] + chunk + content[33:])
    assert run()[0].left_out == {"sRGB (damaged)": ["b.png", "c.png"]}


def animated(path: str, **options) -> list[np.ndarray]:
    frames = [np.full((12, 16, 3), level, np.uint8) for level in (40, 120, 200, 120)]
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return frames


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_are_restored_frame_by_frame(suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    frames = animated(f"in/anim.{suffix}", duration=[50, 100, 150, 200], loop=3, **options)
    assert run(f"in/anim.{suffix}", compare=True) == (Outcome(1, 0, []), 4)
    with Image.open(f"out/anim.{suffix}") as out:
        assert out.format == Image.open(f"in/anim.{suffix}").format
        assert (out.n_frames, out.info["loop"]) == (4, 3)
        durations = []
        for number, frame in enumerate(frames):
            out.seek(number)
            assert np.abs(np.asarray(out.convert("RGB")) - (frame // 2).astype(int)).max() <= 1
            durations.append(out.info["duration"])
    assert durations == [50, 100, 150, 200]
    assert Path(f"out/anim.{suffix}.compare.jpg").exists()


def test_a_full_disk_stops_everything(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        run()
    assert error.value.filename == "out/a.png"
    assert written() == [RECORDS]


@pytest.mark.parametrize(
    "raised",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_is_reported(raised):
    class Greedy(Halving):
        def __call__(self, image):
            raise raised

    outcome, _ = run("in/a.png", network=Greedy())
    assert outcome.failures == [
        "in/a.png: not enough memory; set a limit with --memory, or use a smaller version"
    ]


def test_comparisons_are_written_beside_the_results():
    run()
    assert run(compare=True) == (Outcome(0, 3, []), 0)
    with Image.open("out/day 1/a.png.compare.jpg") as picture:
        assert picture.size == (8 + 8 + 8, 6)
        sides = np.asarray(picture).astype(int)
    assert np.abs(sides[:, :8] - LEVEL).max() <= 3
    assert np.abs(sides[:, 16:] - LEVEL // 2).max() <= 3

    before = Path("out/a.png.compare.jpg").stat().st_mtime_ns
    run(compare=True)
    assert Path("out/a.png.compare.jpg").stat().st_mtime_ns == before
    run(compare=True, settings={})
    assert Path("out/a.png.compare.jpg").stat().st_mtime_ns > before


def test_comparisons_of_16_bit_images_have_8_bits():
    cv2.imwrite("in/deep.png", np.full((16, 16, 3), 60000, np.uint16))
    assert run("in/deep.png", compare=True)[0] == Outcome(1, 0, [])
    assert (cv2.imread("out/deep.png", cv2.IMREAD_UNCHANGED) == 30000).all()
    sides = read_image("out/deep.png.compare.jpg")
    assert abs(int(sides[8, 2, 0]) - 60000 // 256) <= 2
    assert abs(int(sides[8, -3, 0]) - 30000 // 256) <= 2


def test_gray_networks_restore_gray_photographs_and_each_channel_of_others():
    gray = np.arange(48, dtype=np.uint8).reshape(6, 8) * 4
    write_png(Path("in/gray.png"), gray)
    deep = np.arange(6 * 8 * 3, dtype=np.uint16).reshape(6, 8, 3) * 400
    cv2.imwrite("in/deep.png", deep)
    outcome, calls = run("in/gray.png", "in/deep.png", network=Halving(channels=1))
    assert (outcome, calls) == (Outcome(2, 0, []), 1 + 3)
    with Image.open("out/gray.png") as restored:
        assert restored.mode == "L"
        np.testing.assert_array_equal(np.asarray(restored), gray // 2)
    np.testing.assert_array_equal(cv2.imread("out/deep.png", cv2.IMREAD_UNCHANGED), deep // 2)


def test_gray_networks_restore_each_channel_of_videos():
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[...] = (60, 120, 200)
    write_clip("in/clip.mp4", [frame] * 2)
    assert run("in/clip.mp4", network=Halving(channels=1)) == (Outcome(1, 0, []), 2 * 3)
    for restored in read_frames(Path("out/clip.mp4")):
        assert np.abs(restored.astype(int) - frame // 2).max() < 10


def test_rgb_networks_restore_gray_images():
    class Weighting(Halving):
        def __call__(self, image):
            return super().__call__(image) * np.array([0, 1, 2], np.float32)

    gray = np.full((4, 5, 1), LEVEL, np.uint8)
    restored = restore_photograph(Weighting(), gray)
    assert restored.shape == (4, 5, 1)
    assert restored == pytest.approx(LEVEL / 255 / 2)


def test_gray_images_have_a_network_of_their_own():
    write_png(Path("in/gray.png"), np.full((4, 5), LEVEL, np.uint8))
    networks = ByChannels(Halving(), Halving(channels=1))
    jobs = find_jobs(["in"], OUT)
    OUT.mkdir()
    outcome = restore_files(networks, jobs, Records(OUT, SETTINGS))
    assert (outcome.restored, networks.rgb.calls, networks.gray.calls) == (4, 3, 1)
    assert (read_image("out/gray.png", "as_stored") == LEVEL // 2).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_for_gray_and_rgb_images_restore_photographs(channels):
    require_photographs(RestorationNetwork(channels, channels), Path("net.safetensors"))


@pytest.mark.parametrize(
    ("channels", "mapping"),
    [((6, 3), "6 channels (a left and a right view) to 3"), ((3, 1), "3 channels to 1")],
)
def test_networks_for_other_images_are_rejected(channels, mapping):
    with pytest.raises(CheckpointError) as error:
        require_photographs(RestorationNetwork(*channels), Path("net.safetensors"))
    assert str(error.value) == (
        f"net.safetensors: RestorationNetwork maps {mapping}, but a photograph has 1 or 3; restore "
        "a data set of such images with basicsr/test.py"
    )


def test_videos_are_restored_frame_by_frame():
    frames = [np.full((33, 64, 3), level, np.uint8) for level in (80, 160, 240)]
    write_clip("in/clip.avi", frames, encoder="mpeg4", options={}, time_base=Fraction(1, 25))
    outcome, calls = run("in/clip.avi", compare=True)
    lost = "the codec mpeg4 (h264 is written); the odd size 64 x 33 (64 x 34 is written)"
    assert (outcome, calls) == (Outcome(1, 0, [], {lost: ["clip.avi"]}), 3)
    assert written() == [RECORDS, "clip.mp4", "clip.mp4.compare.mp4"]
    for frame, level in zip(read_frames(Path("out/clip.mp4")), (40, 80, 120), strict=True):
        assert np.abs(frame.astype(int) - level).max() < 10
    assert video_facts(Path("out/clip.mp4.compare.mp4"))[:3] == (34, 136, 3)
    assert run("in/clip.avi", compare=True) == (Outcome(0, 1, []), 0)


def test_jobs_count_their_pixels():
    write_clip("in/a.mp4", list(np.zeros((5, 48, 64, 3), np.uint8)))
    Path("in/bad.png").write_text("")
    assert RestoreJob(Path("in/a.png"), OUT).pixels() == 48
    assert RestoreJob(Path("in/a.mp4"), OUT).pixels() == 5 * 48 * 64
    assert RestoreJob(Path("in/bad.png"), OUT).pixels() == 0


class Bar:
    """Progress bar that records its positions."""

    def __init__(self):
        self.n, self.positions, self.text = 0, [], ""

    def update(self, amount):
        self.n += amount
        self.positions.append(self.n)

    def set_postfix_str(self, text, refresh):
        self.text = text


def test_strips_move_the_bar_within_a_photograph():
    bar = Bar()
    bar.n = 1000
    strips = StripsOn(bar, 600, passes=3)
    for part in (0.5, 1.0) * 3:
        strips(7, part)
    assert bar.positions == [1100, 1200, 1300, 1400, 1500, 1600]
    assert bar.text == "7 strips"
    strips.finish()
    assert (bar.n, bar.text) == (1600, "")


def test_small_photographs_count_as_a_whole():
    bar = Bar()
    StripsOn(bar, 600, passes=1).finish()
    assert bar.positions == [600]


@pytest.mark.parametrize("size", [2, 4])
def test_a_team_restores_each_file_once_and_makes_one_report(size, monkeypatch):
    Path("in/broken.png").write_text("no image")
    jobs, network, store = find_jobs(["in"], OUT), Halving(), HashStore()
    OUT.mkdir()

    def work(rank):
        team = Team(rank, size, store)
        records = Records(OUT, SETTINGS, rank)
        return joined(team, restore_files(network, jobs, records, team=team)), records

    with ThreadPoolExecutor(size) as pool:
        (outcome, records), *_ = pool.map(work, range(size))
    assert outcome[:2] == (3, 0)
    assert [message.partition(":")[0] for message in outcome.failures] == ["in/broken.png"]
    assert network.calls == 3
    assert (read_image("out/day 1/a.png") == LEVEL // 2).all()
    records.merge()
    assert written() == [RECORDS, "a.png", "b.png", "day 1/a.png"]
    Path("in/broken.png").unlink()
    assert run() == (Outcome(0, 3, []), 0)


def test_records_of_a_killed_run_are_merged_in_the_order_of_the_runs():
    """The file has been restored with other settings since; BMP files have equal sizes."""
    jobs = find_jobs(["in/a.png"], OUT)
    OUT.mkdir()
    other = {**SETTINGS, "weights": "def"}
    restore_files(Halving(), jobs, Records(OUT, SETTINGS, rank=1))
    for settings, rank in ((other, 0), (SETTINGS, 2), (other, 1)):
        records = Records(OUT, settings)
        records.merge()
        assert not records.has(jobs[0])
        restore_files(Halving(), jobs, Records(OUT, settings, rank))
    records = Records(OUT, other)
    records.merge()
    assert records.has(jobs[0])
    assert written() == [RECORDS, "a.png"]


@pytest.mark.parametrize("size", [2, 3])
def test_a_team_shares_a_long_video_by_segments(size, monkeypatch):
    monkeypatch.setattr(segments, "FRAMES", 3)
    write_clip("in/long.mp4", [np.full((16, 32, 3), 20 * i, np.uint8) for i in range(10)])
    Path("in/cut.mkv").write_bytes(b"no video")
    jobs, store, network = find_jobs(["in/long.mp4", "in/cut.mkv"], OUT), HashStore(), Halving()
    added, add = [], RestoredFrames.add

    def noted(self, number, levels):
        added.append(number)
        add(self, number, levels)

    monkeypatch.setattr(RestoredFrames, "add", noted)
    OUT.mkdir()

    def work(rank):
        team = Team(rank, size, store)
        records = Records(OUT, SETTINGS, rank)
        return joined(team, restore_files(network, jobs, records, team=team)), records

    with ThreadPoolExecutor(size) as pool:
        (outcome, records), *_ = pool.map(work, range(size))
    records.merge()
    assert outcome[:2] == (1, 0)
    assert [message.partition(":")[0] for message in outcome.failures] == ["in/cut.mkv"]
    assert sorted(added) == list(range(10))
    assert network.calls == 10
    assert written() == [RECORDS, "long.mp4"]
    shared = Path("out/long.mp4").read_bytes()
    Path("out/long.mp4").unlink()
    restore_files(Halving(), jobs[:1], records)
    assert Path("out/long.mp4").read_bytes() == shared


def test_frames_of_a_killed_run_are_used_and_missing_ones_restored(monkeypatch):
    write_clip("in/a.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3)
    job = RestoreJob(Path("in/a.mp4"), OUT / "a.mp4")
    stored = RestoredFrames(job, Records(OUT, SETTINGS))
    stored.add(1, np.full((16, 16, 3), 51, np.uint8))
    reader = FrameReader(stored, lambda frame: frame + 0.5)
    assert [float(reader(np.zeros((2, 2, 3))).mean()) for _ in range(3)] == [
        0.5,
        pytest.approx(0.2),
        0.5,
    ]
    other = RestoredFrames(job, Records(OUT, {**SETTINGS, "weights": "def"}))
    assert 1 in stored
    assert 1 not in other
    stored.remove()
    assert written() == []
