from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr.io.images import list_images, read_image, write_png

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare.py"


def _noise(height: int, width: int, seed: int = 0, dtype=np.uint8, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def _prepare(run_script, data_set, part, source, output=None, *more):
    where = ("--output", output) if output else ()
    return run_script(
        "prepare", data_set, part, "--source", source, *where, "--workers", 1, "--partial", *more
    )


def _names(folder: Path) -> list[str]:
    return [path.name for path in list_images(folder)]


def _crop(path: Path) -> np.ndarray:
    return read_image(path, "as_stored", "as_stored")


# GoPro


def _make_gopro(root: Path, height: int = 720, width: int = 1280) -> None:
    for seed, file in enumerate(("A_1/000047.png", "A_1/000051.png", "B/000047.png")):
        sequence, name = file.split("/")
        for view in ("blur", "blur_gamma", "sharp"):
            image = _noise(height, width, 10 * seed + len(view))
            write_png(root / sequence / view / name, image)


@pytest.mark.parametrize("repacked", [False, True])
def test_gopro_crops_are_those_of_the_published_grid(run_script, tmp_path, repacked):
    source = tmp_path / "GoPro"
    blur, sharp = "A/blur/7.png", "A/sharp/7.png"
    if repacked:
        blur, sharp = "input/A-7.png", "target/A-7.png"
    images = {"input_crops": _noise(720, 1280, 1), "target_crops": _noise(720, 1280, 2)}
    write_png(source / blur, images["input_crops"])
    write_png(source / sharp, images["target_crops"])
    out = tmp_path / "out"
    code, printed, err = _prepare(run_script, "GoPro", "train", source, out)
    assert (code, err) == (0, "")
    assert "8 crops in" in printed
    corners = [(top, left) for top in (0, 208) for left in (0, 256, 512, 768)]
    for view, image in images.items():
        assert _names(out / view) == [f"A-7-{k}.png" for k in range(1, 9)]
        for k, (top, left) in enumerate(corners, 1):
            np.testing.assert_array_equal(
                _crop(out / view / f"A-7-{k}.png"), image[top : top + 512, left : left + 512]
            )


def test_gopro_validation_takes_the_centres(run_script, tmp_path):
    _make_gopro(tmp_path / "test", 301, 400)
    code, printed, _ = _prepare(run_script, "GoPro", "val", tmp_path / "test", tmp_path / "out")
    assert code == 0
    assert "3 crops in" in printed
    assert _names(tmp_path / "out" / "input_crops") == [
        "A_1-000047.png",
        "A_1-000051.png",
        "B-000047.png",
    ]
    whole = read_image(tmp_path / "test" / "B" / "sharp" / "000047.png")
    centre = _crop(tmp_path / "out" / "target_crops" / "B-000047.png")
    np.testing.assert_array_equal(centre, whole[22:278, 72:328])


@pytest.mark.parametrize(
    ("height", "width", "shapes"),
    [
        (512, 512, [(512, 512)]),
        (512, 600, [(512, 512)] * 2),
        (300, 512, [(300, 512)]),
        (300, 700, [(300, 512)] * 2),
        (40, 30, [(40, 30)]),
    ],
)
def test_small_sides(run_script, tmp_path, height, width, shapes):
    write_png(tmp_path / "in" / "input" / "x.png", _noise(height, width, 1))
    write_png(tmp_path / "in" / "target" / "x.png", _noise(height, width, 2))
    code, _, err = _prepare(run_script, "GoPro", "train", tmp_path / "in", tmp_path / "out")
    assert (code, err) == (0, "")
    crops = [_crop(path) for path in list_images(tmp_path / "out" / "input_crops")]
    assert [crop.shape[:2] for crop in crops] == shapes
    whole = _noise(height, width, 1)
    np.testing.assert_array_equal(crops[-1], whole[-shapes[-1][0] :, -shapes[-1][1] :])


def test_small_images_are_their_own_centre(run_script, tmp_path):
    for view in ("input", "target"):
        write_png(tmp_path / "in" / view / "x.png", _noise(100, 300))
    _prepare(run_script, "GoPro", "val", tmp_path / "in", tmp_path / "out")
    centre = _crop(tmp_path / "out" / "input_crops" / "x.png")
    np.testing.assert_array_equal(centre, _noise(100, 300)[:, 22:278])


def test_blur_gamma_is_refused(run_script, tmp_path):
    source = tmp_path / "train"
    write_png(source / "A" / "blur_gamma" / "1.png", _noise(8, 8))
    write_png(source / "A" / "sharp" / "1.png", _noise(8, 8))
    code, _, err = _prepare(run_script, "GoPro", "train", source, tmp_path / "out")
    assert code == 2
    assert f"error: {source}: there is only blur_gamma/, a second version" in err
    assert not (tmp_path / "out").exists()


def test_a_wrong_folder_is_named(run_script, tmp_path):
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "x.png", _noise(8, 8))
    for data_set, expected in (
        ("GoPro", "or SEQUENCE/blur/000001.png with SEQUENCE/sharp/000001.png; found x.png"),
        ("DPDD", "DPDD is laid out as inputC/ and target/; or"),
        ("SIDD", "or SCENE/0001_NOISY_SRGB_010.PNG with SCENE/0001_GT_SRGB_010.PNG; found x.png"),
        ("DFWB", "expected the folders DIV2K, Flickr2K, WaterlooED, BSD400"),
    ):
        code, _, err = _prepare(run_script, data_set, "train", tmp_path / "in", tmp_path / "out")
        assert code == 2
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert expected in err


def test_pairs_go_by_name_and_not_by_position(run_script, tmp_path):
    for view, names in (("input", "abc"), ("target", "acd")):
        for name in names:
            write_png(tmp_path / "in" / view / f"{name}.png", _noise(8, 8))
    code, _, err = _prepare(run_script, "GoPro", "train", tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert "input/b.png" in err
    assert "target/d.png" in err


def test_views_of_different_sizes_are_refused(run_script, tmp_path):
    write_png(tmp_path / "in" / "input" / "x.png", _noise(8, 9))
    write_png(tmp_path / "in" / "target" / "x.png", _noise(8, 8))
    code, _, err = _prepare(run_script, "GoPro", "train", tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert "x.png is 9x8 but" in err
    assert "the views of an image must have one size" in err


def test_counts_are_compared_with_the_published_ones(run_script, tmp_path):
    for view in ("input", "target"):
        write_png(tmp_path / "in" / view / "1fromGOPR0950.MP4.png", _noise(8, 8))
    code, _, err = run_script("prepare", "HIDE", "test", "--source", tmp_path / "in")
    assert code == 2
    assert err == (
        f"error: {tmp_path / 'in'}: 1 images instead of 2025 (copies with 1079 + 942 images are "
        "incomplete downloads); complete the data set, or add --partial\n"
    )
    code, printed, _ = _prepare(run_script, "HIDE", "test", tmp_path / "in")
    assert code == 0
    assert printed == "HIDE test: 1 images, published: 2025\n"


def test_unknown_parts_are_named(run_script, tmp_path):
    code, _, err = _prepare(run_script, "SIDD", "val", tmp_path, tmp_path)
    assert (code, err) == (2, "error: SIDD has no part 'val'; known: train\n")
    for view in ("input", "target"):
        write_png(tmp_path / "in" / view / "x.png", _noise(8, 8))
    code, _, err = _prepare(run_script, "GoPro", "train", tmp_path / "in")
    assert (code, err) == (2, "error: --output is missing\n")


# DPDD


def _published_selection(target: np.ndarray, corners: list[tuple[int, int]]) -> list[int]:
    """Return the kept crops by the rule's own words, one step at a time."""
    fitness = np.ones(len(corners))
    for size in (3, 7, 11, 15):
        sums = []
        for top, left in corners:
            bgr = target[top : top + 512, left : left + 512, ::-1].copy()
            gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
            x = cv2.Sobel(gray, cv2.CV_64F, 1, 0, ksize=size)
            y = cv2.Sobel(gray, cv2.CV_64F, 0, 1, ksize=size)
            sums.append(np.sum(np.sqrt(x * x + y * y)))
        shifted = np.array(sums) - min(sums)
        fitness *= shifted / shifted.max()
    kept = list(range(len(corners)))
    for _ in range(math.floor(0.3 * len(corners))):
        kept.remove(min(kept, key=lambda number: (fitness[number], number)))
    return kept


def _make_shot(root: Path, shot: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Write a shot as distributed; the target's number is the next one."""
    images = {view: _noise(height, width, shot + ord(view), np.uint16) for view in "clr"}
    y, x = np.mgrid[:height, :width]
    waves = 30000 + 20000 * np.sin(x * y / 9000) * (x / width) + 200 * images["c"][..., 0] / 65535
    images["target"] = np.repeat(waves[..., None], 3, axis=2).astype(np.uint16)
    for view in "clr":
        write_png(root / f"train_{view}" / "source" / f"1P0A{shot:04d}.png", images[view])
    write_png(root / "train_c" / "target" / f"1P0A{shot + 1:04d}.png", images["target"])
    return images


def test_dpdd_keeps_the_sharpest_crops_in_16_bits(run_script, tmp_path):
    images = _make_shot(tmp_path / "in", 890, 716, 1100)
    code, printed, err = _prepare(
        run_script, "DPDD", "train", tmp_path / "in" / "train_c", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    corners = [(top, left) for top in (0, 204) for left in (0, 204, 408, 588)]
    kept = _published_selection(images["target"], corners)
    assert len(kept) == 6
    assert "6 crops in" in printed
    assert kept != list(range(6))  # the rule decides, not the order
    views = {"inputC": "c", "inputL": "l", "inputR": "r", "target": "target"}
    for folder, view in views.items():
        assert _names(tmp_path / "out" / f"{folder}_crops") == [
            f"1P0A0890-{k}.png" for k in range(1, 7)
        ]
        for k, number in enumerate(kept, 1):
            top, left = corners[number]
            crop = _crop(tmp_path / "out" / f"{folder}_crops" / f"1P0A0890-{k}.png")
            assert crop.dtype == np.uint16
            np.testing.assert_array_equal(crop, images[view][top : top + 512, left : left + 512])


def test_published_image_sizes_give_the_published_numbers(load_script):
    load_script("prepare")
    from preparation.sets import PREPARATIONS

    def crops(data_set: str, height: int, width: int) -> int:
        cut = PREPARATIONS[data_set, "train"].cut
        count = len(cut.corners(height, width))
        return count - int(cut.dropped * count)

    assert crops("GoPro", 720, 1280) * 2103 == 16824
    assert crops("DPDD", 1120, 1680) * 350 == 7000
    assert crops("SIDD", 3000, 5328) == 112


def test_crops_without_any_edge_are_dropped_in_order(load_script):
    load_script("prepare")
    from preparation.cutting import Cut, keep_sharpest

    flat = np.full((64, 300, 3), 7, np.uint16)
    corners = [(0, left) for left in range(0, 250, 20)]
    assert keep_sharpest(flat, corners, Cut(32, dropped=0.3)) == corners[3:]


def test_dpdd_pairs_neighbouring_numbers(run_script, tmp_path):
    source = tmp_path / "in"
    for shot in (10, 20, 31):
        for view in "clr":
            write_png(source / f"val_{view}" / "source" / f"1P0A{shot:04d}.png", _noise(9, 9))
    for shot in (11, 19, 33):
        write_png(source / "val_c" / "target" / f"1P0A{shot:04d}.png", _noise(9, 9, shot))
    code, _, err = _prepare(run_script, "DPDD", "val", source / "val_c", tmp_path / "out")
    assert (code, err) == (0, "")
    target = _crop(tmp_path / "out" / "target_crops" / "1P0A0020.png")
    np.testing.assert_array_equal(target, _noise(9, 9, 19))

    moved = source / "val_c" / "target" / "1P0A0011.png"
    moved.rename(moved.with_stem("1P0A0045"))
    code, _, err = _prepare(run_script, "DPDD", "val", source / "val_c", tmp_path / "other")
    assert code == 2
    assert "1P0A0019 is at the place of the partner of 1P0A0010;" in err
    moved.with_stem("1P0A0045").unlink()
    code, _, err = _prepare(run_script, "DPDD", "val", source / "val_c", tmp_path / "other")
    assert code == 2
    assert "2 images for 3 shots" in err


def test_repacked_dpdd(run_script, tmp_path):
    for seed, view in enumerate(("inputC", "inputL", "inputR", "target")):
        write_png(tmp_path / "in" / view / "s.png", _noise(300, 300, seed, np.uint16))
    code, _, err = _prepare(run_script, "DPDD", "val", tmp_path / "in", tmp_path / "out")
    assert (code, err) == (0, "")
    right = _crop(tmp_path / "out" / "inputR_crops" / "s.png")
    np.testing.assert_array_equal(right, _noise(300, 300, 2, np.uint16)[22:278, 22:278])


# SIDD, DFWB


def test_sidd_pairs_noisy_and_gt(run_script, tmp_path):
    for scene in ("0001_001_S6", "0002_001_GP"):
        for number in (10, 11):
            for seed, kind in enumerate(("NOISY", "GT")):
                name = f"{scene[:4]}_{kind}_SRGB_{number:03d}.PNG"
                image = _noise(520, 900, seed + number)
                write_png(tmp_path / "Data" / scene / name, image)
    code, printed, err = _prepare(run_script, "SIDD", "train", tmp_path / "Data", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "SIDD train: 4 images" in printed
    assert "24 crops in" in printed  # rows at 0, 8; columns at 0, 384, 388
    names = _names(tmp_path / "out" / "input_crops")
    assert names == _names(tmp_path / "out" / "target_crops")
    assert names[:2] == ["0001_NOISY_SRGB_010-1.png", "0001_NOISY_SRGB_010-2.png"]
    target = _crop(tmp_path / "out" / "target_crops" / "0002_NOISY_SRGB_011-6.png")
    np.testing.assert_array_equal(target, _noise(520, 900, 12)[8:520, 388:900])


def test_dfwb_cuts_large_images_only(run_script, tmp_path):
    images = {
        "DIV2K/0001.png": _noise(801, 900, 1),
        "Flickr2K/000002.png": _noise(800, 1500, 2),
        "WaterlooED/00003.png": _noise(300, 400, 3),
        "BSD400/a/test_001.png": _noise(180, 180, 4, channels=1),
    }
    for name, image in images.items():
        write_png(tmp_path / "in" / name, image)
    code, printed, err = _prepare(run_script, "DFWB", "train", tmp_path / "in", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "7 crops in" in printed
    assert _names(tmp_path / "out") == [
        "BSD400-test_001.png",
        *(f"DIV2K-0001-{k}.png" for k in range(1, 5)),
        "Flickr2K-000002.png",
        "WaterlooED-00003.png",
    ]
    large = images["DIV2K/0001.png"]
    np.testing.assert_array_equal(_crop(tmp_path / "out" / "DIV2K-0001-4.png"), large[289:, 388:])
    np.testing.assert_array_equal(
        _crop(tmp_path / "out" / "Flickr2K-000002.png"), images["Flickr2K/000002.png"]
    )
    gray = _crop(tmp_path / "out" / "BSD400-test_001.png")
    np.testing.assert_array_equal(gray, images["BSD400/a/test_001.png"])


def test_every_folder_of_dfwb_is_counted(run_script, tmp_path):
    write_png(tmp_path / "DIV2K" / "1.png", _noise(8, 8))
    code, _, err = run_script(
        "prepare", "DFWB", "train", "--source", tmp_path, "--output", tmp_path / "out"
    )
    assert code == 2
    assert err == (
        f"error: {tmp_path / 'DIV2K'}: 1 images instead of 800 (BSD400 is a part of BSD500, whose "
        "other images include the test set BSD68); complete the data set, or add --partial\n"
    )


def test_one_name_for_two_images_is_refused(run_script, tmp_path):
    for folder in ("a", "b"):
        write_png(tmp_path / "in" / "DIV2K" / folder / "1.png", _noise(8, 8))
    code, _, err = _prepare(run_script, "DFWB", "train", tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert "a/1.png and" in err
    assert "have the same name" in err


# resuming


def test_crops_that_are_there_are_kept(run_script, tmp_path):
    _make_gopro(tmp_path / "in", 512, 700)
    out = tmp_path / "out"
    arguments = (run_script, "GoPro", "train", tmp_path / "in", out)
    assert _prepare(*arguments)[0] == 0
    files = list_images(out)
    before = {path: path.stat().st_mtime_ns for path in files}
    kept = _crop(files[1])
    files[0].unlink()
    code, printed, _ = _prepare(*arguments)
    assert code == 0
    assert "6 crops in" in printed
    after = {path: path.stat().st_mtime_ns for path in list_images(out)}
    assert [path for path in files if after[path] != before[path]] == [files[0]]
    np.testing.assert_array_equal(_crop(files[1]), kept)


def test_images_from_elsewhere_are_reported(run_script, tmp_path):
    _make_gopro(tmp_path / "in", 512, 512)
    write_png(tmp_path / "out" / "input_crops" / "stranger.png", _noise(8, 8))
    code, _, err = _prepare(run_script, "GoPro", "train", tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert "1 images are not from this data set, the first is stranger.png; remove" in err


def test_a_broken_image_stops_the_work_and_is_named(run_script, tmp_path):
    _make_gopro(tmp_path / "in", 64, 64)
    broken = tmp_path / "in" / "A_1" / "sharp" / "000051.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    code, _, err = _prepare(run_script, "GoPro", "train", tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert f"error: {broken}: cannot be decoded" in err


def test_a_killed_run_is_resumed(tmp_path):
    for number in range(8):
        for view in ("input", "target"):
            write_png(tmp_path / "in" / view / f"{number}.png", _noise(700, 900, number))
    command = [
        *(sys.executable, str(SCRIPT), "GoPro", "train", "--partial", "--workers", "2"),
        *("--source", str(tmp_path / "in"), "--output", str(tmp_path / "out")),
    ]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.time() + 60
    while len(list(tmp_path.glob("out/*/*.png"))) < 5 and time.time() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    early = list_images(tmp_path / "out")
    assert 5 <= len(early) < 8 * 2 * 6
    for path in early:
        assert _crop(path).shape == (512, 512, 3)  # none is half written
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "48 crops in" in done.stdout
    assert len(list(tmp_path.glob("out/*/*"))) == 96
    assert not list(tmp_path.glob("out/*/.*"))
    for number in range(8):
        crop = _crop(tmp_path / "out" / "target_crops" / f"{number}-6.png")
        np.testing.assert_array_equal(crop, _noise(700, 900, number)[188:, 388:])


def test_test_images_in_bsd400(run_script, tmp_path):
    for name in ("2018", "101085", "3096"):
        write_png(tmp_path / "in" / "BSD400" / f"{name}.png", _noise(8, 8))
    code, _, err = _prepare(run_script, "DFWB", "train", tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert err == (
        f"error: {tmp_path}/in/BSD400: images of the test set BSD68 are here, 2 in all ("
        "101085.png, 3096.png, ...); BSD400 is the part of BSD500 without them: remove them\n"
    )
