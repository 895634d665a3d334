"""Perceptual loss, with random weights from a file: no test needs an internet connection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from basicsr.losses import PerceptualLoss
from basicsr.utils.errors import CheckpointError, DataError, OptionsError


@pytest.fixture(scope="module")
def vgg16() -> torch.nn.Sequential:
    with torch.device("meta"):  # the classifier's 120 million weights are not needed
        features = torchvision.models.vgg16().features
    generator = torch.Generator().manual_seed(0)
    state = {
        key: 0.05 * torch.randn(value.shape, generator=generator)
        for key, value in features.state_dict().items()
    }
    features.load_state_dict(state, assign=True)
    return features.eval()


@pytest.fixture(scope="module")
def file(vgg16, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save({f"features.{key}": value for key, value in vgg16.state_dict().items()}, path)
    return str(path)


def test_features_of_normalised_images(vgg16, file) -> None:
    restored, target = torch.rand(2, 1, 3, 20, 26)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = 0.0
    for depth in (4, 9):  # relu1_2, relu2_2
        features = [vgg16[:depth]((x - mean) / std) for x in (restored, target)]
        expected += (features[0] - features[1]).abs().mean().item()
    loss = PerceptualLoss(layers=("relu1_2", "relu2_2"), weights=file)
    assert loss(restored, target).item() == pytest.approx(expected, rel=1e-5)


def test_weighted_convolutions_before_their_activation(vgg16, file) -> None:
    """As BasicSR compares them: each layer with a weight."""
    restored, target = torch.rand(2, 1, 3, 20, 26)
    loss = PerceptualLoss(layers=("conv2_1", "conv1_2"), layer_weights=(0.5, 2), weights=file)
    expected = 0.0
    for depth, weight in ((6, 0.5), (3, 2)):  # up to the convolution, without its activation
        features = [vgg16[:depth]((x - loss.mean) / loss.std) for x in (restored, target)]
        expected += weight * (features[0] - features[1]).abs().mean().item()
    assert loss(restored, target).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(OptionsError, match="1 layer_weights for 2 layers; give one each"):
        PerceptualLoss(layers=("relu1_1", "relu2_1"), layer_weights=(1,), weights=file)


def test_gray_counts_as_three_equal_channels(file) -> None:
    loss = PerceptualLoss(weights=file)
    restored, target = torch.rand(2, 1, 1, 16, 16)
    in_colour = loss(restored.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1))
    assert loss(restored, target).item() == pytest.approx(in_colour.item(), rel=1e-5)


def test_gradients_reach_the_image_only(file) -> None:
    loss = PerceptualLoss(weights=file)
    restored = torch.rand(1, 3, 16, 16, requires_grad=True)
    loss(restored, torch.rand(1, 3, 16, 16)).backward()
    assert restored.grad is not None
    assert restored.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


@pytest.mark.parametrize("channels", [2, 6])
def test_images_that_are_neither_rgb_nor_gray(file, channels) -> None:
    image = torch.rand(1, channels, 16, 16)
    with pytest.raises(ValueError, match=f"RGB and gray images, not for {channels} channels"):
        PerceptualLoss(weights=file)(image, image)


def test_too_small_patches(file) -> None:
    loss = PerceptualLoss(layers=("relu3_1",), weights=file)
    assert loss(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)).isfinite()
    with pytest.raises(DataError, match="at least 4 x 4 pixels, not 9 x 3"):
        loss(torch.rand(1, 3, 3, 9), torch.rand(1, 3, 3, 9))


def test_unknown_layers() -> None:
    with pytest.raises(OptionsError, match=r"vgg16 has no layer 'relu2_3' \(did you mean 'relu"):
        PerceptualLoss(layers=("relu2_3",))
    with pytest.raises(OptionsError, match="name at least one layer"):
        PerceptualLoss(layers=())


def test_weights_of_another_network(file) -> None:
    with pytest.raises(CheckpointError, match="not the weights of torchvision's vgg19"):
        PerceptualLoss("vgg19", weights=file)


def test_weights_that_cannot_be_fetched(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(OptionsError, match=r"vgg16 could not be fetched .* as `weights`"):
        PerceptualLoss()


def test_torchvision_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, basicsr.losses, basicsr.metrics\n"
        "print({'torchvision', 'cv2', 'matplotlib'} & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
