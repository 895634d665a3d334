from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from basicsr.io.images import read_image, write_png


def _scene(seed: int) -> np.ndarray:
    """Return an image with coarse shapes that depend on the seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


def _rainy(scene: np.ndarray, seed: int = 0) -> np.ndarray:
    streaks = np.random.default_rng(seed).random(scene.shape[:2]) < 0.02
    return np.where(streaks[..., None], 255, scene).astype(np.uint8)


@pytest.fixture
def rain13k(tmp_path: Path) -> Path:
    """Four good pairs in the layout Rain13K."""
    for i in range(1, 5):
        write_png(tmp_path / "input" / f"{i}.png", _rainy(_scene(i), i))
        write_png(tmp_path / "target" / f"{i}.png", _scene(i))
    return tmp_path


def _check(run_script, root: Path, *more: object) -> tuple[int, str]:
    code, out, _ = run_script(
        "check_dataset", "--dataroot", root, "--layout", "Rain13K", "--workers", 1, *more
    )
    return code, out


def test_a_set_without_faults(run_script, rain13k):
    code, out = _check(run_script, rain13k)
    assert code == 0
    assert out.splitlines() == [
        "pairs           4, 4 readable",
        "sizes           160x120: 4",
        "shortest side   120",
        "gt images       4, 0 show the scene of an earlier one",
        "version         4 images or pairs instead of 13711 or 13712: a part of the set",
        "faults          none",
    ]


def test_all_faults_in_one_report(run_script, rain13k):
    rainy, clean = rain13k / "input", rain13k / "target"
    write_png(rainy / "5.png", _scene(5))
    write_png(clean / "6.png", _scene(6))
    (rainy / "1.png").write_bytes((rainy / "1.png").read_bytes()[:3000])
    write_png(clean / "2.png", _scene(2)[:100])
    write_png(rainy / "3.png", _scene(3))
    write_png(rainy / "7.png", _rainy(_scene(4), 4))
    write_png(clean / "7.png", _scene(4))
    code, out = _check(run_script, rain13k)
    assert code == 1
    report, faults = out.split("faults          6\n")
    printed = sorted(line.strip() for line in faults.splitlines())
    assert printed[0].startswith(f"{rainy}/1.png: cannot be decoded (")
    assert printed[1:] == [
        f"{rainy}/2.png is 160x120 but {clean}/2.png is 160x100; a pair must have one size",
        f"{rainy}/3.png: is equal to its gt image",
        f"{rainy}/5.png: has no gt image",
        f"{rainy}/7.png: has the same pixels as {rainy}/4.png",
        f"{clean}/6.png: has no lq image",
    ]
    assert "pairs           5, 3 readable" in report
    assert "gt images       3, 1 show the scene of an earlier one" in report


def test_scenes_of_another_set_are_found_although_changed(run_script, rain13k, tmp_path):
    other = tmp_path / "other"
    write_png(other / "new.png", _scene(9))
    write_png(other / "smaller.png", cv2.resize(_scene(2), (80, 60)))
    write_png(other / "cropped.png", _scene(3)[:-1, :-1])
    write_png(other / "rainy.png", _rainy(_scene(4), 7))
    code, out = _check(run_script, rain13k, "--against", other)
    assert code == 1
    assert f"compared with   4 images of {other}" in out
    assert out.splitlines()[-3:] == [
        f"  {rain13k}/target/{i}.png: shows the scene of {other}/{name}.png"
        for i, name in ((2, "smaller"), (3, "cropped"), (4, "rainy"))
    ]


def test_against_a_layout(run_script, rain13k, tmp_path):
    other = tmp_path / "other"
    write_png(other / "rain" / "norain-1.png", _rainy(_scene(1), 5))
    write_png(other / "norain" / "norain-1.png", _scene(1))
    code, out = _check(run_script, rain13k, "--against", other, "--against-layout", "RainTrainL")
    assert code == 1
    assert "target/1.png: shows the scene of" in out


def test_the_data_set_is_required(run_script, rain13k):
    code, _, err = run_script("check_dataset", "--dataroot", rain13k)
    assert code == 2
    assert err == (
        "error: arguments: give --dataroot and --layout, or --lq and --gt, or --gt alone\n"
    )


def test_a_missing_folder(run_script, tmp_path):
    code, _, err = run_script("check_dataset", "--lq", tmp_path / "a", "--gt", tmp_path / "b")
    assert code == 2
    assert err == (
        f"error: {tmp_path}/a: no such folder; check the path, or put the data set there\n"
    )


def test_clean_images_alone(run_script, tmp_path):
    for number in range(3):
        write_png(tmp_path / "clean" / f"{number}.png", _scene(number))
    write_png(tmp_path / "clean" / "BSD500-101085-2.png", _scene(7))
    write_png(tmp_path / "clean" / "0101085.png", _scene(8))
    code, out, _ = run_script("check_dataset", "--gt", tmp_path / "clean", "--workers", 1)
    assert code == 1
    assert out.splitlines()[0] == "pairs           5, 5 readable"
    assert out.splitlines()[-2:] == [
        "faults          1",
        f"  {tmp_path}/clean/BSD500-101085-2.png: is image 101085 of the test set BSD68; leave it "
        "out of training",
    ]


def test_pairs_by_a_rule_by_a_list_and_in_lmdbs(run_script, tmp_path, make_lmdb):
    for n in (1, 2):
        write_png(tmp_path / "lq" / f"{n}_rain.png", _rainy(_scene(n), n))
        write_png(tmp_path / "gt" / f"{n}.png", _scene(n))
    (tmp_path / "list.txt").write_text("2_rain.png 2.png\n")
    make_lmdb(tmp_path / "lq.lmdb", {"1": _rainy(_scene(1))})
    make_lmdb(tmp_path / "gt.lmdb", {"1": _scene(1)})
    folders = ("--lq", tmp_path / "lq", "--gt", tmp_path / "gt")
    lmdbs = ("--lq", tmp_path / "lq.lmdb", "--gt", tmp_path / "gt.lmdb")
    for arguments, pairs in (
        ((*folders, "--pairing", "{n}_rain", "{n}"), 2),
        ((*folders, "--list", tmp_path / "list.txt"), 1),
        (lmdbs, 1),
    ):
        code, out, err = run_script("check_dataset", *arguments, "--workers", 1)
        assert (code, err) == (0, "")
        assert out.startswith(f"pairs           {pairs}, {pairs} readable\n")
    code, _, err = run_script("check_dataset", "--gt", tmp_path, "--list", "x")
    assert (code, err) == (2, "error: arguments: --pairing and --list go with --lq and --gt\n")


def test_left_out_images_are_counted(run_script, tmp_path):
    for name in ("rain-1", "norain-1", "norain-2", "rainstreak-1"):
        write_png(tmp_path / f"{name}.png", _rainy(_scene(1), len(name)))
    _, out, _ = run_script(
        "check_dataset", "--dataroot", tmp_path, "--layout", "RainTrainH", "--workers", 1
    )
    assert "pairs           1, 1 readable" in out
    assert "left out        1 images that belong to no pair" in out


def _numbered_bsd(shared_data: Path) -> set[str]:
    text = (shared_data / "README.md").read_text()
    return set(text.split("by name: ")[1].split(". Clean")[0].split(", "))


@pytest.mark.shared_data
def test_test_images_among_clean_ones_are_found_by_content(run_script, shared_data, tmp_path):
    """Renamed, turned and halved."""
    turns = (lambda i: i[::-1], lambda i: np.rot90(i), lambda i: cv2.resize(i, (160, 240)))
    expected = set()
    for number, path in enumerate(sorted((shared_data / "clean_BSDS").glob("*.jpg"))[:60]):
        image = np.ascontiguousarray(turns[number % 3](read_image(path)))
        write_png(tmp_path / f"{number}.png", image)
        if path.stem in _numbered_bsd(shared_data):
            expected.add(f"{number}.png: is image {path.stem} of the test set BSD68; leave it out")
    code, out, _ = run_script("check_dataset", "--gt", tmp_path)
    found = {line.split("/")[-1].removesuffix(" of training") for line in out.splitlines()[5:]}
    assert code == 1
    assert len(expected) > 10
    assert found == expected


@pytest.mark.shared_data
def test_known_versions_of_real_sets(run_script, shared_data):
    def lines(*arguments):
        return run_script("check_dataset", *arguments)[:2]

    code, out = lines("--gt", shared_data / "denoising" / "Set12")
    assert code == 0
    assert "version         the published images" in out
    code, out = lines("--gt", shared_data / "denoising" / "BSD68")
    assert code == 0
    assert "test images     24 show scenes of Rain100" in out
    code, out = lines("--dataroot", shared_data / "Rain100L", "--layout", "Rain100H")
    assert code == 1
    assert "its rain is light (input PSNR 25.5 dB): this is the set of the same name with L" in out


@pytest.mark.shared_data
def test_rain_train_l_shares_no_scene_with_rain100l(run_script, shared_data):
    code, out, _ = run_script(
        "check_dataset",
        *("--dataroot", shared_data / "RainTrainL", "--layout", "RainTrainL"),
        *("--against", shared_data / "Rain100L", "--against-layout", "Rain100L"),
    )
    assert code == 0
    assert "gt images       200, 0 show the scene of an earlier one" in out
    assert "compared with   100 images" in out
