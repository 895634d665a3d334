"""Conversion of published checkpoints, and published scores."""

from __future__ import annotations

import hashlib

import pytest
import torch
from golden import assert_matches, load_case

from basicsr.archs import didmdn_arch
from basicsr.evaluation.published import PublishedScore, convert
from basicsr.models.pretrained import network_with_weights, saved_network
from basicsr.utils.errors import CheckpointError, OptionsError


@pytest.mark.parametrize(
    ("type", "case", "hints", "output"),
    [
        ("PReNet_LSTM", "prenet_PReNet_LSTM", {}, "restored"),
        ("PReNet", "prenet_PReNet", {"recurrent_iter": 4}, "stage4"),
        ("PReNet_GRU", "prenet_PReNet_GRU", {}, "restored"),
        ("PReNet_x", "prenet_PReNet_x", {}, "restored"),
        ("PReNet_r", "prenet_PReNet_r", {}, "restored"),
        ("PRN", "prenet_PRN", {}, "restored"),
        ("PRN_r", "prenet_PRN_r", {}, "restored"),
        ("DTPNet", "dtpnet_dim16_iter2", {"recurrent_iter": 2}, "restored"),
        ("DTPNet", "dtpnet_dim16_iter2", {"recurrent_iter": 0}, "coarse"),
        ("Restormer", "restormer_withbias", {}, "restored"),
        ("Restormer", "restormer_biasfree_gray", {}, "restored"),
        ("Restormer", "restormer_dual_pixel", {}, "restored"),
        ("MPRNet", "mprnet_deraining", {}, "stage3"),
    ],
)
@torch.no_grad()
def test_a_converted_file_is_the_published_network(tmp_path, type, case, hints, output):
    golden = load_case(case)
    original, out = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save({"params": golden.state_dict}, original)
    convert(type, original, out, hints, {}, train_set="Rain", source="https://example.org")
    network, weights = saved_network(out)
    assert_matches(network.eval()(golden.input), golden.outputs[output])
    assert weights.network is not None
    assert weights.network["type"] == type
    sha256 = hashlib.sha256(original.read_bytes()).hexdigest()
    assert weights.facts == {
        "originals": [{"file": "net.pth", "sha256": sha256}],
        "train_set": "Rain",
        "source": "https://example.org",
    }
    again = network_with_weights(weights.network, out)  # as from an option file
    assert_matches(again.eval()(golden.input), golden.outputs[output])


def test_did_mdn_is_made_of_three_files(tmp_path, monkeypatch):
    monkeypatch.setattr(didmdn_arch, "CLASSIFIER_SIZE", 32)  # the real one is 262 MB
    torch.manual_seed(0)
    classifier = didmdn_arch.DensityClassifier("image").state_dict()
    derainer, residual = (load_case(f"didmdn_{n}").state_dict for n in ("train", "residual_eval"))
    files = {}
    for name, weights in (("", derainer), ("residual", residual), ("classifier", classifier)):
        files[name] = tmp_path / name / "netG_epoch_9.pth"
        files[name].parent.mkdir(exist_ok=True)
        torch.save(weights, files[name])
    original, out = files.pop(""), tmp_path / "didmdn.safetensors"
    convert("DIDMDN", original, out, {}, files)
    network, weights = saved_network(out)
    assert torch.equal(network.derainer.refine3.weight, derainer["refine3.weight"])
    assert torch.equal(network.residual_net.refine3.weight, residual["refine3.weight"])
    assert torch.equal(network.classifier.conv16.weight, classifier["conv16.weight"])
    assert weights.network == {"type": "DIDMDN", "batch_norm": "image"}
    assert len({each["sha256"] for each in weights.facts["originals"]}) == 3
    with pytest.raises(CheckpointError, match=r"DID-MDN residual net.*of DID-MDN's de-rainer"):
        convert("DIDMDN", original, out, {}, {**files, "residual": original})
    with pytest.raises(CheckpointError, match="three files"):
        convert("DIDMDN", original, out, {}, {})


def test_a_converted_file_is_not_converted_again(tmp_path):
    original, out = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(load_case("prenet_PRN_r").state_dict, original)
    convert("PRN_r", original, out, {}, {})
    with pytest.raises(CheckpointError, match=r"net\.safetensors: was converted already"):
        convert("PRN_r", out, tmp_path / "again.safetensors", {}, {})


def test_scores_are_read_as_they_are_printed():
    score = PublishedScore.parse("Rain100L:37.50:0.979:matlab_y_double:truncate")
    assert score == ("Rain100L", {"psnr": "37.50", "ssim": "0.979"}, "matlab_y_double", "truncate")
    assert PublishedScore.parse("Test100:32.0:.923:matlab_y").quantize == "round"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Real:niqe=3.61:niqe", ("Real", {"niqe": "3.61"}, "niqe", "round")),
        ("A:ssim=0.9:rgb:truncate", ("A", {"ssim": "0.9"}, "rgb", "truncate")),
        (
            "A:ssim=0.9:psnr=30:rgb:round",
            ("A", {"ssim": "0.9", "psnr": "30"}, "rgb", "round"),
        ),
    ],
)
def test_scores_of_named_metrics(text, score):
    parsed = PublishedScore.parse(text)
    assert parsed == score
    assert PublishedScore.from_facts(parsed.facts()) == parsed


def test_the_tolerance_of_other_metrics_follows_their_decimals():
    score = PublishedScore.parse("Real:niqe=3.61:niqe")
    assert score.tolerances() == pytest.approx({"niqe": 0.006})
    assert score.agrees_with({"niqe": 3.6155})
    assert not score.agrees_with({"niqe": 3.6165})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A:nique=3:niqe", r"protocol 'niqe' has no metric 'nique' \(did you mean 'niqe'\?\)"),
        ("A:niqe=x:niqe", "the NIQE 'x' is not a number"),
        ("A:3.1:4:niqe", "protocol 'niqe' has 1 metric; use METRIC=VALUE"),
        ("Rain100L:37.48:0.979", r"expected DATASET:PSNR:SSIM:PROTOCOL\[:truncate\]"),
        ("Rain100L:37,48:0.979:matlab_y", "the PSNR '37,48' is not a number"),
        ("Rain100L:37.48:nan:matlab_y", "the SSIM 'nan' is not a number"),
        ("Rain100L:37.48:0.979:matlab", r"no protocol is called 'matlab' \(did you mean"),
        ("Rain100L:37.48:0.979:rgb:floor", "no quantization is called 'floor'"),
    ],
)
def test_malformed_scores(text, message):
    with pytest.raises(OptionsError, match=message):
        PublishedScore.parse(text)


def test_tolerance_is_half_a_printed_digit_and_a_little():
    two_digits = PublishedScore("Rain100L", {"psnr": "37.48", "ssim": "0.979"}, "matlab_y")
    assert two_digits.tolerances() == pytest.approx({"psnr": 0.015, "ssim": 0.0006})
    one_digit = PublishedScore("Any", {"psnr": "37.5", "ssim": "0.9792"}, "rgb")
    assert one_digit.tolerances() == pytest.approx({"psnr": 0.06, "ssim": 0.00015})
    assert two_digits.agrees_with({"psnr": 37.4940, "ssim": 0.9785})
    assert two_digits.agrees_with({"psnr": 37.4660, "ssim": 0.9795})
    assert not two_digits.agrees_with({"psnr": 37.4960, "ssim": 0.979})
    assert not two_digits.agrees_with({"psnr": 37.48, "ssim": 0.9783})
    assert not two_digits.agrees_with({"psnr": float("inf"), "ssim": 1.0})
