"""Restoring by `python -m basicsr.restore`, and by `restore` from Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from PIL import Image

from basicsr.archs import build_network, strip_storage
from basicsr.inference.jobs import RECORDS
from basicsr.inference.restorer import Restorer
from basicsr.io.checkpoints import save_weights
from basicsr.io.images import read_image, to_levels, write_png
from basicsr.models import pretrained
from basicsr.restore import DEFAULT_WEIGHTS, main, restore
from basicsr.utils.errors import CheckpointError, DataError, OptionsError

ROOT = Path(__file__).resolve().parent.parent
NETWORK = {"type": "PReNet", "recurrent_iter": 2, "channels": 8}
IMAGE = np.random.default_rng(0).integers(0, 256, (21, 30, 3), dtype=np.uint8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network(NETWORK)


@pytest.fixture
def weights(tmp_path, network):
    """File of the default weights in a folder for shipped weights."""
    folder = tmp_path / "pretrained_models"
    folder.mkdir()
    file = folder / f"{DEFAULT_WEIGHTS}.safetensors"
    save_weights(file, network.state_dict(), NETWORK)
    return file


@pytest.fixture
def shipped(weights, monkeypatch):
    monkeypatch.setattr(pretrained, "_FOLDERS", (weights.parent,))
    return weights


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "basicsr.restore", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_folder_from_the_command_line(tmp_path, weights, network, monkeypatch, capsys):
    write_png(tmp_path / "in" / "a" / "b.png", IMAGE)
    (tmp_path / "in" / "bad.jpg").write_text("no photograph")
    command = ("in", "-o", "out", "--weights", weights, "--device", "cpu", "--compare")
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"restoring 2 files with {weights.name} on cpu",
        "1 restored to out",
    ]
    first, reason = done.stderr.splitlines()
    assert first == "1 could not be restored:"
    assert reason.startswith("in/bad.jpg: not a readable image")
    expected = to_levels(Restorer(network, torch.device("cpu"))(IMAGE), np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "a" / "b.png"), expected)
    assert (tmp_path / "out" / "a" / "b.png.compare.jpg").exists()

    (tmp_path / "in" / "bad.jpg").unlink()
    monkeypatch.chdir(tmp_path)
    main(list(map(str, command)))
    assert capsys.readouterr().out.splitlines()[-1] == "0 restored to out, 1 before"


def test_the_record_has_the_precision_that_was_computed(tmp_path, shipped, set_units, capsys):
    set_units("fp32")
    write_png(tmp_path / "a.png", IMAGE)
    for precision, restored in (("bf16", "1 restored to"), ("fp32", "0 restored to")):
        paths = (tmp_path / "a.png", "-o", tmp_path / "out")
        main([*map(str, paths), "--device", "cpu", "--precision", precision])
        assert capsys.readouterr().out.splitlines()[-1].startswith(restored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jpg", "-o", "out"], "error: none.jpg: no such file or folder"),
        (["a.png", "-o", "b.png"], "error: -o b.png: must be a folder"),
        (
            ["a.png", "-o", "notes"],
            "error: -o notes: must be a folder; outputs keep the names of their inputs",
        ),
        (["a.png", "-o", "."], "error: a.png: would be overwritten"),
        (["a.png", "-o", "out", "--weights", "DTPNet-T"], "did you mean 'DTPNet-T_any-rain'?"),
        (["a.png", "-o", "a.png/out"], "error: a.png/out: Not a directory"),
        (["a.png", "-o", "out", "--task", "motion"], "download motion_deblurring.pth of"),
        (["a.png", "-o", "out", "--task", "defocus"], "download single_image_defocus_deblurring"),
        (["a.png", "-o", "out", "--task", "denoise", "--sigma", "25"], "--sigma: no network here"),
        (["a.png", "-o", "out", "--task", "denoise"], "--task denoise: no weights are shipped; d"),
    ],
)
def test_mistakes_are_one_line_errors(tmp_path, shipped, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_png(Path("a.png"), IMAGE)
    Path("notes").touch()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("value", ["-1", "0", "much", "nan", "inf", "1e308"])
def test_memory_is_a_positive_number(value, capsys):
    with pytest.raises(SystemExit):
        main(["a.png", "-o", "out", "--memory", value])
    assert f"'{value}' is not a positive number of GiB" in capsys.readouterr().err


def test_a_memory_budget_does_not_change_the_result(shipped, device):
    large = np.kron(IMAGE, np.ones((12, 12, 1), np.uint8))
    whole = restore(large, device=device.type)
    in_strips = restore(large, device=device.type, memory=4)
    assert np.abs(in_strips.astype(int) - whole).max() <= 1


def test_too_small_a_memory_budget_is_a_one_line_error(tmp_path, shipped, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_png(Path("a.png"), IMAGE)
    with pytest.raises(SystemExit) as stopped:
        main(["a.png", "-o", "out", "--memory", "0.01", "--device", "cpu"])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "a.png: memory: at least" in error
    assert "allow more" in error


def test_the_python_function_equals_the_command(tmp_path, shipped, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_png(Path("in.png"), IMAGE)
    main(["in.png", "-o", "out"])
    assert f"restoring 1 file with {shipped.name} on " in capsys.readouterr().out
    restored = restore(IMAGE)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, read_image("out/in.png"))
    np.testing.assert_array_equal(restore(Image.open("in.png")), restored)
    shipped.unlink()  # the network is cached, so the name alone is unknown
    with pytest.raises(CheckpointError, match="shipped are none"):
        restore(IMAGE)


def test_the_weights_of_a_task_and_its_gray_ones(tmp_path, network, shipped, monkeypatch, capsys):
    gray = {**NETWORK, "in_channels": 1, "out_channels": 1}
    for name, options, net in (
        ("DTPNet-T_color_blind", NETWORK, network),
        ("DTPNet-T_gray_blind", gray, build_network(gray)),
    ):
        save_weights(shipped.parent / f"{name}.safetensors", net.state_dict(), options)
    monkeypatch.chdir(tmp_path)
    write_png(Path("in/colour.png"), IMAGE)
    write_png(Path("in/gray.png"), IMAGE[..., 0])
    main(["in", "-o", "out", "--task", "denoise", "--device", "cpu"])
    names = "DTPNet-T_color_blind.safetensors and DTPNet-T_gray_blind.safetensors"
    assert f"restoring 2 files with {names} on cpu" in capsys.readouterr().out
    with Image.open("out/gray.png") as restored:
        assert restored.mode == "L"
    main(["in", "-o", "out", "--task", "denoise", "--device", "cpu"])
    assert "0 restored to out, 2 before" in capsys.readouterr().out


def test_what_was_left_out_is_said(tmp_path, shipped, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_png(Path("in/a.png"), IMAGE)
    Path("in/a.cr2").touch()
    Path("in/line\nbreak.png").touch()
    with pytest.raises(SystemExit) as stopped:
        main(["in", "-o", "out", "--device", "cpu"])
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert "known format: 1 .cr2 (in/a.cr2)" in printed.out
    assert printed.err == (
        "1 could not be restored:\nin/line\\nbreak.png: not a readable image (the file is empty)\n"
    )


def test_large_images_are_refused_unless_they_are_allowed(tmp_path, shipped, monkeypatch, capsys):
    monkeypatch.setenv("DERAIN_MAX_MEGAPIXELS", "0.0006")
    monkeypatch.chdir(tmp_path)
    write_png(Path("in/a.png"), IMAGE)
    with pytest.raises(SystemExit):
        main(["in", "-o", "out", "--device", "cpu"])
    assert "30 x 21 pixels; the limit is 0.0006 megapixels" in capsys.readouterr().err
    main(["in", "-o", "out", "--device", "cpu", "--max-megapixels", "0.001"])
    assert "1 restored to out" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "-3", "many", "nan", "inf"])
def test_megapixels_are_a_positive_number(value, capsys):
    with pytest.raises(SystemExit):
        main(["a.png", "-o", "out", "--max-megapixels", value])
    assert f"'{value}' is not a positive number of megapixels" in capsys.readouterr().err


def test_16_bits_from_python(shipped, device):
    fine = IMAGE.astype(np.uint16) * 257
    restored = restore(fine, device=device.type)
    assert restored.dtype == np.uint16
    coarse = restore(IMAGE, device=device.type)
    assert np.abs(restored / 257 - coarse).max() <= 0.5 + 1e-3
    assert np.any(restored % 257)


def test_gray_images_from_python(shipped):
    gray = IMAGE[..., :1]
    restored = restore(gray, device="cpu")
    assert (restored.shape, restored.dtype) == (gray.shape, np.uint8)
    as_rgb = restore(gray.repeat(3, axis=2), device="cpu")
    assert np.abs(restored - as_rgb.mean(axis=2, keepdims=True)).max() <= 1


def test_networks_for_two_views_are_a_one_line_error(tmp_path, monkeypatch, capsys):
    options = {"type": "PReNet", "recurrent_iter": 1, "channels": 8, "in_channels": 6}
    save_weights(tmp_path / "views.safetensors", build_network(options).state_dict(), options)
    monkeypatch.chdir(tmp_path)
    write_png(Path("a.png"), IMAGE)
    with pytest.raises(SystemExit) as stopped:
        main(["a.png", "-o", "out", "--weights", "views.safetensors", "--device", "cpu"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "error: views.safetensors: PReNet maps 6 channels (a left and a right view) to 3, but a "
        "photograph has 1 or 3; restore a data set of such images with basicsr/test.py\n"
    )
    assert not Path("out").exists()


def test_other_arrays_are_rejected(shipped):
    with pytest.raises(DataError, match="not 21 x 30 of uint8"):
        restore(IMAGE[..., 0])
    with pytest.raises(DataError, match="of float64"):
        restore(IMAGE / 255)
    with pytest.raises(DataError, match="not 0 x 30 x 3 of uint8"):
        restore(IMAGE[:0])


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"device": "cuda:1"}, {"precision": "fp8"}])
def test_other_arguments_are_rejected(shipped, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(OptionsError, match=f"^{name}: '{value}' is none of"):
        restore(IMAGE, **wrong)


@pytest.mark.parametrize("memory", ["much", 0, -1, float("nan"), float("inf")])
def test_memory_is_a_positive_number_in_python_too(shipped, memory):
    with pytest.raises(OptionsError, match=f"^memory: '{memory}' is not a positive number of GiB"):
        restore(IMAGE, memory=memory)


def test_photographs_that_fit_in_memory_use_no_temporary_files(shipped, monkeypatch):
    monkeypatch.setattr(strip_storage, "_temporary_file", None)
    restore(np.zeros((512, 512, 3), np.uint8), device="cpu")


def test_the_network_is_loaded_once(shipped, monkeypatch):
    loaded = []
    saved_network = pretrained.saved_network
    monkeypatch.setattr(
        pretrained,
        "saved_network",
        lambda file, type: loaded.append(file) or saved_network(file, type),
    )
    for _ in range(3):
        restore(IMAGE, weights=shipped)
    assert loaded == [shipped]


def test_processes_of_torchrun_share_the_files(tmp_path, weights):
    for i in range(5):
        write_png(tmp_path / "in" / f"{i}.png", np.roll(IMAGE, i, axis=0))
    (tmp_path / "in" / "bad.jpg").write_text("no photograph")
    arguments = ["in", "--weights", str(weights), "--device", "cpu", "--compare"]
    one = run(*arguments, "-o", "one", cwd=tmp_path)
    two = runs.run("restore.py", *arguments, "-o", "two", cwd=tmp_path, ranks=2)
    assert two.stdout.splitlines() == [
        f"restoring 6 files with {weights.name} on cpu, 2 processes",
        "5 restored to two",
    ]
    report = one.stderr.splitlines()
    assert report[0] == "1 could not be restored:"
    assert [line for line in two.stderr.splitlines() if line in report] == report
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in set(names) - {RECORDS}:
        content = (tmp_path / "one" / name).read_bytes()
        assert (tmp_path / "two" / name).read_bytes() == content
    again = run(*arguments, "-o", "two", cwd=tmp_path)
    assert again.stdout.splitlines()[-1] == "0 restored to two, 5 before"
