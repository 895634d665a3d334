"""Weighted sums of losses over a network's stages."""

from __future__ import annotations

import pytest
import torch

from basicsr.losses import build_losses
from basicsr.utils.errors import OptionsError


def test_published_dtpnet_loss() -> None:
    restored, coarse, target = torch.rand(3, 1, 3, 32, 32)
    losses = build_losses(
        [{"type": "SSIMLoss", "weight": 1.0}, {"type": "MSELoss", "weight": 0.5, "stage": 0}]
    )
    total, each = losses([coarse, restored], target)
    ssim = build_losses([{"type": "SSIMLoss"}])([restored], target)[0]
    squared = ((coarse - target) ** 2).mean()
    assert list(each) == ["SSIMLoss", "MSELoss_stage0"]
    assert each["SSIMLoss"].item() == pytest.approx(ssim.item())
    assert each["MSELoss_stage0"].item() == pytest.approx(0.5 * squared.item())
    assert total.item() == pytest.approx(ssim.item() + 0.5 * squared.item())


def test_only_the_total_carries_gradients() -> None:
    stages = [torch.rand(1, 3, 8, 8, requires_grad=True) for _ in range(2)]
    losses = build_losses([{"type": "L1Loss"}, {"type": "L1Loss", "weight": 3.0, "stage": -2}])
    total, each = losses(stages, torch.zeros(1, 3, 8, 8))
    total.backward()
    assert not any(value.requires_grad for value in each.values())
    for stage, weight in zip(stages, (3.0, 1.0), strict=True):
        torch.testing.assert_close(stage.grad, torch.full_like(stage, weight / stage.numel()))


def test_equal_names_are_numbered() -> None:
    losses = build_losses([{"type": "L1Loss"}, {"type": "L1Loss", "stage": 0}, {"type": "L1Loss"}])
    _, each = losses([torch.zeros(1, 1, 2, 2)], torch.ones(1, 1, 2, 2))
    assert {name: value.item() for name, value in each.items()} == {
        "L1Loss": 1,
        "L1Loss_stage0": 1,
        "L1Loss#2": 1,
    }


def test_arguments_reach_the_loss() -> None:
    losses = build_losses([{"type": "CharbonnierLoss", "eps": 0.5, "weight": 2.0}])
    image = torch.rand(1, 3, 4, 4)
    assert losses([image], image)[0].item() == pytest.approx(1.0)


@pytest.mark.parametrize("stage", [2, -3])
def test_missing_stage(stage) -> None:
    losses = build_losses([{"type": "L1Loss", "stage": stage}])
    image = torch.rand(1, 3, 4, 4)
    with pytest.raises(ValueError, match="no stage") as error:
        losses([image, image], image)
    assert str(error.value) == (
        f"loss L1Loss_stage{stage}: there is no stage {stage}; the network has 2: "
        "0 to 1, or -1 for the final one"
    )


def test_unknown_loss() -> None:
    with pytest.raises(OptionsError, match=r"no loss is called 'SIMLoss' \(did you mean 'SSIMLo"):
        build_losses([{"type": "SIMLoss"}])
