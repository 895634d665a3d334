import math

import pytest

from basicsr.models.schedules import (
    CosineAnnealingRestartCyclicLR,
    CosineAnnealingRestartLR,
    MultiStepLR,
    warmed_up,
)
from basicsr.utils.errors import OptionsError


def test_multi_step_decays_at_its_milestones():
    rate = MultiStepLR(milestones=(30, 50), gamma=0.2)
    assert [rate(i, 1.0) for i in (0, 29, 30, 49)] == [1.0, 1.0, 0.2, 0.2]
    assert rate(50, 1e-3) == pytest.approx(4e-5)


def test_restormers_schedule_is_constant_and_then_a_cosine():
    rate = CosineAnnealingRestartCyclicLR((92000, 208000), (1.0, 1.0), (3e-4, 1e-6))
    assert rate(0, 3e-4) == rate(91999, 3e-4) == rate(92000, 3e-4) == pytest.approx(3e-4)
    assert rate(92000 + 104000, 3e-4) == pytest.approx((3e-4 + 1e-6) / 2)
    assert rate(300000, 3e-4) == 1e-6


def test_restarts_start_at_their_weight():
    rate = CosineAnnealingRestartLR((100, 100), (1.0, 0.5), eta_min=0.0)
    assert rate(100, 1.0) == 0.5
    assert rate(50, 1.0) == pytest.approx(0.5)
    assert rate(25, 1.0) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert rate(500, 1.0) == 0.0


def test_warm_up_is_linear():
    rate = warmed_up(MultiStepLR((1000,)), 4)
    assert [rate(i, 1.0) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    schedule = MultiStepLR((10,))
    assert warmed_up(schedule, 0) is schedule


def test_one_value_for_each_period():
    with pytest.raises(OptionsError, match="restart_weights: 3 values for 2 periods"):
        CosineAnnealingRestartLR((10, 10), (1.0, 1.0, 1.0))


def test_at_least_one_period():
    with pytest.raises(OptionsError, match="periods: give at least one period"):
        CosineAnnealingRestartLR(())
