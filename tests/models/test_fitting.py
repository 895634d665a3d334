import pytest

from basicsr.archs import RestorationNetwork
from basicsr.data import ImagePair, RestorationDataset
from basicsr.models.fitting import require_fitting
from basicsr.utils.errors import OptionsError


class Images(RestorationDataset):
    def __init__(self, lq_channels, gt_channels):
        self.lq_channels, self.gt_channels = lq_channels, gt_channels
        self.has_gt = gt_channels is not None

    def read(self, index) -> ImagePair:
        raise NotImplementedError

    def files(self, index):
        raise NotImplementedError


@pytest.mark.parametrize("channels", [(3, 3), (1, 1), (6, 3), (6, None)])
def test_equal_channels_fit(channels):
    in_channels, out_channels = channels
    require_fitting(
        RestorationNetwork(in_channels, out_channels or 3), Images(*channels), "datasets.val"
    )


@pytest.mark.parametrize(
    ("network", "images", "message"),
    [
        ((3, 3), (1, 1), "has lq of 1 and gt of 1 channels, but RestorationNetwork maps 3 to 3"),
        ((6, 3), (6, 1), "has lq of 6 and gt of 1 channels, but RestorationNetwork maps 6 to 3"),
        ((6, 3), (3, None), "has lq of 3 channels, but RestorationNetwork maps 6 to 3"),
    ],
)
def test_other_channels_are_a_one_line_error_with_both_names(network, images, message):
    with pytest.raises(OptionsError) as error:
        require_fitting(RestorationNetwork(*network), Images(*images), "datasets.test_1")
    assert str(error.value).startswith(f"datasets.test_1: Images {message}")
    assert "\n" not in str(error.value)
