"""Pairs by a rule, by a list, and in LMDBs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from basicsr.data import LoaderSettings, SampleStage, build_dataset, training_batches
from basicsr.io.images import write_png
from basicsr.utils.errors import DataError, OptionsError


def _touch(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write_png(root / name, np.full((4, 5, 3), number, np.uint8))


def _pairs(**options) -> dict[str, tuple[str, str]]:
    """Return the names of both files of each pair, relative to the working folder."""
    dataset = build_dataset({"type": "PairedImageDataset", **options})
    assert [pair.name for pair in dataset.pairs] == dataset.names
    return {pair.name: (str(pair.lq), str(pair.gt)) for pair in dataset.pairs}


@pytest.fixture(autouse=True)
def _in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


ROOTS = {"dataroot_lq": "lq", "dataroot_gt": "gt"}


def test_many_degraded_images_of_one_ground_truth(tmp_path):
    _touch(tmp_path, "lq/im_0001_s95_a04.png", "lq/im_0001_s80_a05.png", "lq/x/im_2_s85_a06.png",
           "gt/im_0001.png", "gt/x/im_2.jpg.png")  # fmt: skip
    (tmp_path / "gt/x/im_2.jpg.png").rename(tmp_path / "gt/x/im_2.png")
    rule = {"lq": "{name}_s{a}_a{b}", "gt": "{name}"}
    assert _pairs(**ROOTS, pairing=rule) == {
        "im_0001_s80_a05": ("lq/im_0001_s80_a05.png", "gt/im_0001.png"),
        "im_0001_s95_a04": ("lq/im_0001_s95_a04.png", "gt/im_0001.png"),
        "x/im_2_s85_a06": ("lq/x/im_2_s85_a06.png", "gt/x/im_2.png"),
    }


def test_the_reading_of_a_name_that_has_a_partner_is_used(tmp_path):
    _touch(tmp_path, "lq/a_b_c_d.png", "gt/a_b.png")
    rule = {"lq": "{name}_{variant}", "gt": "{name}"}
    assert _pairs(**ROOTS, pairing=rule) == {"a_b_c_d": ("lq/a_b_c_d.png", "gt/a_b.png")}


@pytest.mark.parametrize(
    ("lq", "gt", "rule"),
    [
        ("rain-1", "norain-1", {"lq": "rain-{n}", "gt": "norain-{n}"}),
        ("rain-001", "norain-1", {"lq": "rain-{n:d}", "gt": "norain-{n:d}"}),
        ("1x2", "1", {"lq": "{}x2", "gt": "{}"}),
        ("7/rainy", "7/clean", {"lq": "{scene}/rainy", "gt": "{scene}/clean"}),
        ("1_1_rain", "1", {"lq": "{n}_{n}_rain", "gt": "{n}"}),
    ],
)
def test_rules(tmp_path, lq, gt, rule):
    _touch(tmp_path, f"lq/{lq}.png", f"gt/{gt}.png")
    assert _pairs(**ROOTS, pairing=rule) == {lq: (f"lq/{lq}.png", f"gt/{gt}.png")}


def test_both_sides_in_one_folder(tmp_path, caplog):
    _touch(tmp_path, "all/1.png", "all/1_rain.png", "all/2_rain.png", "all/2.png", "all/3.png")
    rule = {"lq": "{n}_rain", "gt": "{n}"}
    with caplog.at_level(logging.WARNING, "basicsr"):
        assert _pairs(dataroot="all", pairing=rule) == {
            "1_rain": ("all/1_rain.png", "all/1.png"),
            "2_rain": ("all/2_rain.png", "all/2.png"),
        }
    assert "1 images are left out, as they belong to no pair (all/3.png)" in caplog.text
    (tmp_path / "all/3.png").unlink()
    rule = {"lq": "{n}", "gt": "{n}_rain"}
    assert list(_pairs(dataroot="all", pairing=rule)) == ["1", "2"]


def test_suffixes_distinguish_the_sides(tmp_path):
    _touch(tmp_path, "all/1.png", "all/1.PPM")
    (tmp_path / "all/1.PPM").write_bytes(b"P6 5 4 255 " + bytes(60))
    rule = {"lq": "{n}.png", "gt": "{n}.ppm"}
    assert _pairs(dataroot="all", pairing=rule) == {"1": ("all/1.png", "all/1.PPM")}


def test_a_rule_selects_and_the_rest_is_counted(tmp_path, caplog):
    _touch(tmp_path, "lq/1_light.png", "lq/1_heavy.png", "gt/1.png", "gt/2.png")
    with caplog.at_level(logging.WARNING, "basicsr"):
        found = _pairs(**ROOTS, pairing={"lq": "{n}_heavy", "gt": "{n}"})
    assert list(found) == ["1_heavy"]
    assert "2 images are left out, as they belong to no pair (lq/1_light.png, gt/2.png)" in (
        caplog.text
    )


def test_a_degraded_image_without_ground_truth_is_a_fault(tmp_path):
    _touch(tmp_path, "lq/1_r.png", "lq/2_r.png", "gt/1.png")
    with pytest.raises(DataError, match=r"1 lq images without a partner \(lq/2_r\.png\)"):
        _pairs(**ROOTS, pairing={"lq": "{n}_r", "gt": "{n}"})


@pytest.mark.parametrize("end", ["", "_Z"])
def test_rules_that_suit_a_name_in_too_many_ways(tmp_path, end):
    """Trying all of them would take years."""
    name = "_".join("a" * 60)
    _touch(tmp_path, f"lq/{name}.png", "gt/a.png")
    lq = "_".join(f"{{w{number}}}" for number in range(12)) + end
    with pytest.raises(OptionsError, match=f"^pairing.lq: '{lq}' suits '{name}' in too many ways"):
        _pairs(**ROOTS, pairing={"lq": lq, "gt": "{w0}"})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"lq": "{a}", "gt": "{b}"}, "pairing.gt: '{b}' does not occur in pairing.lq"),
        ({"lq": "{a}{b}", "gt": "{a}"}, "pairing.lq: '{a}{b}' needs a character between two"),
        ({"lq": "{a", "gt": "{a}"}, "pairing.lq: '{a' is not a name with words like {name}"),
        ({"lq": "", "gt": "{a}"}, "pairing.lq: '' is not a name with words"),
        ({"lq": "{a:x}", "gt": "{a}"}, "pairing.lq: '{a:x}' is not a name with words"),
    ],
)
def test_faulty_rules(tmp_path, rule, message):
    _touch(tmp_path, "lq/1.png", "gt/1.png")
    with pytest.raises(OptionsError) as caught:
        _pairs(**ROOTS, pairing=rule)
    assert str(caught.value).startswith(message)


def test_a_rule_that_fits_nothing_shows_names(tmp_path):
    _touch(tmp_path, "lq/r1.png", "gt/c1.png")
    with pytest.raises(DataError) as caught:
        _pairs(**ROOTS, pairing={"lq": "{n}_rain", "gt": "{n}"})
    assert str(caught.value) == ("pairing: no pair fits '{n}_rain' and '{n}'; lq has r1, gt has c1")


@pytest.mark.parametrize(
    ("names", "guess"),
    [
        (("lq/rain-1", "lq/rain-12", "gt/norain-1", "gt/norain-12"),
         "pairing: {lq: 'rain-{name}', gt: 'norain-{name}'}"),
        (("lq/1_rain", "lq/21_rain", "gt/1_clean", "gt/21_clean"),
         "pairing: {lq: '{name}_rain', gt: '{name}_clean'}"),
    ],
)  # fmt: skip
def test_different_names_suggest_a_rule(tmp_path, names, guess):
    _touch(tmp_path, *(f"{name}.png" for name in names))
    with pytest.raises(DataError) as caught:
        _pairs(**ROOTS)
    assert str(caught.value).endswith(f"expected equal names, or {guess}")


def test_the_list_of_spanet(tmp_path):
    """Both names begin with a slash, and are relative to the folder of the list."""
    _touch(tmp_path, "SPA/real_world/a/1.png", "SPA/real_world/a/2.png", "SPA/real_world_gt/a.png")
    (tmp_path / "SPA/real_world.txt").write_bytes(
        b"/real_world/a/1.png /real_world_gt/a.png\r\n/real_world/a/2.png /real_world_gt/a.png\r\n"
    )
    expected = {
        f"real_world/a/{n}": (f"SPA/real_world/a/{n}.png", "SPA/real_world_gt/a.png")
        for n in (1, 2)
    }
    assert _pairs(dataroot="SPA", meta_info_file="real_world.txt") == expected
    assert _pairs(dataroot="SPA", meta_info_file="SPA/real_world.txt") == expected
    assert _pairs(dataroot="SPA", layout="SPA-Data") == expected


@pytest.mark.parametrize(
    "text",
    [
        "sub/b 1.png (4,5,3)\n",
        "\ufeff# chosen\nsub/b 1.png (4,5,3) 1\n\n",
        "sub/b 1.png",
        "sub\\b 1.png, sub\\b 1.png",
        "sub/b 1.png\tsub/b 1.png",
    ],
)
def test_lists_of_names_and_of_pairs(tmp_path, text):
    _touch(tmp_path, "lq/a.png", "lq/sub/b 1.png", "gt/c.png", "gt/sub/b 1.png")
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert _pairs(**ROOTS, meta_info_file="list.txt") == {
        "sub/b 1": ("lq/sub/b 1.png", "gt/sub/b 1.png")
    }


def test_a_list_of_ground_truth_with_a_rule(tmp_path):
    _touch(tmp_path, "lq/1_s1.png", "lq/1_s2.png", "lq/2_s1.png", "gt/1.png", "gt/2.png")
    (tmp_path / "list.txt").write_text("1.png (4,5,3)\n")
    rule = {"lq": "{n}_s{k}", "gt": "{n}"}
    found = _pairs(**ROOTS, meta_info_file="list.txt", pairing=rule)
    assert list(found) == ["1_s1", "1_s2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "list.txt: lists no image"),
        (b"1.png 1.png\n1.png\n", "list.txt: line 2 names 1 images, others do not"),
        (b"1.png 3.png\n", "list.txt: line 1 names gt/3.png, which does not exist"),
        (b"3.png\n", "list.txt: line 1 names 3.png, but gt and lq have no such pair"),
        (b"1.png 1.png 1\n", "list.txt: line 1 is not LQ GT, the names of two images"),
        ("雨.png".encode("gbk"), "list.txt: is not UTF-8 text"),
    ],
)
def test_faulty_lists(tmp_path, text, message):
    _touch(tmp_path, "lq/1.png", "gt/1.png")
    (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(DataError) as caught:
        _pairs(**ROOTS, meta_info_file="list.txt")
    assert str(caught.value).startswith(message)


def test_a_missing_list(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt: cannot be read \(No such file"):
        _pairs(**ROOTS, meta_info_file="none.txt")


@pytest.mark.parametrize("prefix", ["rain/", ""])
def test_the_training_folders_of_the_prenet_authors(tmp_path, prefix, caplog):
    """All in one folder, or in two, with prefixes."""
    gt = "norain/" if prefix else ""
    _touch(tmp_path, f"{prefix}rain-1.png", f"{prefix}rain-3.png", f"{gt}norain-1.png",
           f"{gt}norain-3.png")  # fmt: skip
    if not prefix:
        _touch(tmp_path, "norain-2.png", "rainstreak-1.png", "rainregion-1.png")
    with caplog.at_level(logging.WARNING, "basicsr"):
        assert _pairs(dataroot=".", layout="RainTrainH") == {
            f"rain-{n}": (f"{prefix}rain-{n}.png", f"{gt}norain-{n}.png") for n in (1, 3)
        }
    lines = [] if prefix else [
        "1 images are left out, as they belong to no pair (norain-2.png)"
    ]  # fmt: skip
    assert caplog.messages == lines


def test_home_and_environment_variables(tmp_path, monkeypatch):
    _touch(tmp_path, "home/lq/1.png", "home/gt/1.png", "home/a$b/1.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", "~/gt")
    monkeypatch.delenv("NOTHING", raising=False)
    lq = {"type": "ImageFolderDataset", "dataroot_lq": "~/lq"}
    assert build_dataset(lq).paths == [tmp_path / "home/lq/1.png"]
    assert _pairs(dataroot_lq="~/lq", dataroot_gt="${DATA}") == {
        "1": (str(tmp_path / "home/lq/1.png"), str(tmp_path / "home/gt/1.png"))
    }
    clean = {"type": "SyntheticRainDataset", "dataroot_gt": "$DATA"}
    assert build_dataset(clean).paths == [tmp_path / "home/gt/1.png"]
    assert len(build_dataset({**clean, "dataroot_gt": "home/a$b"})) == 1
    for options in (
        {"dataroot": "$NOTHING/x", "layout": "Rain100L"},
        {"dataroot_lq": "$NOTHING", "dataroot_gt": "x"},
        {"dataroot": "~/lq", "meta_info_file": "$NOTHING/list.txt"},
    ):
        with pytest.raises(OptionsError, match=r"the environment variable NOTHING is not set; set"):
            _pairs(**options)
    with pytest.raises(OptionsError, match="the environment variable NOTHING is not set"):
        build_dataset({**clean, "dataroot_gt": "$NOTHING"})


RNG = np.random.default_rng(0)


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_on_lmdbs(tmp_path, make_lmdb, monkeypatch, cache, num_workers):
    """The same batches as from folders, also with forked workers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = {f"{n:02d}": RNG.integers(0, 256, (20, 24, 3), np.uint8) for n in range(4)}
    for key, image in images.items():
        write_png(tmp_path / "lq" / f"{key}.png", 255 - image)
        write_png(tmp_path / "gt" / f"{key}.png", image)
    lmdbs = [
        str(make_lmdb(tmp_path / "lq.lmdb", {key: 255 - image for key, image in images.items()})),
        str(make_lmdb(tmp_path / "gt.lmdb", images)),
    ]

    def batches(lq: str, gt: str, num_workers: int):
        dataset = build_dataset(
            {"type": "PairedImageDataset", "dataroot_lq": lq, "dataroot_gt": gt, "cache": cache}
        )
        dataset.check()
        settings = LoaderSettings([SampleStage(8, 2, 5)], seed=1, num_workers=num_workers)
        return dataset, list(training_batches(dataset, settings))

    dataset, found = batches(*lmdbs, num_workers)
    _, expected = batches("lq", "gt", 0)
    for batch, other in zip(found, expected, strict=True):
        assert batch.names == other.names
        assert torch.equal(batch.lq, other.lq)
        assert torch.equal(batch.gt, other.gt)
    assert (
        dataset.fingerprint()
        == build_dataset(
            {"type": "PairedImageDataset", "dataroot_lq": lmdbs[0], "dataroot_gt": lmdbs[1]}
        ).fingerprint()
    )


def test_lmdbs_of_other_images_differ_in_their_fingerprints(tmp_path, make_lmdb):
    image = RNG.integers(0, 256, (20, 24, 3), np.uint8)
    prints = []
    for name, content in (("a", image), ("b", image[::-1]), ("c", image)):
        folder = make_lmdb(tmp_path / f"{name}.lmdb", {"1": content})
        dataset = build_dataset({"type": "SyntheticRainDataset", "dataroot_gt": str(folder)})
        assert dataset.names == ["1"]
        prints.append(dataset.fingerprint()["sha256"])
    assert prints[0] == prints[2] != prints[1]


def test_sixteen_bits_and_gray_in_lmdbs(tmp_path, make_lmdb):
    deep = RNG.integers(0, 65536, (6, 7), np.uint16)
    for side in ("lq", "gt"):
        make_lmdb(tmp_path / f"{side}.lmdb", {"1": deep})
    dataset = build_dataset(
        {"type": "PairedImageDataset", "dataroot_lq": "lq.lmdb", "dataroot_gt": "gt.lmdb",
         "color": "as_stored", "bit_depth": "as_stored"}
    )  # fmt: skip
    assert (dataset.lq_channels, dataset.bit_depth) == (1, 16)
    np.testing.assert_array_equal(dataset.read(0).lq, deep[..., None])


def test_lmdbs_with_different_keys(tmp_path, make_lmdb):
    image = np.zeros((4, 4, 3), np.uint8)
    make_lmdb(tmp_path / "lq.lmdb", {"1": image, "2": image})
    make_lmdb(tmp_path / "gt.lmdb", {"1": image})
    with pytest.raises(DataError, match=r"1 lq images without a partner \(lq\.lmdb/2\)"):
        _pairs(dataroot_lq="lq.lmdb", dataroot_gt="gt.lmdb")
