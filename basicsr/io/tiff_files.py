"""Write TIFF files with the tags of the file they were read from; Pillow writes no 16-bit RGB."""

from __future__ import annotations

import io
import itertools
import zlib
from typing import Literal, NamedTuple

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from basicsr.io.metadata import is_sound_profile

_ICC_TAG, _EXIF_TAG, _GPS_TAG, _INTEROPERABILITY_TAG = 34675, 34665, 34853, 40965
ORIENTATION_TAG = 274
_LAYOUT = frozenset(
    # how the pixels are stored, which the new file says itself
    {*range(254, 260), 262, 263, 264, 265, 266, 273, *range(277, 282), 284, 288, 289, 290, 291}
    | {292, 293, 297, 317, 320, 321, *range(322, 326), 332, 333, 334, 336, 338, 339, 340, 341}
    | {347, *range(512, 522), *range(529, 533)}
)
_ELSEWHERE = {330: "further images", 400: "tag 400", 37724: "layers", 34377: "the preview"}
"""Tags that describe the original image, or that hold positions in the original file."""
_ROWS = 64  # per strip
_MOST_PAGES = 64


class Tags(NamedTuple):
    """Tags to write, and in words what is left out."""

    kept: ImageFileDirectory_v2
    left_out: tuple[str, ...]


def descriptive_tags(image: TiffImageFile, gray: bool) -> Tags:
    """Return the tags to keep. Pillow drops some when it decodes the image: call it before."""
    source, kept = image.tag_v2, ImageFileDirectory_v2()
    left_out = []
    for tag in sorted(set(source) - _LAYOUT - {_EXIF_TAG, _GPS_TAG, _INTEROPERABILITY_TAG}):
        if tag in _ELSEWHERE:
            left_out.append(_ELSEWHERE[tag])
        elif not _copied(source, tag, kept):
            left_out.append(f"tag {tag}")
        elif tag == _ICC_TAG and not is_sound_profile(source[tag], gray):
            del kept[tag]
            left_out.append("the ICC profile")
    for tag in (_EXIF_TAG, _GPS_TAG):
        if tag not in source:
            continue
        try:
            fields = dict(image.getexif().get_ifd(tag))
            fields.pop(_INTEROPERABILITY_TAG, None)  # an offset in the original file
            trial = ImageFileDirectory_v2()
            trial[tag] = fields
            trial.tobytes()
        except Exception:  # Pillow raises anything for damaged tags
            left_out.append("damaged EXIF entries")
            continue
        if fields:
            kept[tag] = fields
    return Tags(kept, tuple(left_out))


def _copied(source: ImageFileDirectory_v2, tag: int, kept: ImageFileDirectory_v2) -> bool:
    trial = ImageFileDirectory_v2()
    try:
        for directory in (trial, kept):
            directory.tagtype[tag] = source.tagtype[tag]
            directory[tag] = source[tag]
            trial.tobytes()
    except Exception:
        kept.pop(tag, None)
        return False
    return True


def alpha_kind(image: TiffImageFile) -> int:
    """Return TIFF's ExtraSamples: 1 for colours multiplied by alpha, else 2.

    Pillow decodes 8-bit images to the latter.
    """
    return 1 if 16 in image.tag_v2.get(258, ()) and image.tag_v2.get(338) == (1,) else 2


def further_pages(image: TiffImageFile) -> Literal["none", "smaller", "others"]:
    """Return whether the file has pages beside the first one, or only smaller versions of it."""
    found: Literal["none", "smaller"] = "none"
    try:
        for page in range(1, _MOST_PAGES):
            image.seek(page)
            if not int(image.tag_v2.get(254, 0)) & 0b101:  # reduced in size, or a mask
                return "others"
            found = "smaller"
    except EOFError:
        return found
    finally:
        image.seek(0)
    return "others"


def encode_tiff(image: np.ndarray, tags: ImageFileDirectory_v2, alpha: int) -> bytes:
    """Encode H x W x C as TIFF 6.0 with Deflate and horizontal differencing."""
    height, width, channels = image.shape
    differences = image.astype(image.dtype.newbyteorder("<"))
    differences[:, 1:] -= image[:, :-1]
    strips = [
        zlib.compress(differences[top : top + _ROWS].tobytes()) for top in range(0, height, _ROWS)
    ]
    sizes = [len(strip) for strip in strips]
    layout = {
        256: width,
        257: height,
        258: (8 * image.itemsize,) * channels,
        259: 8,  # Deflate
        262: 1 if channels < 3 else 2,  # black is zero, or RGB
        273: (0, *itertools.accumulate(sizes[:-1])),  # strip offsets; Pillow adds the tags' length
        277: channels,
        278: _ROWS,
        279: tuple(sizes),
        317: 2,  # horizontal differences
    }
    if channels % 2 == 0:
        layout[338] = alpha
    for tag, value in layout.items():
        tags[tag] = value
    file = io.BytesIO()
    tags.save(file)
    return file.getvalue() + b"".join(strips)
