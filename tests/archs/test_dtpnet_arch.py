"""DTPNet against the authors' code, and the options that the paper compares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden import assert_matches, load_case
from safetensors.torch import save_file
from torch import nn

from basicsr.archs import build_network, from_released, strict_load
from basicsr.archs.dtpnet_arch import DetailDilation
from basicsr.archs.prenet_arch import PReNet
from basicsr.archs.vgg_features import VGG16Features
from basicsr.utils.errors import CheckpointError, OptionsError

TINY = {
    "type": "DTPNet",
    "dim": 8,
    "num_blocks": (1, 1, 1, 1),
    "num_refinement_blocks": 1,
    "recurrent_iter": 2,
    "recurrent_channels": 8,
}


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture
def rainy() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(1, 3, 16, 24)


@pytest.mark.parametrize("case", ["dtpnet_dim16_iter2", "dtpnet_dim64_iter3"])
@torch.no_grad()
def test_both_outputs_are_the_published_ones(case):
    golden = load_case(case)
    recurrent_iter = golden.facts["config"]["recurrent_iter"]
    net = from_released("DTPNet", golden.state_dict, recurrent_iter=recurrent_iter)
    coarse, restored = net(golden.input, all_stages=True)
    assert_matches(coarse, golden.outputs["coarse"])
    assert_matches(restored, golden.outputs["restored"])
    assert _count(net) == golden.facts["parameters"]


@torch.no_grad()
def test_without_passes_the_published_coarse_image_is_the_result():
    golden = load_case("dtpnet_dim16_iter2")
    net = from_released("DTPNet", golden.state_dict, recurrent_iter=0)
    assert_matches(net(golden.input), golden.outputs["coarse"])
    strict_load(
        build_network({"type": "DTPNet", **golden.facts["config"], "recurrent_iter": 0}),
        net.state_dict(),
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [("DTPNet", 45_246_322), ("DTPNet-S", 11_625_382), ("DTPNet-T", 2_348_975)],
)
def test_sizes(name, count):
    with torch.device("meta"):
        assert _count(build_network({"type": name})) == count


def test_a_size_refuses_published_weights_of_another():
    weights = load_case("dtpnet_dim16_iter2").state_dict
    with pytest.raises(
        CheckpointError, match=r"are a DTPNet, but not a DTPNet-S: .*of another shape"
    ):
        from_released("DTPNet-S", weights)


@torch.no_grad()
def test_detail_dilation_is_the_figure_with_two_embeddings(rainy):
    stem = DetailDilation(5)
    half = nn.functional.avg_pool2d(nn.functional.relu(stem.detail(rainy)), 2)
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    band = half - up(nn.functional.avg_pool2d(half, 2))
    torch.testing.assert_close(stem(rainy), stem.embed(rainy) - stem.embed(up(band)))
    assert _count(DetailDilation(64)) == 1809


@torch.no_grad()
def test_scale_keep_adds_upsampled_encoder_inputs_and_no_parameters(rainy):
    keeping, plain = build_network(TINY), build_network({**TINY, "scale_keep": False})
    strict_load(plain, keeping.state_dict())
    inputs, outputs = keeping.encoder(keeping.stem(rainy))

    def decoded(net: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
        return net.decoder([*inputs], [*outputs])

    finest = decoded(keeping, inputs)
    assert not torch.allclose(finest, decoded(plain, inputs))
    without_inputs = [torch.zeros_like(features) for features in inputs]
    torch.testing.assert_close(decoded(keeping, without_inputs), decoded(plain, inputs))
    # The finest addition comes last, after the blocks of its scale.
    without_finest = [torch.zeros_like(inputs[0]), *inputs[1:]]
    torch.testing.assert_close(
        finest, decoded(keeping, without_finest) + keeping.decoder.ups[0](inputs[0])
    )


@torch.no_grad()
def test_progressive_stage_is_prenet_started_from_the_coarse_image(rainy):
    net = build_network(TINY)
    assert isinstance(net.progressive, PReNet)
    coarse, restored = net(rainy, all_stages=True)
    torch.testing.assert_close(restored, net.progressive(rainy, start=coarse))


@torch.no_grad()
def test_any_number_of_passes_has_the_same_weights(rainy):
    two, five = build_network(TINY), build_network({**TINY, "recurrent_iter": 5})
    strict_load(five, two.state_dict())
    torch.testing.assert_close(five(rainy, all_stages=True)[0], two(rainy, all_stages=True)[0])
    assert not torch.allclose(five(rainy), two(rainy))


@torch.no_grad()
def test_without_passes_the_coarse_image_is_the_only_stage(rainy):
    net = build_network({**TINY, "recurrent_iter": 0})
    (coarse,) = net(rainy, all_stages=True)
    torch.testing.assert_close(net(rainy), coarse)


@torch.no_grad()
def test_with_image_residual_corrections_of_zero_leave_the_image_unchanged(rainy):
    net = build_network({**TINY, "image_residual": True})
    nn.init.zeros_(net.progressive.conv_out.weight)
    nn.init.zeros_(net.progressive.conv_out.bias)
    coarse, restored = net(rainy, all_stages=True)
    assert not torch.allclose(coarse, rainy)
    torch.testing.assert_close(restored, coarse)
    nn.init.zeros_(net.to_image.weight)
    torch.testing.assert_close(net(rainy), rainy)


def test_recurrent_unit_can_be_left_out(rainy):
    with_unit, without = build_network(TINY), build_network({**TINY, "recurrent": False})
    assert _count(with_unit) - _count(without) == 9 * 16 * 32 + 32  # four gates of 8 channels
    assert without(rainy).shape == rainy.shape


def test_conv_stem_replaces_detail_dilation(rainy):
    net = build_network({**TINY, "stem": "conv"})
    assert isinstance(net.stem, nn.Conv2d)
    assert _count(build_network(TINY)) - _count(net) == 81  # the detail image's convolution
    assert net(rainy).shape == rainy.shape


def test_conv_blocks_replace_every_transformer_block(rainy):
    net = build_network({**TINY, "blocks": "conv"})
    assert not any("attn" in name or "ffn" in name for name in net.state_dict())
    assert net(rainy).shape == rainy.shape


def test_attention_gated_feed_forward_adds_its_two_attentions(rainy):
    net = build_network({**TINY, "feed_forward": "attention_gated"})
    added = net.state_dict().keys() - build_network(TINY).state_dict().keys()
    assert added
    assert all("channel_attention" in key or "spatial_attention" in key for key in added)
    assert net(rainy).shape == rainy.shape


@pytest.mark.parametrize("checkpointing", ["selective", "blocks"])
def test_checkpointing_gives_the_same_gradients(checkpointing, rainy):
    plain = build_network(TINY)
    checkpointed = build_network({**TINY, "activation_checkpointing": checkpointing})
    strict_load(checkpointed, plain.state_dict())
    for net in (plain, checkpointed):
        net(rainy).square().sum().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@torch.no_grad()
def test_memory_format_does_not_change_the_result(rainy):
    net = build_network(TINY)
    expected = net(rainy)
    net.to(memory_format=torch.channels_last)
    given = rainy.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(given), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": (1, 3, 4, 8)}, "heads: 16 channels cannot be divided among 3 heads"),
        ({"heads": (1, 2)}, r"heads\[2\]: required, but missing"),
        ({"num_blocks": (1, 1, 1, 1, 1)}, "num_blocks: 4 numbers are needed, not 5"),
        ({"num_blocks": (1, 0, 1, 1)}, r"num_blocks\[1\]: at least 1 is needed, not 0"),
        ({"dim": 9}, "dim: 9 channels cannot be halved"),
        ({"stem": "vgg16"}, "stem: vgg16 needs dim: 64, not 8"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(OptionsError, match=message):
        build_network({**TINY, **options})


@pytest.mark.parametrize("key", ["patch_embed.transform2.weight", "conv0.0.weight", "outc.0.ffn"])
def test_a_missing_key_is_named(key):
    weights = load_case("dtpnet_dim16_iter2").state_dict
    weights = {name: value for name, value in weights.items() if not name.startswith(key)}
    with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
        from_released("DTPNet", weights)


def test_weights_of_other_systems_are_refused_by_name():
    for case, system in (("restormer_withbias", "Restormer"), ("prenet_PRN", "PRN")):
        with pytest.raises(CheckpointError, match=f"looks like a checkpoint of {system}$"):
            from_released("DTPNet", load_case(case).state_dict)
    with pytest.raises(CheckpointError, match=r"looks like a checkpoint of DTPNet$"):
        from_released("PReNet", load_case("dtpnet_dim16_iter2").state_dict)


@pytest.fixture
def vgg16_file(tmp_path: Path) -> Path:
    """Random weights in the layout of torchvision's VGG16, with one layer that is not used."""
    torch.manual_seed(0)
    convs = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128)}
    convs |= {10: (256, 128), 12: (256, 256), 14: (256, 256), 17: (512, 256)}
    weights = {f"features.{i}.weight": 0.05 * torch.randn(*c, 3, 3) for i, c in convs.items()}
    weights |= {f"features.{i}.bias": torch.zeros(c[0]) for i, c in convs.items()}
    file = tmp_path / "vgg16.safetensors"
    save_file(weights, file)
    return file


def test_vgg16_stem_is_torchvisions_frozen(vgg16_file, rainy):
    from safetensors.torch import load_file
    from torchvision.models import vgg16
    from torchvision.transforms.functional import normalize

    with torch.device("meta"):
        reference = vgg16(weights=None).features[:16]
    given = load_file(vgg16_file)
    own = {key.removeprefix("features."): value for key, value in given.items()}
    reference.load_state_dict({k: v for k, v in own.items() if "17" not in k}, assign=True)
    x = normalize(rainy, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    stem = VGG16Features(str(vgg16_file))
    for features, (start, stop) in zip(stem(rainy), ((0, 4), (4, 9), (9, 16)), strict=True):
        x = reference[start:stop](x)
        torch.testing.assert_close(features, x)
    assert not any(parameter.requires_grad for parameter in stem.parameters())


def test_vgg16_stem_leaves_the_rest_of_the_network_to_learn(vgg16_file, rainy):
    net = build_network({**TINY, "dim": 64, "stem": "vgg16", "vgg16_weights": str(vgg16_file)})
    coarse, restored = net(rainy, all_stages=True)
    assert coarse.shape == restored.shape == rainy.shape
    restored.square().sum().backward()
    assert all(
        (parameter.grad is None) == name.startswith("stem.")
        for name, parameter in net.named_parameters()
    )


def test_vgg16_weights_that_are_something_else(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"no VGG16 weights; 'features\.0\.weight' of shape"):
        VGG16Features(str(file))


def test_without_network_the_file_to_fetch_is_named(monkeypatch):
    from urllib.error import URLError

    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models.VGG16_Weights.get_state_dict", offline)
    with pytest.raises(
        OptionsError,
        match=r"could not be downloaded \(no route to host\); fetch https\S+ .*vgg16_weights",
    ):
        VGG16Features(None)
