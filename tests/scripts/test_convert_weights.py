"""Commands convert_weights.py and verify_weights.py."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from basicsr.archs import RestorationNetwork, build_network, from_released
from basicsr.io.checkpoints import load_weights, save_weights
from basicsr.io.images import to_levels
from basicsr.metrics import measure
from basicsr.models.pretrained import saved_network

CHANNELS = 32  # as published; PRN_r has no others
FACTS = ("--train-set", "RainTrainL", "--source", "https://github.com/csdwren/PReNet")


@pytest.fixture
def original(tmp_path) -> Path:
    """Write PRN_r in its authors' layout, with weights so small that images hardly change."""
    torch.manual_seed(0)
    shapes = {
        "conv0.0": (CHANNELS, 6, 3, 3),
        "res_conv1.0": (CHANNELS, CHANNELS, 3, 3),
        "res_conv1.2": (CHANNELS, CHANNELS, 3, 3),
        "conv.0": (3, CHANNELS, 3, 3),
    }
    weights = {}
    for key, shape in shapes.items():
        weights[f"{key}.weight"] = 0.01 * torch.randn(shape)
        weights[f"{key}.bias"] = torch.full(shape[:1], 0.004)
    torch.save(weights, tmp_path / "net_latest.pth")
    return tmp_path / "net_latest.pth"


@pytest.fixture
def dataroot(tmp_path) -> Path:
    """Write two pairs in the layout of Rain100L."""
    rng = np.random.default_rng(0)
    for number in ("001", "002"):
        gt = rng.integers(20, 200, (16, 20, 3), dtype=np.uint8)
        rainy = np.clip(gt + rng.normal(0, 6, gt.shape), 0, 255).astype(np.uint8)
        for folder, name, image in (("norain", "norain", gt), ("rainy", "rain", rainy)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "data" / folder / f"{name}-{number}.png")
    return tmp_path / "data"


def true_score(dataroot: Path, weights: Path, mode: str) -> tuple[str, str]:
    """Return PSNR with two digits and SSIM with three, without the code under test."""
    network, _ = saved_network(weights)
    scores = []
    for rainy in sorted((dataroot / "rainy").iterdir()):
        gt = dataroot / "norain" / rainy.name.replace("rain", "norain")
        x, target = (np.asarray(Image.open(file)) for file in (rainy, gt))
        with torch.no_grad():
            batch = torch.from_numpy(x.copy()).permute(2, 0, 1)[None] / 255
            restored = network.eval()(batch)[0].clamp(0, 1).permute(1, 2, 0).numpy()
        levels = to_levels(restored, np.uint8, mode)
        scores.append(list(measure(levels, target, "matlab_y_double").values()))
    psnr, ssim = np.mean(scores, axis=0)
    return f"{psnr:.2f}", f"{ssim:.3f}"


def test_the_converted_file_describes_itself(original, tmp_path, run_script):
    out = tmp_path / "prn_r.safetensors"
    score = "Rain100L:36.11:0.973:matlab_y_double:truncate"
    code, printed, complaint = run_script(
        "convert_weights", original, "--type", "PRN_r", "--hint", "recurrent_iter=4",
        *FACTS, "--score", score, "-o", out,
    )  # fmt: skip
    assert (code, complaint) == (0, "")
    assert printed == f"{out}: PRN_r with 21,123 parameters\n"
    weights = load_weights(out)
    assert weights.network == {
        "type": "PRN_r",
        "in_channels": 3,
        "out_channels": 3,
        "recurrent_iter": 4,
        "channels": CHANNELS,
        "recurrent_unit": "none",
        "shared_block": True,
        "image_input": True,
        "image_residual": "rainy",
    }
    assert weights.facts["train_set"] == "RainTrainL"
    assert weights.facts["source"] == "https://github.com/csdwren/PReNet"
    assert weights.facts["scores"] == [
        {
            "dataset": "Rain100L",
            "psnr": "36.11",
            "ssim": "0.973",
            "protocol": "matlab_y_double",
            "quantize": "truncate",
        }
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--type", "PReNet"], "it looks like a checkpoint of PRN_r"),
        (["--type", "SPAIR"], "SPAIR: there are no published weights to read"),
        (["--hint", "recurrent=4"], "--hint recurrent=4: expected NAME=VALUE; PRN_r takes"),
        (["--hint", "recurrent_iter=four"], "--hint recurrent_iter: Input should be a valid int"),
        (["--hint", "recurrent_unit=gated"], "--hint recurrent_unit: Input should be 'lstm',"),
        (["--score", "Rain100L:36.11:0.973:matlab"], "no protocol is called 'matlab'"),
        (["--score", "A:1:1:rgb", "--score", "A:2:1:rgb"], "--score: there are two of A"),
        (["--residual", "x.pth"], "PRN_r is one file: leave out --residual"),
        (["-o", "net.pth"], "-o net.pth: the file's name must end in .safetensors"),
        (["-o", "nowhere/net.safetensors"], "No such file or directory"),
    ],
)
def test_faults_are_one_line(original, tmp_path, run_script, change, message):
    out = tmp_path / "net.safetensors"
    code, printed, complaint = run_script(
        "convert_weights", original, "--type", "PRN_r", *FACTS, "-o", out, *change
    )
    assert (code, printed) == (2, "")
    assert complaint.startswith("error: ")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("mode", ["round", "truncate"])
def test_verification_uses_the_protocol_of_the_score(
    original, dataroot, tmp_path, run_script, mode
):
    out = tmp_path / "prn_r.safetensors"
    convert = ("convert_weights", original, "--type", "PRN_r", *FACTS, "-o", out)
    assert run_script(*convert)[0] == 0
    psnr, ssim = true_score(dataroot, out, mode)
    how = f"{ssim}:matlab_y_double:{mode}"
    assert run_script(*convert, "--score", f"Rain100L:{psnr}:{how}")[0] == 0
    verify = ("verify_weights", out, "--dataroot", dataroot, "--device", "cpu")
    code, printed, _ = run_script(*verify)
    assert code == 0, printed
    assert f"Rain100L, 2 images, matlab_y_double, quantize: {mode}" in printed
    assert f"PSNR  published {psnr}  measured" in printed
    assert "tolerance 0.015" in printed
    assert printed.endswith("the published score is confirmed\n")

    other = f"{float(psnr) + 0.02:.2f}"
    assert run_script(*convert, "--score", f"Rain100L:{other}:{how}")[0] == 0
    code, printed, _ = run_script(*verify)
    assert code == 1
    assert printed.endswith("the measured score is not the published one\n")


def test_choice_of_score_and_layout(original, dataroot, tmp_path, run_script):
    out = tmp_path / "prn_r.safetensors"
    convert = ("convert_weights", original, "--type", "PRN_r", *FACTS, "-o", out)
    verify = ("verify_weights", out, "--dataroot", dataroot, "--device", "cpu")
    run_script(*convert)
    code, _, complaint = run_script(*verify)
    assert (code, "its metadata has no published score" in complaint) == (2, True)

    run_script(*convert, "--score", "Rain100L:9:0.1:rgb", "--score", "Mine:10:0.2:matlab_y")
    code, _, complaint = run_script(*verify)
    assert (code, "which data set? Add --dataset; it has scores of Rain" in complaint) == (2, True)
    code, _, complaint = run_script(*verify, "--dataset", "Rain12")
    assert (code, "there is no score of Rain12" in complaint) == (2, True)
    code, _, complaint = run_script(*verify, "--dataset", "Mine")
    assert (code, "'Mine' names no layout; give --layout" in complaint) == (2, True)
    code, printed, _ = run_script(*verify, "--dataset", "Mine", "--layout", "Rain100L")
    assert (code, "Mine, 2 images, matlab_y, quantize: round" in printed) == (1, True)

    save_weights(out, {}, {"type": "PRN_r"})
    code, _, complaint = run_script(*verify)
    assert (code, "the weights do not fit" in complaint) == (2, True)


def test_commands_of_the_readme_fit_the_tools(run_script, tmp_path, monkeypatch):
    """The commands run up to the point where their input files are missing."""
    readme = (Path(__file__).parents[2] / "pretrained_models" / "README.md").read_text()
    blocks = "\n".join(readme.replace("```bash", "```").split("```")[1::2]).replace("\\\n", " ")
    tools = ("python scripts/convert_weights.py ", "python scripts/verify_weights.py ")
    commands = [shlex.split(line) for line in blocks.splitlines() if line.startswith(tools)]
    assert len(commands) == 9
    monkeypatch.chdir(tmp_path)
    for python, script, *arguments in commands:
        assert python == "python"
        code, _, complaint = run_script(Path(script).stem, *arguments)
        assert code == 2
        assert complaint.startswith("error: ")
        assert arguments[0] in complaint
        assert "no such file" in complaint


def small_weights(folder: Path, options: dict[str, Any]) -> tuple[Path, RestorationNetwork]:
    torch.manual_seed(0)
    network = build_network(options).eval()
    save_weights(folder / "own.safetensors", network.state_dict(), options)
    return folder / "own.safetensors", network


@pytest.mark.parametrize(
    "options",
    [
        {"type": "Restormer", "dim": 8, "num_blocks": (1, 1, 1, 1), "heads": (1, 1, 2, 2)},
        {"type": "MPRNet", "n_feat": 16, "scale_unetfeats": 8, "scale_orsnetfeats": 8},
    ],
    ids=lambda options: options["type"],
)
def test_another_program_reads_the_published_layout(options, run_script, tmp_path):
    spandrel = pytest.importorskip("spandrel")
    extra = pytest.importorskip("spandrel_extra_arches")
    own, network = small_weights(tmp_path, options)
    code, printed, error = run_script(
        "convert_weights", own, "--to", "published", "-o", tmp_path / "theirs.pth"
    )
    assert code == 0, error
    assert printed == f"{tmp_path}/theirs.pth: {options['type']} in its authors' layout\n"
    extra.install(ignore_duplicates=True)
    loaded = spandrel.ModelLoader(device="cpu").load_from_file(tmp_path / "theirs.pth")
    assert loaded.architecture.id == options["type"]
    image = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        expected = network(image).clamp(0, 1)
        torch.testing.assert_close(loaded(image).clamp(0, 1), expected, rtol=0, atol=1e-5)


def test_published_files_have_the_wrapper_of_their_authors(run_script, tmp_path):
    for options, wrapper in (
        ({"type": "Restormer", "dim": 4, "num_blocks": (1, 1, 1, 1), "heads": (1,) * 4}, "params"),
        ({"type": "MPRNet", "n_feat": 8, "num_cab": 1}, "state_dict"),
        ({"type": "PRN_r", "recurrent_iter": 1, "channels": 4}, None),
    ):
        own, network = small_weights(tmp_path, options)
        file = tmp_path / "theirs.pth"
        code, printed, error = run_script("convert_weights", own, "--to", "published", "-o", file)
        assert code == 0, error
        assert printed == f"{file}: {options['type']} in its authors' layout\n"
        content = torch.load(file, weights_only=True)
        state_dict = content[wrapper] if wrapper else content
        assert state_dict.keys() == network.published_state_dict().keys()


def test_did_mdn_is_written_to_three_files(run_script, tmp_path):
    own, network = small_weights(tmp_path, {"type": "DIDMDN"})
    files = {name: tmp_path / f"{name}.pth" for name in ("derainer", "residual", "classifier")}
    arguments = ["convert_weights", own, "--to", "published", "-o", files["derainer"]]
    code, _, error = run_script(*arguments)
    assert code == 2
    assert error == "error: DIDMDN is published as -o FILE --classifier FILE --residual FILE\n"
    arguments += ["--residual", files["residual"], "--classifier", files["classifier"]]
    code, _, error = run_script(*arguments)
    assert code == 0, error
    parts = {name: load_weights(file).state_dict for name, file in files.items()}
    again = from_released("DIDMDN", parts.pop("derainer"), **parts)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_variants_that_the_published_layout_cannot_hold_are_refused(run_script, tmp_path):
    dtpnet = {"type": "DTPNet", "dim": 8, "num_blocks": (1, 1, 1, 1), "heads": (1, 1, 2, 2)}
    for options, message in (
        ({"type": "SPAIR", "dim": 8, "localization_dim": 8}, "no published weights"),
        ({**dtpnet, "image_residual": True}, "the published layout cannot hold this variant"),
        ({**dtpnet, "feed_forward": "attention_gated"}, "surplus"),
    ):
        own, _ = small_weights(tmp_path, options)
        file = tmp_path / "theirs.pth"
        code, _, error = run_script("convert_weights", own, "--to", "published", "-o", file)
        assert code == 2
        assert message in error
        assert not file.exists()


def test_what_describes_a_file_is_needed(original, run_script, tmp_path):
    code, _, error = run_script("convert_weights", original, "-o", tmp_path / "a.safetensors")
    assert (code, error) == (2, "error: --type: needed to describe a .safetensors file\n")
