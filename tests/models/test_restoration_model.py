import copy
import functools
import itertools

import pytest
import torch
from torch import nn

from basicsr.archs import RestorationNetwork
from basicsr.data import TrainingBatch
from basicsr.losses import build_losses
from basicsr.models.loss_scale import GROWTH_INTERVAL, LossScale
from basicsr.models.mixup import Mixup
from basicsr.models.optimizers import MuonAdamW
from basicsr.models.restoration_model import RestorationModel, StepSettings
from basicsr.utils.errors import CheckpointError


class TwoStages(RestorationNetwork):
    size_multiple = 1

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, all_stages=False):
        stages = [self.first(x)]
        stages.append(self.second(stages[0]) + x)
        return stages if all_stages else stages[-1]


LOSSES = [{"type": "L1Loss"}, {"type": "MSELoss", "weight": 0.5, "stage": 0}]


def build(
    device, losses=LOSSES, lr=1e-2, optimizer=torch.optim.Adam, network=TwoStages, **settings
):
    torch.manual_seed(0)
    network = network().to(device)
    return RestorationModel(
        network,
        build_losses(losses).to(device),
        lambda parameters: optimizer(parameters, lr=lr),
        lambda i, base: base / (i + 1),
        device,
        StepSettings(**settings),
    )


def batch(seed, size=2):
    images = torch.randint(
        0,
        256,
        (2, size, 3, 12, 12),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    )
    return TrainingBatch(images[0], images[1], ["x"] * size)


def step(model, iteration, batches):
    losses, finite, _ = model.optimize_parameters(iteration, batches)
    assert finite
    return losses


def weights(model):
    return torch.cat([p.detach().flatten().cpu() for p in model.network.parameters()])


def test_a_step_follows_the_weighted_losses_of_its_stages(device):
    model = build(device)
    twin = build(device)
    data = batch(1)
    shown = step(model, 0, [data])
    x, y = (images.to(device).float() / 255 for images in data[:2])
    coarse, restored = twin.network(x, all_stages=True)
    l1, mse = (restored - y).abs().mean(), ((coarse - y) ** 2).mean()
    assert shown["L1Loss"].item() == pytest.approx(l1.item(), rel=1e-5)
    assert shown["loss"].item() == pytest.approx((l1 + 0.5 * mse).item(), rel=1e-5)
    (l1 + 0.5 * mse).backward()
    twin.optimizer.step()
    assert torch.allclose(weights(model), weights(twin), atol=1e-6)


def test_the_schedule_sets_the_rate(device):
    model = build(device)
    for iteration in range(3):
        step(model, iteration, [batch(iteration)])
    assert model.learning_rate == pytest.approx(1e-2 / 3)


def test_accumulated_micro_batches_are_one_batch(device):
    whole, parts = build(device), build(device)
    data = batch(3, size=4)
    halves = [TrainingBatch(data.lq[i : i + 2], data.gt[i : i + 2], ["x"] * 2) for i in (0, 2)]
    one, two = step(whole, 0, [data]), step(parts, 0, halves)
    assert two["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-5)
    assert torch.allclose(weights(whole), weights(parts), atol=1e-5)


def test_gradients_are_clipped(device):
    model = build(device, losses=[{"type": "L1Loss", "weight": 1000.0}], clip_grad_norm=0.01)
    shown = step(model, 0, [batch(4)])
    assert shown["grad_norm"] > 1
    norm = torch.cat([p.grad.flatten() for p in model.network.parameters() if p.grad is not None])
    assert norm.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_averaged_weights_are_those_of_the_inference_network(device):
    model = build(device, ema_decay=0.5)
    assert model.inference_network is not model.network
    before = weights(model)
    step(model, 0, [batch(5)])
    averaged = torch.cat([p.flatten().cpu() for p in model.inference_network.parameters()])
    assert torch.allclose(averaged, 0.1 * before + 0.9 * weights(model), atol=1e-6)
    unaveraged = build(device)
    assert unaveraged.inference_network is unaveraged.network


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_gradients_are_found(device, bad):
    model = build(device)
    with torch.no_grad():
        model.network.first.bias[0] = bad
    _, finite, _ = model.optimize_parameters(0, [batch(8)])
    assert not finite


class Normalized(TwoStages):
    """Network whose forward pass changes buffers."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x, all_stages=False):
        return super().forward(self.norm(x), all_stages)


class Spiked(TwoStages):
    """Network whose output is infinite for a batch that is all black."""

    def forward(self, x, all_stages=False):
        stages = super().forward(x, all_stages=True)
        stages[-1] = stages[-1] + torch.where(x.sum() == 0, torch.inf, 0.0)
        return stages if all_stages else stages[-1]


class SpikedNormalized(Spiked, Normalized):
    """Network with both properties."""


OPTIMIZERS = {
    "fused AdamW": functools.partial(torch.optim.AdamW, fused=True),
    "fused SGD": functools.partial(torch.optim.SGD, momentum=0.9, fused=True),
    "SGD": torch.optim.SGD,
    "AdamW": functools.partial(torch.optim.AdamW, fused=False),
    "NAdam": torch.optim.NAdam,
    "Rprop": torch.optim.Rprop,
    "Adagrad": torch.optim.Adagrad,
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("skipped", [{0}, {2, 3}, {0, 1, 4}])
def test_a_skipped_step_changes_nothing(device, optimizer, skipped):
    """Weights, buffers, average and optimizer state are those of a run without the step."""

    def spiked():
        return build(
            device, optimizer=optimizer, network=SpikedNormalized, ema_decay=0.9, clip_grad_norm=1.0
        )

    straight, skipping = spiked(), spiked()
    black = TrainingBatch(*torch.zeros(2, 2, 3, 12, 12, dtype=torch.uint8), ["x"] * 2)
    for iteration in range(6):
        before = copy.deepcopy(skipping.state_dict())
        _, finite, _ = skipping.optimize_parameters(
            iteration, [black if iteration in skipped else batch(iteration)]
        )
        assert finite == (iteration not in skipped)
        if iteration in skipped:
            require_equal(skipping.state_dict(), before)
        else:
            step(straight, iteration, [batch(iteration)])
    require_equal(skipping.state_dict(), straight.state_dict())


def require_equal(ours, theirs):
    """Compare bit for bit, except for the learning rate, which every step sets."""
    flat = [
        torch.utils._pytree.tree_flatten_with_path(
            {**state, "optimizer": state["optimizer"]["state"]}
        )[0]
        for state in (ours, theirs)
    ]
    assert [path for path, _ in flat[0]] == [path for path, _ in flat[1]]
    for (path, own), (_, other) in zip(*flat, strict=True):
        equal = torch.equal(own, other) if isinstance(own, torch.Tensor) else own == other
        assert equal, path


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_never_waits_for_the_gpu():
    model = build(
        torch.device("cuda", 0),
        optimizer=functools.partial(torch.optim.AdamW, fused=True),
        ema_decay=0.9,
        clip_grad_norm=1.0,
    )
    step(model, 0, [batch(0)])  # creates the optimizer's state
    pinned = [
        TrainingBatch(data.lq.pin_memory(), data.gt.pin_memory(), data.names)
        for data in map(batch, range(1, 4))
    ]
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [model.optimize_parameters(i, [data]) for i, data in enumerate(pinned, 1)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(result.finite for result in results)


@pytest.mark.slow
def test_a_compiled_step_is_the_same(device):
    eager, compiled = build(device), build(device, compiled=True)
    for model in (eager, compiled):
        step(model, 0, [batch(9)])
    assert torch.allclose(weights(eager), weights(compiled), atol=1e-5)


def test_bf16_steps_stay_close_to_float32(device):
    exact, rough = build(device), build(device, precision="bf16")
    assert step(rough, 0, [batch(7)])["loss"].item() == pytest.approx(
        step(exact, 0, [batch(7)])["loss"].item(), rel=0.02
    )


def fp16(device, scale=None, **settings):
    """A model whose losses and gradients are those of float16, perhaps with another scale."""
    model = build(device, precision="fp16", **settings)
    if scale is not None:
        model.loss_scale.load_state_dict({"value": scale, "good_steps": 0})
    return model


def test_fp16_steps_stay_close_to_float32(device):
    exact, rough = build(device), fp16(device)
    shown = [step(model, 0, [batch(7)]) for model in (exact, rough)]
    assert shown[1]["loss"].item() == pytest.approx(shown[0]["loss"].item(), rel=0.01)
    assert shown[1]["grad_norm"].item() == pytest.approx(shown[0]["grad_norm"].item(), rel=0.02)
    assert shown[1]["loss_scale"].item() == 2**16
    assert "loss_scale" not in shown[0]


def test_the_loss_scale_keeps_small_gradients(device):
    """Gradients of 1e-9 are zero in float16."""
    losses = [{"type": "L1Loss", "weight": 1e-7}]
    norms = [
        step(model, 0, [batch(3)])["grad_norm"].item()
        for model in (build(device, losses), fp16(device, 1, losses=losses))
    ]
    scaled = step(fp16(device, losses=losses), 0, [batch(3)])["grad_norm"].item()
    assert norms[1] == 0
    assert scaled == pytest.approx(norms[0], rel=0.02)


def test_overflowing_gradients_lower_the_loss_scale_and_are_no_fault(device):
    model = fp16(device, 2**40)
    before = weights(model)
    for exponent in range(39, 36, -1):
        _, finite, rescaled = model.optimize_parameters(0, [batch(1)])
        assert not finite
        assert rescaled
        assert model.loss_scale.value.item() == 2**exponent
    assert torch.equal(weights(model), before)
    for _ in range(30):
        _, finite, rescaled = model.optimize_parameters(0, [batch(1)])
        assert finite != rescaled
    assert finite
    assert not torch.equal(weights(model), before)


def test_a_loss_that_is_not_finite_is_a_fault_in_fp16_too(device):
    model = fp16(device, losses=[{"type": "L1Loss", "weight": 1e39}])
    _, finite, rescaled = model.optimize_parameters(0, [batch(1)])
    assert not finite
    assert not rescaled
    assert model.loss_scale.value.item() == 2**16


def test_gradients_that_overflow_without_a_scale_are_a_fault(device):
    model = fp16(device, 1, losses=[{"type": "L1Loss", "weight": 1e9}])
    _, finite, rescaled = model.optimize_parameters(0, [batch(1)])
    assert not finite
    assert not rescaled


def test_the_loss_scale_grows_after_many_good_steps(device):
    scale = LossScale(device)
    for _ in range(GROWTH_INTERVAL - 1):
        scale.adapt(torch.tensor(True, device=device))
    assert scale.value.item() == 2**16
    scale.adapt(torch.tensor(True, device=device))
    assert scale.state_dict() == {"value": 2**17, "good_steps": 0}
    for _ in range(40):
        scale.adapt(torch.tensor(False, device=device))
    assert scale.state_dict() == {"value": 1, "good_steps": 0}


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "fp16"}, {"mixup": Mixup(seed=3)}],
    ids=["plain", "fp16", "mixup"],
)
def test_a_resumed_model_continues_bit_for_bit(settings):
    cpu = torch.device("cpu")
    straight = build(cpu, ema_decay=0.9, **settings)
    for iteration in range(6):
        step(straight, iteration, [batch(iteration)])
    interrupted = build(cpu, ema_decay=0.9, **settings)
    for iteration in range(3):
        step(interrupted, iteration, [batch(iteration)])
    resumed = build(cpu, ema_decay=0.9, **settings)
    resumed.load_state_dict(interrupted.state_dict())
    for iteration in range(3, 6):
        step(resumed, iteration, [batch(iteration)])
    assert torch.equal(weights(resumed), weights(straight))
    for ours, theirs in zip(
        resumed.inference_network.parameters(),
        straight.inference_network.parameters(),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("precisions", [("fp16", "fp32"), ("fp32", "fp16")])
def test_a_model_resumes_in_another_precision(device, precisions):
    """As on another machine, whose processor or GPU does not multiply float16."""
    before, after = (build(device, precision=each) for each in precisions)
    step(before, 0, [batch(0)])
    after.load_state_dict(before.state_dict())
    assert torch.equal(weights(after), weights(before))
    _, finite, _ = after.optimize_parameters(1, [batch(1)])
    assert finite
    assert not torch.equal(weights(after), weights(before))


def test_mixup_mixes_what_the_network_sees_and_what_it_is_compared_with(device):
    """The losses are those of a batch that is mixed beforehand."""
    mixup = Mixup(probability=1.0, seed=1)
    data = batch(4, size=4)
    lq, gt = (images.float() / 255 for images in data[:2])
    mixed = TrainingBatch(*mixup(lq, gt, 5), data.names)
    assert not torch.equal(mixed.lq, lq)
    expected = step(build(device), 5, [mixed])
    for name, value in step(build(device, mixup=mixup), 5, [data]).items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5)


def test_micro_batches_are_mixed_differently(device):
    mixup = Mixup(probability=1.0)
    data = batch(4, size=4)
    shown = step(build(device, mixup=mixup), 0, [data, data])["loss"].item()
    alone = [
        step(build(device), 0, [TrainingBatch(*mixup(*images, 0, part), data.names)])["loss"].item()
        for part in (0, 1)
        for images in [[each.float() / 255 for each in data[:2]]]
    ]
    assert alone[0] != alone[1]
    assert shown == pytest.approx(sum(alone) / 2, rel=1e-5)


class Wide(TwoStages):
    """Network with a weight that MuonAdamW takes for a matrix, and numbers first."""

    def __init__(self):
        super().__init__()
        widths = (3, 8, 8, 3)
        layers = [nn.Conv2d(*each, 3, padding=1) for each in itertools.pairwise(widths)]
        self.second = nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("network", "optimizer"), [(TwoStages, torch.optim.AdamW), (Wide, MuonAdamW)]
)
def test_a_fused_optimizer_resumes_from_moments_of_another_layout(network, optimizer):
    """Moments of a sharded run are contiguous; the fused kernel ignores strides."""

    def model():
        fused = functools.partial(optimizer, fused=True)
        return build(torch.device("cpu"), optimizer=fused, network=network)

    straight, resumed = model(), model()
    for each in (straight, resumed):
        each.network.to(memory_format=torch.channels_last)
    step(straight, 0, [batch(1)])
    state = copy.deepcopy(straight.state_dict())
    for moments in state["optimizer"]["state"].values():
        moments.update({k: v.contiguous() for k, v in moments.items()})
    resumed.load_state_dict(state)
    for each in (straight, resumed):
        step(each, 1, [batch(2)])
    assert torch.equal(weights(straight), weights(resumed))


def test_a_state_of_another_model_is_an_error(device):
    with pytest.raises(CheckpointError, match="ema_decay"):
        build(device).load_state_dict(build(device, ema_decay=0.9).state_dict())
    state = build(device).state_dict()
    del state["network"]["first.weight"]
    with pytest.raises(CheckpointError, match="another network or optimizer"):
        build(device).load_state_dict(state)
