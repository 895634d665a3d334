import pytest
import torch
import torch.distributed as dist

from basicsr.utils.distributed import World, distributed_world
from basicsr.utils.errors import OptionsError, UserError


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed_world(torch.device("cpu"), timeout=1) as world:
        assert world == World(0, 1)
        assert world.is_main
        assert world.sum([1, 2.5]) == [1, 2.5]
        assert world.gather("x") == ["x"]
        assert not dist.is_initialized()


def test_different_values_are_an_error(monkeypatch):
    world = World(0, 2)
    monkeypatch.setattr(World, "gather", lambda self, value: [8, 4])
    with pytest.raises(UserError, match=r"different values \(\[8, 4\]\) of the checkpoint"):
        world.require_same(8, "the checkpoint")


def test_restarts_that_cannot_work_are_refused(monkeypatch):
    torchrun = {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "TORCHELASTIC_MAX_RESTARTS": "3",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(OptionsError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"),
        distributed_world(torch.device("cpu"), timeout=1),
    ):
        pass
