"""Measuring data sets of any channels and depth, with and without ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from basicsr.data import ImagePair, RestorationDataset, build_dataset
from basicsr.evaluation.evaluate import check_images, evaluate, pictures_in
from basicsr.evaluation.score_files import markdown, summary, write_results
from basicsr.io.images import read_image, write_png
from basicsr.metrics import get_protocol, measure
from basicsr.utils.distributed import World
from basicsr.utils.errors import DataError, NonFiniteError, Stopped

RNG = np.random.default_rng(3)
GT = RNG.integers(0, 256, (200, 208, 3), dtype=np.uint8)
LQ = RNG.integers(0, 256, (200, 208, 3), dtype=np.uint8)


class Pairs(RestorationDataset):
    """Given pairs."""

    def __init__(self, *pairs: ImagePair, synthetic: bool = False) -> None:
        self.pairs = pairs
        self.names = [f"image {i}" for i in range(len(pairs))]
        self.has_gt = pairs[0].gt is not None
        self.synthetic = synthetic

    def read(self, index: int) -> ImagePair:
        return self.pairs[index]

    def files(self, index: int) -> list[Path]:
        return []


def restored_of(lq: np.ndarray) -> np.ndarray:
    """Return three channels in [0, 1], not on 8-bit levels."""
    levels = lq.astype(np.float64)
    if np.issubdtype(lq.dtype, np.integer):
        levels /= np.iinfo(lq.dtype).max
    return (0.9 * levels[..., :3] + 0.0503).clip(0, 1).astype(np.float32)


def test_a_protocol_says_whether_it_measures_the_unrounded_output() -> None:
    (scores,) = evaluate(restored_of, Pairs(ImagePair(LQ, GT)), ["rgb", "dtpnet"], "truncate")
    restored = restored_of(LQ)
    assert scores.name == "image 0"
    assert scores.restored == {
        "rgb": measure((restored * np.float32(255)).astype(np.uint8), GT, "rgb"),
        "dtpnet": measure(restored, GT, "dtpnet"),
    }
    assert scores.degraded == {name: measure(LQ, GT, name) for name in ("rgb", "dtpnet")}


def test_without_ground_truth_only_some_protocols_measure(tmp_path) -> None:
    dataset = Pairs(ImagePair(LQ, None), ImagePair(GT, None))
    scores = evaluate(restored_of, dataset, ["matlab_y", "niqe"], "round")
    assert [list(each.restored) for each in scores] == [["niqe"], ["niqe"]]
    assert scores[1].degraded == {"niqe": measure(GT, protocol="niqe")}
    (mean,) = summary({"real": scores}, ["matlab_y", "niqe"])
    assert mean.restored == {"niqe": np.mean([each.restored["niqe"]["niqe"] for each in scores])}
    write_results(tmp_path, "net", {"real": scores}, [mean], {})
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == (
        "dataset,image,protocol,niqe,input_niqe"
    )
    # without any protocol that applies, images are restored all the same
    unmeasured = evaluate(restored_of, dataset, ["matlab_y"], "round")
    assert [(each.restored, each.degraded) for each in unmeasured] == [({}, {}), ({}, {})]
    assert summary({"real": unmeasured}, ["matlab_y"]) == []


def test_input_and_ground_truth_that_do_not_compare() -> None:
    """Two views, six channels: the input has no scores, the tables an empty cell."""
    six = np.concatenate([LQ, LQ], axis=2)
    scores = evaluate(restored_of, Pairs(ImagePair(six, GT)), ["rgb", "niqe"], "round")
    assert list(scores[0].restored) == ["rgb", "niqe"]
    assert scores[0].degraded == {}
    table = markdown(summary({"dual": scores}, ["rgb", "niqe"])).splitlines()
    assert table[0] == (
        "| data set | images | protocol | input PSNR | input SSIM | input NIQE | PSNR | SSIM | "
        "NIQE |"
    )
    rgb = scores[0].restored["rgb"]
    assert table[2] == f"| dual | 1 | rgb |  |  |  | {rgb['psnr']:.2f} | {rgb['ssim']:.4f} |  |"
    niqe = scores[0].restored["niqe"]["niqe"]
    assert table[3] == f"| dual | 1 | niqe |  |  |  |  |  | {niqe:.3f} |"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_files_have_the_depth_of_the_data_set(tmp_path, dtype) -> None:
    peak = np.iinfo(dtype).max
    gt = RNG.integers(0, peak + 1, (20, 24, 3)).astype(dtype)
    lq = (gt / np.float32(peak) + RNG.normal(0, 0.2, gt.shape)).astype(np.float32)  # beyond [0, 1]
    dataset = Pairs(ImagePair(np.concatenate([lq, lq], axis=2), gt), synthetic=True)
    save = pictures_in(tmp_path, dataset)
    (scores,) = evaluate(restored_of, dataset, ["rgb"], "round", save)

    def read(folder: str) -> np.ndarray:
        return read_image(tmp_path / folder / "image 0.png", "as_stored", "as_stored")

    restored = restored_of(lq)
    np.testing.assert_array_equal(read("gt"), gt)
    np.testing.assert_array_equal(read("restored"), np.round(restored * np.float32(peak)))
    for view in ("lq_left", "lq_right"):
        np.testing.assert_array_equal(read(view), np.round(lq.clip(0, 1) * np.float32(peak)))
    assert scores.restored["rgb"] == measure(np.round(restored * 255).astype(np.uint8), gt, "rgb")


def test_images_that_a_protocol_does_not_measure_are_found_beforehand() -> None:
    pairs = Pairs(ImagePair(LQ, GT), ImagePair(LQ[:40, :48], GT[:40, :48]))
    check_images(pairs, ["rgb"], "datasets.val")
    fault = "datasets.val_2: image 1: protocol 'niqe' is undefined for an image of 48 x 40"
    with pytest.raises(DataError, match=fault):
        check_images(pairs, ["rgb", "niqe"], "datasets.val_2")


def test_the_file_of_an_unsuitable_image_is_named(tmp_path) -> None:
    write_png(tmp_path / "a.png", GT)
    write_png(tmp_path / "b" / "small.png", GT[:9])
    dataset = build_dataset({"type": "ImageFolderDataset", "dataroot_lq": str(tmp_path)})
    fault = rf"^datasets\.val: b/small \({tmp_path}/b/small\.png\): protocol 'niqe' is undefined"
    with pytest.raises(DataError, match=fault):
        check_images(dataset, ["niqe"], "datasets.val")


def test_protocols_are_tried_beforehand_on_the_smallest_image(monkeypatch) -> None:
    """A metric that fails for another reason than the size, here on every image."""
    measured = []

    def fail(self, restored, target):
        measured.append(restored.shape)
        raise DataError("its weights are missing")

    monkeypatch.setattr(type(get_protocol("rgb")), "__call__", fail)
    pairs = Pairs(ImagePair(LQ, GT), ImagePair(LQ[:40, :48], GT[:40, :48]))
    with pytest.raises(DataError, match=r"^datasets\.val: image 1: its weights are missing$"):
        check_images(pairs, ["rgb"], "datasets.val")
    assert measured == [(40, 48, 3)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_all_protocols_accept_gray_and_sixteen_bits(channels, dtype) -> None:
    image = RNG.integers(0, np.iinfo(dtype).max, (200, 208, channels)).astype(dtype)
    check_images(Pairs(ImagePair(image, image)), ["matlab_y", "rgb", "dtpnet"], "datasets.val")


def test_protocols_that_need_a_ground_truth_are_not_applied_without_one() -> None:
    check_images(Pairs(ImagePair(LQ[:8, :8], None)), ["rgb"], "datasets.test_1")


class Second(World):
    """The first of two processes, of which the second sends `share`."""

    def __init__(self, share: object) -> None:
        super().__init__(rank=0, size=2)
        object.__setattr__(self, "share", share)

    def gather(self, value: object) -> list[object]:
        return [value, self.share]


def test_an_image_that_is_not_restored_to_finite_values_is_named() -> None:
    def failing(lq: np.ndarray) -> np.ndarray:
        raise NonFiniteError("not finite")

    dataset = Pairs(ImagePair(LQ, GT), ImagePair(LQ, GT))
    with pytest.raises(NonFiniteError, match=r"^image 0: not finite$"):
        evaluate(failing, dataset, ["rgb"], "round")
    with pytest.raises(NonFiniteError, match=r"^image 1: not finite$"):
        evaluate(
            restored_of,
            dataset,
            ["rgb"],
            "round",
            world=Second(NonFiniteError("image 1: not finite")),
        )
    with pytest.raises(Stopped, match="SIGTERM"):
        evaluate(restored_of, dataset, ["rgb"], "round", world=Second(Stopped("SIGTERM")))
