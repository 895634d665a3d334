from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr.data import ImagePair
from basicsr.data.sampling import draw_patch


def _places(height: int, width: int) -> ImagePair:
    """Return a pair whose levels are the coordinates of the pixel."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, np.zeros_like(y)], axis=2).astype(np.uint8)
    return ImagePair(image, image.copy())


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 48),
    seed=st.integers(0, 2**32),
    use_hflip=st.booleans(),
    use_rot=st.booleans(),
)
def test_any_patch(height, width, size, seed, use_hflip, use_rot):
    pair = _places(height, width)
    lq, gt = draw_patch(
        pair, size, np.random.default_rng(seed), use_hflip=use_hflip, use_rot=use_rot
    )
    assert lq.shape == (size, size, 3)
    assert lq.flags.c_contiguous
    np.testing.assert_array_equal(lq, gt)
    assert lq[..., 0].max() < height
    assert lq[..., 1].max() < width
    if size <= min(height, width):  # cut out, so a square of neighbours
        assert np.ptp(lq[..., 0]) == np.ptp(lq[..., 1]) == size - 1


def test_a_small_image_is_extended_by_reflection():
    row = ImagePair(np.uint8([[[1] * 3, [2] * 3, [3] * 3]]), None)
    lq, gt = draw_patch(row, 5, np.random.default_rng(0), use_hflip=False, use_rot=False)
    assert lq[..., 0].tolist() == [[1, 2, 3, 2, 1]] * 5
    assert gt is None


def _orientations(**flags: bool) -> set[bytes]:
    pair = _places(4, 4)
    return {
        draw_patch(pair, 4, np.random.default_rng(seed), **flags).lq.tobytes()
        for seed in range(200)
    }


def test_orientations():
    assert len(_orientations(use_hflip=False, use_rot=False)) == 1
    assert len(_orientations(use_hflip=True, use_rot=False)) == 2
    assert len(_orientations(use_hflip=False, use_rot=True)) == 4
    assert len(_orientations(use_hflip=True, use_rot=True)) == 8


def test_every_position_is_drawn():
    pair = _places(6, 5)
    corners = {
        tuple(
            draw_patch(pair, 4, np.random.default_rng(seed), use_hflip=False, use_rot=False).lq[
                0, 0, :2
            ]
        )
        for seed in range(200)
    }
    assert corners == {(y, x) for y in range(3) for x in range(2)}
