"""Mixup: its statistics, and what it is a function of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from basicsr.models.mixup import Mixup


def identified(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return patches whose values are one-hot, so that shares can be read from the result."""
    lq = torch.eye(samples)[:, :, None, None].expand(-1, -1, 2, 3)
    return lq, lq + 10


def drawn(mixup: Mixup, iterations: int, samples: int = 4) -> list[np.ndarray]:
    """Return the matrices of shares, samples x samples, of the mixed batches."""
    lq, gt = identified(samples)
    matrices = []
    for iteration in range(iterations):
        mixed_lq, mixed_gt = mixup(lq, gt, iteration)
        assert torch.allclose(mixed_gt - 10, mixed_lq, atol=1e-5)  # mixed alike
        if mixed_lq is not lq:
            matrices.append(mixed_lq[:, :, 0, 0].numpy())
    return matrices


def shares(matrix: np.ndarray) -> np.ndarray:
    """Return the shares of the own patches, for those with another partner."""
    own = matrix.diagonal()
    return own[own < 1 - 1e-6]


def test_one_share_for_the_batch_from_beta_with_a_fair_coin() -> None:
    matrices = drawn(Mixup(), 2000)
    assert stats.binomtest(len(matrices), 2000, 0.5).pvalue > 1e-3
    values = []
    for matrix in matrices:
        assert np.allclose(matrix.sum(1), 1, atol=1e-5)
        own = shares(matrix)
        assert np.ptp(own) < 1e-6 if len(own) else True
        values.extend(own[:1])
    assert stats.kstest(values, stats.beta(1.2, 1.2).cdf).pvalue > 1e-3


def test_partners_are_a_random_permutation() -> None:
    matrices = drawn(Mixup(probability=1.0), 3000)
    partners = np.zeros((4, 4))
    for matrix in matrices:
        assert np.allclose(matrix.sum(0), 1, atol=1e-5)  # each patch is a partner once
        others = matrix - np.diag(matrix.diagonal())
        partners += others > 1e-6
    assert np.abs(partners[~np.eye(4, dtype=bool)] / 3000 - 0.25).max() < 0.04


def test_a_share_for_each_sample() -> None:
    """MPRNet's denoising: Beta(0.6, 0.6), always, after the first epochs."""
    mixup = Mixup(beta=0.6, probability=1.0, per_sample=True, start_iter=100)
    matrices = drawn(mixup, 1100)
    assert len(matrices) == 1000
    values = np.concatenate([shares(matrix) for matrix in matrices])
    assert np.ptp(shares(next(m for m in matrices if len(shares(m)) == 4))) > 0
    assert stats.kstest(values, stats.beta(0.6, 0.6).cdf).pvalue > 1e-3


def test_it_is_a_function_of_seed_iteration_and_part() -> None:
    lq, gt = identified(5)
    always = Mixup(probability=1.0, seed=7)
    first = always(lq, gt, 12, 1)[0]
    torch.manual_seed(99)
    assert torch.equal(always(lq, gt, 12, 1)[0], first)
    for other in (always(lq, gt, 13, 1), always(lq, gt, 12, 0), Mixup(1.2, 1.0)(lq, gt, 12, 1)):
        assert not torch.equal(other[0], first)


@pytest.mark.parametrize("start_iter", [0, 3])
def test_a_single_pair_and_the_first_iterations_stay_as_they_are(start_iter) -> None:
    mixup = Mixup(probability=1.0, start_iter=start_iter)
    lq, gt = torch.rand(2, 1, 3, 4, 4)
    assert mixup(lq, gt, 5)[0] is lq
    lq, gt = torch.rand(2, 3, 3, 4, 4)
    assert (mixup(lq, gt, 2)[0] is lq) == (start_iter == 3)


def test_the_memory_layout_stays() -> None:
    lq, gt = torch.rand(2, 4, 3, 5, 6).to(memory_format=torch.contiguous_format)
    lq, gt = (images.contiguous(memory_format=torch.channels_last) for images in (lq, gt))
    mixed = Mixup(probability=1.0)(lq, gt, 0)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in mixed)
