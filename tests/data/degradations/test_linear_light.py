from __future__ import annotations

import numpy as np
import pytest

from basicsr.data.degradations.linear_light import from_linear, to_linear


def test_known_values():
    levels = np.array([0, 10, 128, 255], np.uint8)
    expected = [0, 0.0030352698, 0.2158605, 1]  # IEC 61966-2-1
    np.testing.assert_allclose(to_linear(levels), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_comes_back(dtype):
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    back = from_linear(to_linear(levels), dtype)
    assert back.dtype == dtype
    # float32 light has about one 16-bit level of rounding
    assert np.abs(back.astype(int) - levels).max() <= (0 if dtype == np.uint8 else 1)


def test_floats_come_back():
    image = np.linspace(0, 1, 1001, dtype=np.float32)
    back = from_linear(to_linear(image), np.float32)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, image, atol=1e-6)


def test_light_out_of_range_is_clipped():
    assert from_linear(np.array([-0.5, 1.5], np.float32), np.uint8).tolist() == [0, 255]
    assert to_linear(np.array([-0.5, 1.5], np.float32)).tolist() == [0, 1]
