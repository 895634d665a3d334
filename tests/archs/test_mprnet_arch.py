import pytest
import torch
from golden import assert_matches, load_case

from basicsr.archs import build_network, from_released
from basicsr.archs.mprnet_arch import MPRNet, from_halves, to_halves
from basicsr.utils.errors import CheckpointError, OptionsError

SMALL = {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 1}


@pytest.fixture(scope="module")
def case():
    return load_case("mprnet_deraining")


@pytest.fixture
def small() -> MPRNet:
    torch.manual_seed(0)
    return MPRNet(**SMALL)


def test_published_weights_give_the_published_outputs(case):
    net = from_released("MPRNet", case.state_dict)
    assert sum(p.numel() for p in net.parameters()) == case.facts["parameters"] == 3_637_249
    with torch.no_grad():
        stages = net(case.input, all_stages=True)
        restored = net(case.input)
    for stage, name in zip(stages, ("stage1", "stage2", "stage3"), strict=True):
        assert_matches(stage, case.outputs[name])
    torch.testing.assert_close(restored, stages[-1], rtol=0, atol=0)


def test_defaults_are_the_published_deraining_network(case):
    net = build_network({"type": "MPRNet"})
    shapes = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert shapes == case.facts["state_dict"]


@pytest.mark.parametrize(
    "options",
    [
        SMALL,
        {**SMALL, "in_c": 1, "out_c": 1, "kernel_size": 5},
        {**SMALL, "n_feat": 9, "reduction": 3, "bias": True, "num_cab": 2},
        {**SMALL, "reduction": 8},
    ],
)
def test_sizes_are_read_off_the_shapes(options):
    net = MPRNet(**options)
    read = from_released("MPRNet", net.state_dict())
    image = torch.rand(1, options.get("in_c", 3), 16, 8)
    torch.testing.assert_close(read(image), net(image), rtol=0, atol=0)


def test_all_blocks_share_one_prelu(small):
    slopes = [p for p in small.parameters() if p.shape == (1,)]
    assert len(slopes) == 1
    names = [key for key, value in small.state_dict().items() if value.shape == (1,)]
    assert len(names) == 3 + 8 + 8 + 6 + 6 + 3  # shallow features, encoders, decoders, ORSNet


def test_halves_are_the_published_patches():
    x = torch.arange(2 * 1 * 4 * 6, dtype=torch.float32).view(2, 1, 4, 6)
    quarters = to_halves(to_halves(x, 2), 3)
    assert torch.equal(quarters[0], x[0, :, :2, :3])
    assert torch.equal(quarters[3], x[1, :, 2:, :3])
    assert torch.equal(quarters[7], x[1, :, 2:, 3:])
    assert torch.equal(from_halves(from_halves(quarters, 3), 2), x)


def test_stage1_keeps_the_halves_apart(small):
    top = torch.rand(1, 3, 16, 16)
    other = top.clone()
    other[:, :, 8:] = torch.rand(1, 3, 8, 16)
    with torch.no_grad():
        first, second = small(top, all_stages=True), small(other, all_stages=True)
    assert torch.equal(first[0][:, :, :8], second[0][:, :, :8])
    assert not torch.equal(first[1][:, :, :8], second[1][:, :, :8])


@pytest.mark.parametrize("size", [(8, 8), (24, 40), (8, 72)])
def test_any_multiple_of_eight_will_do(small, size):
    assert small.size_multiple == 8
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        stages = small(images, all_stages=True)
        alone = small(images[1:])
    assert [stage.shape for stage in stages] == [images.shape] * 3
    torch.testing.assert_close(stages[-1][1:], alone, rtol=1e-5, atol=1e-6)


def test_weights_of_another_system_are_refused_by_name(case):
    foreign = load_case("prenet_PReNet").state_dict
    with pytest.raises(CheckpointError, match=r"not a published MPRNet .* checkpoint of PReNet"):
        from_released("MPRNet", foreign)
    missing = {key: value for key, value in case.state_dict.items() if key != "sam12.conv3.weight"}
    with pytest.raises(CheckpointError, match=r"missing: sam12\.conv3\.weight"):
        from_released("MPRNet", missing)
    surplus = {**case.state_dict, "sam34.conv1.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"surplus: sam34\.conv1\.weight"):
        from_released("MPRNet", surplus)


def test_an_inconsistent_reduction_is_refused(small):
    weights = small.state_dict()
    weights["shallow_feat1.1.CA.conv_du.0.weight"] = torch.zeros(7, 8, 1, 1)
    with pytest.raises(CheckpointError, match="no single reduction"):
        from_released("MPRNet", weights)


@pytest.mark.parametrize(
    ("options", "fault"),
    [({"in_c": 6}, "in_c is 6 and out_c 3"), ({"kernel_size": 4}, "kernel_size is 4")],
)
def test_inconsistent_options_are_refused(options, fault):
    with pytest.raises(OptionsError, match=fault):
        MPRNet(**{**SMALL, **options})
