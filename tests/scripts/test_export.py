"""Exported networks: ONNX and torch.export programs of every registered network."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch

from basicsr.archs import build_network
from basicsr.io.checkpoints import save_weights
from basicsr.utils.registry import ARCH_REGISTRY, options_of

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# Small sizes, for those networks that have an argument of the name
SMALL: dict[str, Any] = {
    "dim": 8,
    "num_blocks": (1, 1, 1, 1),
    "num_refinement_blocks": 1,
    "heads": (1, 1, 2, 2),
    "recurrent_iter": 2,
    "recurrent_channels": 8,
    "channels": 8,
    "n_feat": 8,
    "num_cab": 1,
    "localization_dim": 8,
    "width": 4,
    "middle_blk_num": 1,
    "enc_blk_nums": (1, 1, 1, 1),
    "dec_blk_nums": (1, 1, 1, 1),
}


def small(name: str) -> dict[str, Any]:
    """Return options of a small network of a registered type."""
    parameters = ARCH_REGISTRY.entry(name).parameters()
    options: dict[str, Any] = {"type": name}
    for key, value in SMALL.items():
        default = parameters[key].default if key in parameters else inspect.Parameter.empty
        if isinstance(value, tuple) and isinstance(default, tuple):
            options[key] = value[: len(default)]
        elif isinstance(default, int) and isinstance(value, int):
            options[key] = value
    return options


def images(channels: int, multiple: int) -> list[torch.Tensor]:
    """Return images of sizes that the script does not try itself."""
    generator = torch.Generator().manual_seed(1)
    sides = [(-(-high // multiple), -(-wide // multiple)) for high, wide in ((40, 31), (17, 75))]
    return [
        torch.rand(1, channels, high * multiple, wide * multiple, generator=generator)
        for high, wide in sides
    ]


# Tracing U-shaped networks with sides of any length takes PyTorch up to a minute.
FAST = {"Restormer", *(name for name in ARCH_REGISTRY.names() if name.startswith(("PR", "PReNet")))}
NETWORKS = [
    pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow])
    for name in ARCH_REGISTRY.names()
    if name != "DTPNet-S"
]


def test_dtpnet_s_is_dtpnet_in_another_size():
    """So that the export of one stands for both."""
    own, other = (options_of(build_network(small(name))) for name in ("DTPNet-S", "DTPNet"))
    assert {**own, "type": "DTPNet"} == other


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_in_onnx_runtime(name, load_script, tmp_path):
    script = load_script("export")
    torch.manual_seed(0)
    network = build_network(small(name)).eval()
    file = tmp_path / "network.onnx"
    facts = script.facts_of(network)
    assert script.export(network, file, "fp32", facts) <= 1e-4

    model = onnx.load(file)
    assert {node.domain for node in model.graph.node} == {""}  # no operators of this project
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata["network"] == type(network).__name__
    multiple = int(metadata["size_multiple"])
    assert multiple == network.size_multiple
    session = onnxruntime.InferenceSession(file)
    for image in images(int(metadata["in_channels"]), multiple):
        (restored,) = session.run(["restored"], {"lq": image.numpy()})
        with torch.no_grad():
            expected = network(image).numpy()
        np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-4)
    rebuilt = build_network(json.loads(metadata["options"]))
    assert rebuilt.state_dict().keys() == network.state_dict().keys()


def test_the_command(run_script, load_script, tmp_path):
    options = {"type": "PRN_r", "recurrent_iter": 1, "channels": 8}
    network = build_network(options)
    weights = tmp_path / "w.safetensors"
    save_weights(weights, network.state_dict(), options)
    for file, precision in (("a.onnx", "fp16"), ("b.pt2", "fp32")):
        code, printed, error = run_script(
            "export", weights, "-o", tmp_path / file, "--precision", precision
        )
        assert code == 0, error
        assert f"PRN_r in {precision}, for any height and width; differs" in printed

    model = onnx.load(tmp_path / "a.onnx")
    types = {each.data_type for each in model.graph.initializer if len(each.dims) == 4}
    assert types == {onnx.TensorProto.FLOAT16}
    image = torch.rand(1, 3, 9, 13)
    (half,) = onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, {"lq": image.numpy()})
    extra = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "b.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"])["size_multiple"] == 1
    with torch.no_grad():
        expected = network.eval()(image)
        torch.testing.assert_close(program.module()(image), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(half, expected.numpy(), rtol=0, atol=2e-2)
    assert half.dtype == np.float32


def test_nothing_is_written_if_the_outputs_differ(load_script, monkeypatch, tmp_path):
    script = load_script("export")
    network = build_network({"type": "PRN_r", "recurrent_iter": 1, "channels": 8})
    write = script.to_program_file

    def wrong(program, facts):
        content, run = write(program, facts)
        return content, lambda image: run(image) + 0.001

    monkeypatch.setitem(script.FORMATS, ".pt2", wrong)
    with pytest.raises(script.OptionsError, match="not written: the outputs differ"):
        script.export(network, tmp_path / "a.pt2", "fp32", {})
    assert not (tmp_path / "a.pt2").exists()


def test_other_suffixes_are_refused(run_script, tmp_path):
    code, _, error = run_script("export", "DTPNet-T_any-rain", "-o", tmp_path / "net.pb")
    assert code == 2
    assert "must end in .onnx or .pt2" in error
