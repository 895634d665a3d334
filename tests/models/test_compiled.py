"""Training steps with torch.compile, which takes a minute for a network on a CPU."""

import pytest
import torch

from basicsr.archs import build_network
from basicsr.data import TrainingBatch
from basicsr.losses import build_losses
from basicsr.models.restoration_model import RestorationModel, StepSettings


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["none", "selective"])
def test_a_compiled_step_of_dtpnet_is_the_same(device, checkpointing):
    def trained(compiled: bool) -> tuple[list[torch.Tensor], torch.nn.Module]:
        torch.manual_seed(0)
        options = {
            "type": "DTPNet-T",
            "num_blocks": (1, 1, 1, 1),
            "recurrent_iter": 1,
            "activation_checkpointing": checkpointing,
        }
        network = build_network(options).to(device, memory_format=torch.channels_last)
        losses = build_losses([{"type": "L1Loss"}, {"type": "MSELoss", "stage": 0}])
        model = RestorationModel(
            network,
            losses.to(device),
            lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            lambda iteration, rate: rate,
            device,
            StepSettings(compiled=compiled),
        )
        images = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8)
        shown = []
        for iteration in range(2):
            losses_of_step, finite, _ = model.optimize_parameters(
                iteration, [TrainingBatch(*images, ["a", "b"])]
            )
            assert finite
            shown.append(losses_of_step["loss"])
        return shown, network

    (eager_losses, eager), (losses, compiled) = trained(False), trained(True)
    torch.testing.assert_close(losses, eager_losses, rtol=1e-5, atol=1e-6)
    for parameter, expected in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-5)
