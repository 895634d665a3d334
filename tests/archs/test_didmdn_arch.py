import pytest
import torch
from golden import assert_matches, load_case
from torch import nn

from basicsr.archs import from_released
from basicsr.archs.didmdn_arch import (
    DIDMDN,
    DensityClassifier,
    DIDMDNDerainer,
    DIDMDNResidual,
    ImageNorm,
)
from basicsr.utils.errors import CheckpointError, OptionsError


@pytest.fixture(scope="module")
def derainer_case():
    return load_case("didmdn_eval")


@pytest.fixture(scope="module")
def residual_case():
    return load_case("didmdn_residual_eval")


@pytest.fixture(scope="module")
def pipeline() -> DIDMDN:
    torch.manual_seed(0)
    return DIDMDN().eval()


def dead_parameters(case, net) -> int:
    alive = net.state_dict()
    return sum(
        torch.Size(shape).numel()
        for key, shape in case.facts["state_dict"].items()
        if key not in alive and "running" not in key and not key.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize(
    ("name", "batch_norm"), [("didmdn_eval", "running"), ("didmdn_train", "image")]
)
def test_derainer_gives_the_published_outputs(name, batch_norm):
    case = load_case(name)
    net = from_released("DIDMDNDerainer", case.state_dict, batch_norm=batch_norm).eval()
    with torch.no_grad():
        rain, restored = net.derain(case.input, case.facts["config"]["label"])
    assert_matches(rain, case.outputs["residual"])
    assert_matches(restored, case.outputs["restored"])


def test_residual_net_gives_the_published_output(residual_case):
    net = from_released("DIDMDNResidual", residual_case.state_dict, batch_norm="running").eval()
    with torch.no_grad():
        rain = net.rain(residual_case.input, 0)
        restored = net((residual_case.input + 1) / 2)
    assert_matches(rain, residual_case.outputs["residual"])
    assert_matches(2 * restored - 1, residual_case.input - residual_case.outputs["residual"])


def test_published_parameters_are_those_in_use_and_the_dead_ones(derainer_case, residual_case):
    for net, case, published, in_use in (
        (DIDMDNDerainer(), derainer_case, 372_839, 365_236),
        (DIDMDNResidual(), residual_case, 182_947, 103_609),
    ):
        assert sum(p.numel() for p in net.parameters()) == in_use
        assert in_use + dead_parameters(case, net) == case.facts["parameters"] == published


@pytest.mark.parametrize("cls", [DIDMDNDerainer, DIDMDNResidual])
def test_every_parameter_learns(cls):
    torch.manual_seed(0)
    net = cls()
    net(torch.rand(1, 3, 32, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_files_from_before_the_batch_counters_are_read(derainer_case):
    old = {
        key: value
        for key, value in derainer_case.state_dict.items()
        if not key.endswith("num_batches_tracked")
    }
    net = from_released("DIDMDNDerainer", old)
    assert torch.equal(net.refine3.weight, old["refine3.weight"])


@pytest.mark.parametrize("key", ["refine3.bias", "dense1.conv61.bias", "batchnorm1.running_var"])
def test_missing_keys_are_named_also_unused_ones(derainer_case, key):
    weights = {k: value for k, value in derainer_case.state_dict.items() if k != key}
    with pytest.raises(CheckpointError, match=key):
        from_released("DIDMDNDerainer", weights)


def test_surplus_and_foreign_weights_are_refused_by_name(derainer_case):
    surplus = {**derainer_case.state_dict, "dense0.conv71.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"surplus: dense0\.conv71\.weight"):
        from_released("DIDMDNDerainer", surplus)
    with pytest.raises(CheckpointError, match="looks like a checkpoint of PRN"):
        from_released("DIDMDNResidual", load_case("prenet_PRN").state_dict)


def test_weights_of_another_part_are_refused_by_name(derainer_case, residual_case):
    residual_net = "looks like a checkpoint of DID-MDN's residual net"
    with pytest.raises(CheckpointError, match=residual_net):
        from_released("DIDMDNDerainer", residual_case.state_dict)
    with pytest.raises(CheckpointError, match="looks like a checkpoint of DID-MDN's de-rainer"):
        from_released("DIDMDNResidual", derainer_case.state_dict)


def test_all_three_files_make_the_pipeline(derainer_case, residual_case, pipeline):
    with pytest.raises(CheckpointError, match="three files"):
        from_released("DIDMDN", derainer_case.state_dict)
    net = from_released(
        "DIDMDN",
        derainer_case.state_dict,
        residual=residual_case.state_dict,
        classifier=pipeline.classifier.state_dict(),
    ).eval()
    assert torch.equal(net.derainer.refine3.weight, derainer_case.state_dict["refine3.weight"])
    assert torch.equal(net.residual_net.refine3.weight, residual_case.state_dict["refine3.weight"])
    for read, given in zip(
        net.classifier.parameters(), pipeline.classifier.parameters(), strict=True
    ):
        assert torch.equal(read, given)


def test_classifier_has_the_published_sizes(pipeline):
    shapes = {key: tuple(value.shape) for key, value in pipeline.classifier.state_dict().items()}
    assert shapes["feature.0.weight"] == (64, 3, 3, 3)
    assert shapes["conv16.weight"] == (24, 64, 3, 3)
    assert shapes["dense_classifier.weight"] == (512, 127_896)
    assert shapes["dense_classifier1.weight"] == (4, 512)
    vgg_norm = {key for key in shapes if key.startswith("feature.1.")}
    assert vgg_norm == {f"feature.1.{key}" for key in nn.BatchNorm2d(1).state_dict()}


def test_classifier_sees_any_size_as_512(pipeline):
    flat = torch.full((1, 3, 512, 512), 0.3)
    with torch.no_grad():
        full, small = pipeline.classifier(flat), pipeline.classifier(flat[:, :, :64, :96])
    torch.testing.assert_close(full, small, rtol=1e-4, atol=1e-5)


class ByBrightness(nn.Module):
    """Class 0 for dark images, class 2 for bright ones."""

    def forward(self, x):
        brightness = x.mean((1, 2, 3))
        return torch.stack([-brightness, brightness * 0 - 9, brightness, brightness * 0 - 9], 1)


@pytest.fixture
def choosing(pipeline):
    """The pipeline with a classifier whose choice is known."""
    real, pipeline.classifier = pipeline.classifier, ByBrightness()
    yield pipeline
    pipeline.classifier = real


def test_each_image_gets_the_label_of_its_class(choosing):
    images = torch.stack([torch.full((3, 32, 64), 0.1), torch.full((3, 32, 64), 0.9)])
    images += 0.05 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert choosing.density_logits(images).argmax(1).tolist() == [0, 2]
        chosen = choosing(images)
        given = choosing(images, label=torch.tensor([1, 3]))
        swapped = choosing(images, label=torch.tensor([3, 1]))
        alone = choosing(images[1:], label=3)
    assert torch.equal(chosen, given)
    assert not torch.allclose(given, swapped, atol=1e-6)
    torch.testing.assert_close(given[1:], alone, rtol=1e-5, atol=1e-6)


def test_only_the_derainer_learns(choosing):
    choosing.train()
    assert not choosing.residual_net.training
    assert not choosing.classifier.training
    image = torch.rand(1, 3, 32, 32)
    (restored,) = choosing(image, all_stages=True)
    assert restored.shape == image.shape
    restored.mean().backward()
    assert all(p.grad is not None for p in choosing.derainer.parameters())
    others = {name for name, p in choosing.named_parameters() if p.grad is None}
    assert {name.split(".")[0] for name in others} == {"residual_net"}
    choosing.zero_grad()
    choosing.eval()


def test_labels_must_fit_the_batch():
    net = DIDMDNDerainer()
    with pytest.raises(ValueError, match="3 density labels were given for 2 images"):
        net(torch.rand(2, 3, 32, 32), label=torch.tensor([1, 2, 0]))
    with pytest.raises(OptionsError, match="label: at most 4 is allowed, not 5"):
        DIDMDNDerainer(label=5)


def test_label_of_the_options_is_used_where_none_is_given():
    torch.manual_seed(0)
    net = DIDMDNDerainer(label=2).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(image), net(image, label=2))
        assert not torch.equal(net(image), net(image, label=0))


def test_image_norm_is_batch_norm_with_batches_of_one():
    torch.manual_seed(0)
    image, ours, theirs = torch.randn(1, 4, 8, 6), ImageNorm(4, "running"), nn.BatchNorm2d(4)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(image), theirs(image))
    for key in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, key), getattr(theirs, key))
    torch.testing.assert_close(ours.eval()(image), theirs.eval()(image))


@pytest.mark.parametrize("batch_norm", ["image", "running"])
def test_an_image_does_not_depend_on_its_batch(batch_norm):
    torch.manual_seed(0)
    net = DIDMDNDerainer(batch_norm=batch_norm).eval()
    images = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(images)[:1], net(images[:1]), rtol=1e-5, atol=1e-6)


def test_classifier_alone_reads_its_own_file(residual_case, pipeline):
    with pytest.raises(CheckpointError, match="the weights do not fit DensityClassifier"):
        from_released(
            "DIDMDN",
            load_case("didmdn_train").state_dict,
            residual=residual_case.state_dict,
            classifier=residual_case.state_dict,
        )
    assert isinstance(pipeline.classifier, DensityClassifier)
