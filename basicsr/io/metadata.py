"""Check the metadata of photographs, so that only what other programs can read is written."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from typing import NamedTuple

from PIL import Image, ImageCms

ORIENTATION = 0x0112
"""EXIF tag of the orientation."""
_EXIF_POINTER, _GPS_POINTER, _INTEROPERABILITY_POINTER = 34665, 34853, 40965
_POINTERS = frozenset({_EXIF_POINTER, _GPS_POINTER, _INTEROPERABILITY_POINTER})
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LARGEST_TEXT = 2**24
"""Bytes of the largest compressed note that is kept."""
_MOST_ENTRIES = 300


class Kept(NamedTuple):
    """Metadata to write, and in words what is left out of it."""

    data: bytes
    left_out: tuple[str, ...] = ()


def kept_exif(exif: bytes) -> Kept:
    """Return EXIF data, with or without its `Exif` heading, as it can be written.

    The preview is left out, since it shows the original image. Of damaged data the readable entries
    are kept.
    """
    heading = b"Exif\0\0" if exif.startswith(b"Exif\0\0") else b""
    if not is_sound_exif(exif):
        readable = _readable_entries(exif)
        return Kept(heading + readable if readable else b"", ("damaged EXIF entries",))
    without = without_preview(exif)
    return Kept(without, () if without == exif else ("the preview inside EXIF",))


def is_sound_exif(exif: bytes) -> bool:
    """Return whether every entry of the EXIF data lies within it."""
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return False
    try:
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        pending, seen = [first], set()
        while pending:
            offset = pending.pop()
            if offset in seen:
                return False
            seen.add(offset)
            (entries,) = struct.unpack_from(f"{order}H", data, offset)
            if offset == first:  # the preview's offset; some cameras end the file before others
                struct.unpack_from(f"{order}I", data, offset + 2 + 12 * entries)
            for number in range(entries):
                at = offset + 2 + 12 * number
                tag, kind, count, value = struct.unpack_from(f"{order}HHII", data, at)
                size = _TYPE_BYTES[kind] * count
                if size > 4 and value + size > len(data):
                    return False
                if tag in _POINTERS:
                    pending.append(value)
    except (struct.error, KeyError):
        return False
    return True


def without_preview(exif: bytes) -> bytes:
    """Return EXIF data, with or without its `Exif` heading, without the pointer to a preview."""
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, start + 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start + first)
    except struct.error:  # damaged beyond the point where a reader would find a preview
        return exif
    pointer = start + first + 2 + 12 * entries
    return exif[:pointer] + bytes(len(exif[pointer : pointer + 4])) + exif[pointer + 4 :]


def _readable_entries(exif: bytes) -> bytes:
    """Return new EXIF data with those entries of damaged data that can be read and written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Image.Exif()
        try:
            found.load(exif)
            entries = dict(found)
        except Exception:  # Pillow raises anything for damaged EXIF
            return b""
        kept = Image.Exif()
        for tag, value in list(entries.items())[:_MOST_ENTRIES]:
            if tag not in _POINTERS and _can_be_written(tag, value):
                kept[tag] = value
        for pointer in (_EXIF_POINTER, _GPS_POINTER):
            try:
                section = dict(found.get_ifd(pointer))
            except Exception:
                continue
            section = {
                tag: value
                for tag, value in list(section.items())[:_MOST_ENTRIES]
                if tag not in _POINTERS and _can_be_written(tag, value)
            }
            if section:
                kept[pointer] = section
        if not kept:
            return b""
        written = kept.tobytes().removeprefix(b"Exif\0\0")
    return written if is_sound_exif(written) and len(written) < 65000 else b""


def _can_be_written(tag: int, value: object) -> bool:
    trial = Image.Exif()
    trial[tag] = value
    try:
        return is_sound_exif(trial.tobytes())
    except Exception:
        return False


def is_sound_profile(profile: bytes, gray: bool) -> bool:
    """Return whether an ICC profile can be read, and is one for gray images or for RGB."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != ("GRAY" if gray else "RGB"):
            return False
        mode = "L" if gray else "RGB"
        ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
        return True
    except Exception:  # LittleCMS raises anything for damaged profiles
        return False


def is_sound_png_chunk(kind: bytes, data: bytes, gray: bool) -> bool:
    """Return whether a descriptive chunk of a gray or RGB PNG file holds what its type says."""
    sizes = {b"cHRM": 32, b"gAMA": 4, b"sRGB": 1, b"cICP": 4, b"mDCV": 24, b"cLLI": 8}
    sizes |= {b"pHYs": 9, b"tIME": 7}
    if len(data) != sizes.get(kind, len(data)):
        return False
    match kind:
        case b"cHRM":
            return _are_chromaticities([each / 1e5 for each in struct.unpack(">8I", data)])
        case b"gAMA":
            return 16 <= int.from_bytes(data, "big") <= 625_000_000
        case b"sRGB":
            return data[0] <= 3
        case b"pHYs":
            return data[8] <= 1
        case b"tIME":
            return _is_time(*struct.unpack(">H5B", data))
        case b"eXIf":
            return is_sound_exif(data)
        case b"iCCP":
            name, _, packed = data.partition(b"\0")
            profile = _unpacked(packed[1:]) if 1 <= len(name) < 80 and packed[:1] == b"\0" else b""
            return is_sound_profile(profile, gray)
        case b"tEXt" | b"zTXt" | b"iTXt":
            return _is_note(kind, data)
    return True


def _are_chromaticities(values: list[float]) -> bool:
    """Return whether white, red, green and blue are colours, and the primaries differ."""
    points = list(zip(values[::2], values[1::2], strict=True))
    if any(x + y > 1 for x, y in points) or points[0][1] < 0.01:
        return False
    (red_x, red_y), (green_x, green_y), (blue_x, blue_y) = points[1:]
    area = (green_x - red_x) * (blue_y - red_y) - (blue_x - red_x) * (green_y - red_y)
    return math.fabs(area) > 1e-4


def _is_time(year: int, month: int, day: int, hour: int, minute: int, second: int) -> bool:
    in_day = hour <= 23 and minute <= 59 and second <= 60
    return year > 0 and 1 <= month <= 12 and 1 <= day <= 31 and in_day


def _is_note(kind: bytes, data: bytes) -> bool:
    keyword, separator, rest = data.partition(b"\0")
    if not 1 <= len(keyword) < 80 or not separator:
        return False
    if kind == b"tEXt":
        return b"\0" not in rest
    if kind == b"zTXt":
        return rest[:1] == b"\0" and bool(_unpacked(rest[1:]))
    parts = rest[2:].split(b"\0", 2)
    if len(rest) < 2 or rest[0] > 1 or rest[1] or len(parts) < 3:
        return False
    text = _unpacked(parts[2]) if rest[0] else parts[2]
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return bool(text) or not parts[2]


def _unpacked(data: bytes) -> bytes:
    """Decompress; return nothing for damaged or very large data."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, _LARGEST_TEXT)
    except zlib.error:
        return b""
    return content if stream.eof else b""
