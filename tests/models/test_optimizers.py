"""MuonAdamW: Muon for matrices, AdamW for everything else."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from basicsr.models import optimizers
from basicsr.models.conditional_step import step_where
from basicsr.models.optimizers import MuonAdamW, orthogonalized
from basicsr.training.build import optimizer_factory
from basicsr.utils.errors import OptionsError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 16, 3),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.Conv2d(16, 8, 1),
        nn.Conv2d(8, 3, 3),
    ]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def step(net: nn.Module, built: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    built.zero_grad()
    net(torch.randn(2, 3, 16, 16, generator=generator)).square().mean().backward()
    built.step()


@pytest.fixture(params=["bf16", "fp32"])
def precision(request, monkeypatch) -> str:
    """In which matrices are orthogonalized: on devices with and without units for bf16."""
    monkeypatch.setattr(optimizers, "has_units", lambda device, name: request.param == name)
    return request.param


def _nearest(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthogonal rows or columns."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


@pytest.mark.parametrize("shape", [(2, 24, 24), (1, 12, 100), (3, 100, 12)])
def test_singular_values_become_about_one(shape, precision) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    results = torch.stack(orthogonalized(list(matrices), steps=8))
    values = torch.linalg.svdvals(results.float())
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert results.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


@pytest.mark.parametrize("scale", [1e-6, 1e15])
def test_matrices_of_several_shapes_are_told_apart(scale, precision) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(12, 100), (24, 24), (100, 12), (12, 40), (24, 90)]
    matrices = [scale * torch.randn(shape, generator=generator) for shape in shapes]
    for matrix, result in zip(matrices, orthogonalized(matrices), strict=True):
        assert result.shape == matrix.shape
        nearest = _nearest(matrix).flatten()
        assert torch.cosine_similarity(result.float().flatten(), nearest, dim=0) > 0.95


@pytest.mark.parametrize("scale", [0, 1e-30, 1e-18, 1e-15, 1e-12, 1e-10, 1e-8])
def test_tiny_gradients_do_not_grow_beyond_one(scale, precision) -> None:
    matrix = scale * torch.randn(24, 90, generator=torch.Generator().manual_seed(1))
    (result,) = orthogonalized([matrix])
    assert torch.linalg.svdvals(result.float()).max() < 1.3


def test_muon_trains_dense_convolutions_between_features() -> None:
    net = network()
    built = MuonAdamW(net.parameters())
    muon = next(group for group in built.param_groups if group["muon"])
    assert {id(p) for p in muon["params"]} == {id(net[1].weight), id(net[3].weight)}


def test_adamw_trains_the_other_parameters() -> None:
    ours, theirs = network(), network()
    with torch.no_grad():
        for net in (ours, theirs):
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter)
    MuonAdamW(ours.parameters(), lr=0.1, lr_ratio=0.5, weight_decay=0.1).step()
    torch.optim.AdamW(theirs.parameters(), lr=0.05, weight_decay=0.1).step()
    for index in (0, 2, 4):
        torch.testing.assert_close(ours[index].weight, theirs[index].weight)
    assert not torch.equal(ours[1].weight, theirs[1].weight)


def test_updates_are_orthogonal_and_as_large_as_adams() -> None:
    net = network()
    before = net[1].weight.detach().clone()
    step(net, MuonAdamW(net.parameters(), lr=0.01), seed=0)
    update = (before - net[1].weight).detach()
    assert update.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.3)
    values = torch.linalg.svdvals(update.flatten(1))
    assert values.max() / values.min() < 2.5


@pytest.mark.parametrize(
    ("shape", "most_rows", "parts", "size"),
    [
        ((64, 8, 3, 3), 16, 4, 1),
        ((64, 8, 3, 3), 40, 2, 1),
        ((64, 8, 3, 3), 64, 1, 1),
        ((64, 8, 3, 3), None, 1, 1),
        ((61, 8, 3, 3), 16, 4, 1),  # three of 16 rows, one of 13
        ((192, 64), 32, 6, 3**0.5),  # 192 / 64
        ((192, 64), None, 1, 1),
        ((256, 8, 1, 1), 64, 4, 4**0.5),  # 256 / 64, as a part has more rows than columns, too
    ],
)
def test_large_matrices_are_orthogonalized_in_equal_parts(
    shape, most_rows, parts, size, precision
) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    MuonAdamW([weight], lr=0.01, most_rows=most_rows).step()
    update, gradient = (each.detach().flatten(1) for each in (-weight, weight.grad))
    # singular values are 0.7 to 1.2 instead of 1
    assert update.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01 * size, rel=0.15)
    nearest = torch.cat([_nearest(gradient[n::parts]) for n in range(parts)])
    found = torch.cat([update[n::parts] for n in range(parts)])
    assert torch.cosine_similarity(found.flatten(), nearest.flatten(), dim=0) > 0.97


def test_weights_decay() -> None:
    net = network()
    before = net[1].weight.detach().clone()
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    MuonAdamW(net.parameters(), lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(net[1].weight.detach(), before * 0.95)


def test_it_continues_from_its_state() -> None:
    straight, stopped = network(), network()
    built = MuonAdamW(straight.parameters())
    for seed in range(4):
        step(straight, built, seed)
    built = MuonAdamW(stopped.parameters())
    for seed in range(2):
        step(stopped, built, seed)
    again = MuonAdamW(stopped.parameters())
    again.load_state_dict(built.state_dict())
    for seed in range(2, 4):
        step(stopped, again, seed)
    for ours, theirs in zip(straight.parameters(), stopped.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_a_skipped_step_changes_nothing(fused) -> None:
    net = network()
    built = MuonAdamW(net.parameters(), fused=fused)
    step(net, built, seed=0)
    before = copy.deepcopy((net.state_dict(), built.state_dict()["state"]))
    for parameter in net.parameters():
        parameter.grad.fill_(torch.nan)
    step_where(torch.tensor(False), built)
    after = net.state_dict(), built.state_dict()["state"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_sharded_weights_are_refused() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sharded = distribute_tensor(torch.ones(8, 8), init_device_mesh("cpu", (1,)))
        with pytest.raises(OptionsError, match=r"MuonAdamW: .* set train\.sharded: false"):
            optimizer_factory({"type": "MuonAdamW"})([nn.Parameter(sharded)])
    finally:
        dist.destroy_process_group()
