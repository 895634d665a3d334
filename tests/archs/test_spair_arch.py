import pytest
import torch

from basicsr.archs import build_network, from_released
from basicsr.archs.spair_arch import SPAIR, SparseAttention, SparseConv, average_cells, modulate
from basicsr.utils.errors import CheckpointError, OptionsError

SMALL = {"dim": 8, "localization_dim": 8, "num_blocks": (1, 1, 1), "heads": 2, "grid": 4}


@pytest.fixture
def small() -> SPAIR:
    torch.manual_seed(0)
    return SPAIR(**SMALL).eval()


@pytest.fixture
def half() -> torch.Tensor:
    """A mask, 1 on the left half and 0 on the right one."""
    mask = torch.zeros(2, 1, 16, 24)
    mask[..., :12] = 1
    return mask


def features(half: torch.Tensor, channels: int = 4) -> torch.Tensor:
    """Random features whose left half has another mean and deviation than the right one."""
    x = torch.randn(2, channels, *half.shape[2:], generator=torch.Generator().manual_seed(1))
    return x * (1 + 2 * half) + 5 * half


def test_it_states_that_it_is_a_reconstruction():
    assert SPAIR.reconstruction is True
    assert "reconstruction" in (SPAIR.__doc__ or "")
    with pytest.raises(CheckpointError, match="SPAIR: there are no published weights"):
        from_released("SPAIR", {})


def test_default_size():
    net = build_network({"type": "SPAIR"})
    assert sum(p.numel() for p in net.parameters()) == 4_588_496


def test_sfm_gives_the_inside_the_statistics_of_the_outside(half):
    x = features(half)
    moved = modulate(x, half)
    inside, outside = moved[..., :12], moved[..., 12:]
    torch.testing.assert_close(outside, x[..., 12:])
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(
            statistic(inside, dim=(2, 3)), statistic(outside, dim=(2, 3)), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_sfm_leaves_features_alone_where_one_side_is_empty(half, value):
    x = features(half)
    moved = modulate(x, torch.full_like(half, value))
    torch.testing.assert_close(moved, x, rtol=1e-3, atol=1e-3)


def test_sparse_conv_neither_sees_nor_writes_clean_pixels(half):
    torch.manual_seed(0)
    conv, x = SparseConv(4), features(half)
    torch.nn.init.normal_(conv.bias)
    other = torch.where(half.bool(), x, torch.randn_like(x))
    result = conv(x, half)
    torch.testing.assert_close(result, conv(other, half))
    assert result[..., 12:].abs().max() == 0
    assert result[..., :12].abs().min() > 0


def test_sparse_conv_does_not_fade_at_the_border_of_the_mask(half):
    conv = SparseConv(1)
    torch.nn.init.constant_(conv.weight, 1 / 9)
    result = conv(torch.ones_like(half), half)
    torch.testing.assert_close(result, half)
    inner = torch.nn.functional.conv2d(features(half, 1), conv.weight)
    whole = conv(features(half, 1), torch.ones_like(half))
    torch.testing.assert_close(whole[..., 1:-1, 1:-1], inner, rtol=1e-4, atol=1e-5)


def test_attention_brings_clean_features_to_degraded_pixels_only(half):
    torch.manual_seed(0)
    attention, x = SparseAttention(4, heads=2, grid=4), features(half)
    result = attention(x, half)
    torch.testing.assert_close(result[..., 12:], x[..., 12:])

    clean_changed, degraded_changed = x.clone(), x.clone()
    clean_changed[0, :, 3, 20] += 100
    degraded_changed[0, :, 3, 3] += 100
    far = (0, slice(None), slice(8, 16), slice(0, 12))
    assert (attention(clean_changed, half)[far] - result[far]).abs().max() > 1e-3
    unseen = (attention(degraded_changed, half)[far] - result[far]).abs().max()
    assert unseen < 1e-2 * (attention(clean_changed, half)[far] - result[far]).abs().max()
    torch.testing.assert_close(attention(clean_changed, half)[1], result[1])


def test_references_are_averages_over_clean_pixels(half):
    attention, x = SparseAttention(4, heads=1, grid=2), features(half)
    averages, share = attention.references(x, half)
    assert averages.shape == (2, 4, 4)
    torch.testing.assert_close(averages[:, :, 1], x[:, :, :8, 12:].mean((2, 3)))
    torch.testing.assert_close(averages[:, :, 0], x[:, :, :8, :12].mean((2, 3)))
    torch.testing.assert_close(share[0, 0, [1, 3]], torch.ones(2))
    assert share[0, 0, [0, 2]].max() < 1e-4


def test_references_stay_few_on_large_images():
    attention = SparseAttention(4, heads=1, grid=4)
    averages, _ = attention.references(torch.rand(1, 4, 90, 70), torch.rand(1, 1, 90, 70))
    assert averages.shape[2] == 16


def test_first_stage_is_the_degraded_image_with_its_mask(small):
    images = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        masked, restored = small(images, all_stages=True)
        torch.testing.assert_close(small(images), restored)
        torch.testing.assert_close(small.localize(images), masked[:, 3:])
    assert torch.equal(masked[:, :3], images)
    assert masked.shape == (2, 4, 16, 24)
    assert 0 < masked[:, 3].min() <= masked[:, 3].max() < 1


@pytest.mark.parametrize("size", [(4, 4), (4, 36), (28, 20)])
def test_any_multiple_of_four_and_any_batch_will_do(small, size):
    assert small.size_multiple == 4
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        restored, alone = small(images), small(images[1:])
    assert restored.shape == images.shape
    torch.testing.assert_close(restored[1:], alone, rtol=1e-4, atol=1e-5)


def test_it_learns_to_find_and_to_remove_rain(small):
    torch.manual_seed(0)
    clean = 0.5 * torch.rand(2, 3, 1, 1).expand(2, 3, 16, 16)
    rain = (torch.rand(2, 1, 16, 16) > 0.8).float()
    rainy = clean + 0.5 * rain * (1 - clean)
    optimizer = torch.optim.Adam(small.train().parameters(), 5e-3)
    losses = []
    for _ in range(30):
        masked, restored = small(rainy, all_stages=True)
        removed = (restored - clean).abs().mean()
        found = torch.nn.functional.binary_cross_entropy(masked[:, 3:], rain)
        optimizer.zero_grad()
        (removed + found).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in small.parameters())
        optimizer.step()
        losses.append((removed.item(), found.item()))
    assert losses[-1][0] < 0.6 * losses[0][0]
    assert losses[-1][1] < 0.3  # knowing only how many pixels are degraded would give 0.5


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"num_blocks": (1, 1)}, r"num_blocks\[2\]: required, but missing"),
        ({"heads": 3}, r"does not divide 4 \* dim = 32"),
    ],
)
def test_inconsistent_options_are_refused(options, fault):
    with pytest.raises(OptionsError, match=fault):
        SPAIR(**{**SMALL, **options})


@pytest.mark.parametrize("cells", [(4, 4), (3, 5), (7, 9)])
def test_averages_of_cells_in_exported_networks(cells, monkeypatch):
    x = torch.rand(2, 3, 7, 9)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, cells)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(average_cells(x, cells), expected)
