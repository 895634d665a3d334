"""Layouts of the deraining sets."""

from __future__ import annotations

from collections.abc import Mapping

from basicsr.data.layouts.base import Folders, Layout, SideBySide
from basicsr.data.layouts.lists import PairList

_REPACKED = Folders("input", "target")  # most sets, as Restormer and MPRNet repacked them
_RAIN_NORAIN = Folders("rain", "norain")
_NUMBERED = (r"rain-(\d+)", r"norain-\d+", r"norain-\1", "rain-001.png with norain-001.png")
_RAIN100 = (Folders("rainy", "norain", *_NUMBERED), Folders(".", ".", *_NUMBERED), _REPACKED)
# rain-1, norain-1, rainstreak-1 and rainregion-1 in one folder, as the PReNet authors share them;
# of the 1800 rainy images of RainTrainH, they removed 546 that show scenes of the test set
_PRENET = Folders(".", ".", *_NUMBERED, spare_gt=True)
_RAIN_TRAIN = (_RAIN_NORAIN, Folders("rain", "norain", *_NUMBERED), _REPACKED, _PRENET)
_RAIN200 = (
    Folders(
        "rain", "norain", r"(?:X2/)?(norain-\d+)x2", example="norain-1x2.png with norain-1.png"
    ),
    _REPACKED,
)
_RAIN800 = (_REPACKED, Folders("rain", "norain", *_NUMBERED), SideBySide("right"))
_DID_MDN = (_REPACKED, SideBySide("left", "Rain_*"))
_FOURTEEN = Folders(
    "rainy_image", "ground_truth", r"(.+)_\d+", example="901_1.jpg to 901_14.jpg with 901.jpg"
)
_RAIN1400 = (_FOURTEEN, _FOURTEEN._replace(lq_folder="rain", gt_folder="norain"), _REPACKED)
_RAINDROP = tuple(
    Folders(rainy, clean, "(.+)_rain", ".+", r"\1_clean", "0_rain.png with 0_clean.png")
    for rainy, clean in (("data", "gt"), ("rain_image", "clean_image"))
)
_KITTI = Folders(
    "image_2_3_rain50",
    "image_2",
    r"(\d+_\d+)_rain_(\d)_50",
    ".+",
    r"\1_norain_\2",
    "000000_00_rain_2_50.jpg with 000000_00_norain_2.png",
)

LAYOUTS: Mapping[str, Layout] = {
    "Rain100L": _RAIN100,
    "Rain100H": _RAIN100,
    "RainTrainL": _RAIN_TRAIN,
    "RainTrainH": _RAIN_TRAIN,
    "Rain200L": _RAIN200,
    "Rain200H": _RAIN200,
    "Rain12": (
        Folders(".", ".", r"(\d+)_in", r"\d+_GT", r"\1_GT", "001_in.png with 001_GT.png"),
        *_RAIN100,
    ),
    "Rain800": _RAIN800,
    "Test100": _RAIN800,
    "DID-MDN": _DID_MDN,
    "Test1200": _DID_MDN,
    "DID-Data": (
        Folders("input", "GT", "(.+)[HL]", example="xH.jpg and xL.jpg with x.jpg"),
        _RAIN_NORAIN,
    ),
    "Rain1400": _RAIN1400,
    "DDN": _RAIN1400,
    "Test2800": _RAIN1400,
    "Rain13K": (_REPACKED,),
    "SPA-Data": (
        _RAIN_NORAIN,
        Folders("rain", "gt", gt_name=r"\1gt", example="000.png with 000gt.png"),
        _REPACKED,
        PairList("real_world.txt"),
        PairList("real_test_1000.txt"),
    ),
    "RainDrop": _RAINDROP,
    "RainKITTI2015": (_KITTI, _KITTI._replace(gt_folder="image_2_3_norain")),
}
