"""Each loss against its formula, and the properties that all losses share."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from basicsr.losses import (
    CharbonnierLoss,
    EdgeLoss,
    FFTLoss,
    L1Loss,
    MSELoss,
    PearsonLoss,
    PSNRLoss,
    SSIMLoss,
)
from basicsr.losses.structural_losses import windowed_mean
from basicsr.metrics import measure

AT_EQUALITY = {
    L1Loss: 0,
    MSELoss: 0,
    CharbonnierLoss: 1e-3,
    EdgeLoss: 1e-3,
    FFTLoss: 0,
    PSNRLoss: -6,
    PearsonLoss: 0,
    SSIMLoss: -1,
}
every_loss = pytest.mark.parametrize("loss", AT_EQUALITY, ids=lambda cls: cls.__name__)


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, *shape, generator=generator, dtype=dtype))


def test_pixel_losses_of_known_differences() -> None:
    target = torch.zeros(1, 1, 1, 2)
    restored = torch.tensor([0.3, -0.4]).view(1, 1, 1, 2)
    assert L1Loss()(restored, target).item() == pytest.approx(0.35)
    assert MSELoss()(restored, target).item() == pytest.approx(0.125)
    smooth = (math.hypot(0.3, 0.1) + math.hypot(0.4, 0.1)) / 2
    assert CharbonnierLoss(eps=0.1)(restored, target).item() == pytest.approx(smooth)


def test_psnr_loss_is_the_mean_over_images_in_tens_of_decibels() -> None:
    target = torch.zeros(2, 3, 4, 4)
    restored = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert PSNRLoss(eps=0)(restored, target).item() == pytest.approx(-(20 + 40) / 2 / 10)


def test_charbonnier_of_clamped_images() -> None:
    """MPRNet's denoising: values beyond [0, 1] count as the nearest end, without a gradient."""
    restored = torch.tensor([-0.5, 0.2, 1.5]).view(1, 1, 1, 3).requires_grad_()
    loss = CharbonnierLoss(eps=1e-3, clamp=True)(restored, torch.zeros(1, 1, 1, 3))
    expected = (1e-3 + math.hypot(0.2, 1e-3) + math.hypot(1, 1e-3)) / 3
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert restored.grad.flatten().ne(0).tolist() == [False, True, False]


def test_pearson_loss_is_numpys() -> None:
    restored, target = images(3, 2, 5, 6)
    r = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(restored, target, strict=True)]
    assert PearsonLoss()(restored, target).item() == pytest.approx((1 - np.mean(r)) / 2, abs=1e-6)
    assert PearsonLoss()(1 - target, target).item() == pytest.approx(1, abs=1e-5)
    assert PearsonLoss()(0.5 * target + 0.2, target).item() == pytest.approx(0, abs=1e-5)


def test_pearson_loss_of_an_image_of_one_level_has_a_finite_gradient() -> None:
    restored = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    loss = PearsonLoss()(restored, torch.rand(1, 3, 4, 4))
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert restored.grad.isfinite().all()


def test_fft_loss_is_numpys() -> None:
    restored, target = images(2, 3, 7, 10)
    spectrum = np.fft.fft2((restored - target).double().numpy())
    expected = (np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2
    assert FFTLoss()(restored, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (13, 18)])
def test_edge_loss_is_mprnets(size) -> None:
    """The reference computes the Laplacian of each image separately, window by window."""

    def smooth(image: Tensor) -> Tensor:
        axis = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05], dtype=image.dtype)
        windows = F.pad(image, (2, 2, 2, 2), mode="replicate").unfold(2, 5, 1).unfold(3, 5, 1)
        return torch.einsum("nchwij,i,j->nchw", windows, axis, axis)

    def laplacian(image: Tensor) -> Tensor:
        kept = torch.zeros_like(image)
        kept[:, :, ::2, ::2] = smooth(image)[:, :, ::2, ::2] * 4
        return image - smooth(kept)

    restored, target = images(2, 3, *size, dtype=torch.float64)
    difference = laplacian(restored) - laplacian(target)
    expected = torch.sqrt(difference**2 + 1e-6).mean()
    assert EdgeLoss()(restored, target).item() == pytest.approx(expected.item(), rel=1e-9)


def test_ssim_loss_is_the_dtpnet_protocols_ssim(device) -> None:
    restored, target = images(1, 3, 64, 96)
    restored = (0.7 * target + 0.3 * restored).clamp(0, 1)
    loss = SSIMLoss()(restored.to(device), target.to(device)).item()
    a, b = (x[0].permute(1, 2, 0).numpy() for x in (restored, target))
    assert -loss == pytest.approx(measure(a, b, "dtpnet")["ssim"], abs=1e-5)


def test_windowed_mean_is_the_convolution_with_the_gaussian_window(device) -> None:
    maps = images(2, 3, 9, 20, dtype=torch.float64)[0]
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / 4.5)
    window = (window / window.sum()).expand(3, 1, 11, 11)
    expected = F.conv2d(maps, window, padding=5, groups=3)
    torch.testing.assert_close(windowed_mean(maps.to(device)).cpu(), expected, rtol=0, atol=1e-12)


@every_loss
def test_value_at_equality(loss) -> None:
    restored, _ = images(2, 3, 24, 24)
    assert loss()(restored, restored.clone()).item() == pytest.approx(AT_EQUALITY[loss], abs=1e-6)


@every_loss
@pytest.mark.parametrize("shape", [(1, 1, 12, 12), (2, 3, 1, 1), (1, 3, 7, 13)])
def test_gradient(loss, shape) -> None:
    """In double precision; the differences are away from the kink of L1."""
    restored, target = images(*shape, dtype=torch.float64)
    restored.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss()(x, target), restored)


@every_loss
def test_descent_finds_the_target(loss) -> None:
    restored, target = images(1, 3, 12, 12, seed=3)
    restored.requires_grad_()
    optimizer = torch.optim.Adam([restored], lr=0.02)
    before = (restored - target).abs().mean().item()
    for _ in range(150):
        optimizer.zero_grad()
        loss()(restored, target).backward()
        optimizer.step()
    assert (restored - target).abs().mean().item() < 0.35 * before


@every_loss
def test_single_precision_under_autocast(loss, device) -> None:
    restored, target = (x.to(device) for x in images(1, 3, 32, 32))
    expected = loss()(restored, target)
    with torch.autocast(device.type, torch.bfloat16):
        under_autocast = loss()(restored, target)
    assert under_autocast.dtype == torch.float32
    assert under_autocast.item() == expected.item()
    half = restored.bfloat16()
    assert loss()(half, target).item() == loss()(half.float(), target).item()


@every_loss
def test_shapes_that_would_be_broadcast(loss) -> None:
    with pytest.raises(ValueError, match="different shapes"):
        loss()(torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8))


@every_loss
@pytest.mark.parametrize("channels", [1, 6])
def test_any_number_of_channels(loss, channels) -> None:
    """The loss of equal channels is the loss of one of them."""
    restored, target = images(2, 1, 12, 12)
    one = loss()(restored, target).item()
    repeated = [x.expand(-1, channels, -1, -1) for x in (restored, target)]
    assert loss()(*repeated).item() == pytest.approx(one, rel=1e-5)
