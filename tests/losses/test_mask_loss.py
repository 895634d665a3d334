"""The loss of SPAIR's distortion mask."""

import math

import pytest
import torch

from basicsr.archs import build_network
from basicsr.losses import MaskLoss, build_losses


def masked(mask: list[float], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """SPAIR's first stage for two pixels; the second one is degraded in one channel."""
    target = torch.full((1, 3, 1, 2), 0.5, dtype=dtype)
    degraded = target.clone()
    degraded[0, 1, 0, 1] += 0.1
    degraded[0, :, 0, 0] += 0.01
    return torch.cat([degraded, torch.tensor(mask, dtype=dtype).view(1, 1, 1, 2)], 1), target


def test_mask_loss_is_the_cross_entropy_with_the_degraded_pixels() -> None:
    expected = -(math.log(1 - 0.2) + math.log(0.7)) / 2
    assert MaskLoss()(*masked([0.2, 0.7])).item() == pytest.approx(expected, rel=1e-5)
    assert MaskLoss()(*masked([0.0, 1.0])).item() == 0
    nothing_degraded = -(math.log(1 - 0.2) + math.log(1 - 0.7)) / 2
    loss = MaskLoss(threshold=0.2)(*masked([0.2, 0.7]))
    assert loss.item() == pytest.approx(nothing_degraded, rel=1e-5)


def test_only_the_mask_learns() -> None:
    stage, target = masked([0.2, 0.7], torch.float64)
    stage.requires_grad_()
    MaskLoss()(stage, target).backward()
    expected = torch.tensor([1 / (1 - 0.2), -1 / 0.7]).double() / 2
    torch.testing.assert_close(stage.grad[0, 3, 0], expected)
    assert not stage.grad[:, :3].any()


def test_single_precision_under_autocast(device) -> None:
    stage, target = (x.to(device) for x in masked([0.2, 0.7]))
    with torch.autocast(device.type, torch.bfloat16):
        loss = MaskLoss()(stage, target)
    assert loss.dtype == torch.float32
    assert loss.item() == MaskLoss()(stage, target).item()


def test_an_image_without_a_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="3 channels and a mask"):
        MaskLoss()(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))


def test_trains_spairs_localization() -> None:
    torch.manual_seed(0)
    options = {"dim": 4, "localization_dim": 4, "num_blocks": (1, 1, 1), "grid": 4}
    net = build_network({"type": "SPAIR", **options})
    clean = torch.rand(1, 3, 16, 16) / 2
    rainy = clean.clone()
    rainy[..., 4:8] += 0.4
    terms = build_losses([{"type": "MaskLoss", "stage": 0}])
    optimizer = torch.optim.Adam(net.localization.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss, _ = terms(net(rainy, all_stages=True), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    mask = net.localize(rainy)
    assert mask[..., 4:8].mean() > 0.7
    assert mask[..., 9:].mean() < 0.3
