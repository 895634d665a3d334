import pytest
import torch

from basicsr.inference.tiling import restore_tiles, tile_spans


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (5, [(0, 5)]),
        (8, [(0, 8)]),
        (9, [(0, 8), (1, 9)]),
        (20, [(0, 8), (6, 14), (12, 20)]),
        (21, [(0, 8), (6, 14), (12, 20), (13, 21)]),
    ],
)
def test_spans_cover_the_length_and_end_with_it(length, expected):
    assert tile_spans(length, tile=8, overlap=2) == expected


def test_neighbouring_tiles_are_blended_linearly():
    levels = iter([0.0, 1.0])

    def constant(tile):
        return torch.full_like(tile, next(levels))

    restored = restore_tiles(constant, torch.zeros(1, 1, 1, 10), tile=6, overlap=2)
    assert restored.flatten().tolist() == pytest.approx([0] * 4 + [1 / 3, 2 / 3] + [1] * 4)


@pytest.mark.parametrize(("channels", "out_channels"), [(6, 3), (1, 1), (3, 1)])
def test_tiles_may_have_other_channels_than_the_image(channels, out_channels):
    image = torch.rand(2, channels, 13, 20)
    restored = restore_tiles(lambda tile: 2 * tile[:, :out_channels], image, tile=8, overlap=3)
    torch.testing.assert_close(restored, 2 * image[:, :out_channels])
