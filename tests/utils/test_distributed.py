import pytest
import torch
import torch.distributed as dist

from basicsr.utils.distributed import World, distributed_world, require_launched
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


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400"}
COMMAND = "basicsr/train.py -opt a.yml"


@pytest.mark.parametrize(
    ("launcher", "local_rank", "launched"),
    [("none", 0, False), ("none", 0, True), ("pytorch", 0, True), ("pytorch", 1, True)],
)
def test_launchers_that_work(monkeypatch, launcher, local_rank, launched):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value) if launched else monkeypatch.delenv(name, raising=False)
    require_launched(launcher, local_rank, COMMAND)


@pytest.mark.parametrize(
    ("launcher", "local_rank", "message"),
    [
        ("pytorch", 0, "--launcher pytorch: this process was started alone; start with torchrun"),
        ("none", 1, "--local_rank 1: this process was started alone; start with torchrun"),
        ("slurm", 0, "--launcher slurm: not supported; have srun start one torchrun on each node"),
    ],
)
def test_launchers_that_do_not_work_name_torchrun(monkeypatch, launcher, local_rank, message):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OptionsError) as caught:
        require_launched(launcher, local_rank, COMMAND)
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(COMMAND)


def test_half_an_environment_of_torchrun_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OptionsError, match="but RANK, MASTER_ADDR, MASTER_PORT not; unset it, or"):
        require_launched("none", 0, COMMAND)
