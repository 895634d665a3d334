import pytest
import torch
from torch import nn

from basicsr.models.weight_average import WeightAverage


def test_the_decay_grows_from_a_tenth_to_its_limit():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = WeightAverage(network, decay=0.25)
    expected = 1.0
    for update, decay in enumerate([1 / 10, 2 / 11, 0.25, 0.25]):
        network.weight.data.fill_(update + 2.0)
        average.update(network)
        expected = decay * expected + (1 - decay) * (update + 2)
        assert average.network.weight.item() == pytest.approx(expected, rel=1e-6)


def test_buffers_follow_and_gradients_do_not():
    network = nn.BatchNorm2d(2)
    average = WeightAverage(network, decay=0.9)
    network.train()(torch.rand(4, 2, 3, 3) + 5)
    average.update(network)
    assert average.network.num_batches_tracked == 1
    assert torch.allclose(average.network.running_mean, 0.9 * network.running_mean)
    assert not any(p.requires_grad for p in average.network.parameters())


def test_a_rejected_update_changes_nothing():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = WeightAverage(network, decay=0.9)
    network.weight.data.fill_(2.0)
    average.update(network, torch.tensor(False))
    assert (average.updates, average.network.weight.item()) == (0, 1.0)
    average.update(network, torch.tensor(True))
    assert (average.updates, average.network.weight.item()) == (1, pytest.approx(1.9))
