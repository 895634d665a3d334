"""Mutated image files of every format: their bytes, chunks, segments, tags, sizes and tails."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from basicsr.io.animations import is_animation, read_animation
from basicsr.io.images import BitDepth, Color, image_format, read_image
from basicsr.io.opening import set_max_megapixels
from basicsr.io.photo_formats import png_chunks
from basicsr.io.photographs import read_photograph
from basicsr.io.sixteen_bits import encode_16_bits
from fuzzing.base import Target, mutated_bytes

SIZES = ((37, 52), (1, 1), (1, 90), (64, 1), (130, 70))
TAIL_BYTES = 2**31
TOKENS = (b"\xff\xd8", b"\xff\xd9", b"\xff\xda\x00\x08", b"\xff\xc4\x00\x04", b"IEND", b"IDAT")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIGNATURE = b"\x89PNG\r\n\x1a\n"
NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


class Images(Target):
    """Images; each is read as those of data sets, or restored as a photograph or animation."""

    name = "images"

    def __init__(self) -> None:
        # a small file may claim any size up to the limit; restoring takes some 20 bytes a pixel
        set_max_megapixels(60)
        self.files = list(_valid_files())

    def make(self, rng: random.Random, folder: Path) -> Path:
        suffix, data = rng.choice(self.files)
        mutate: Callable[[bytes, random.Random], bytes] = rng.choice(
            (
                _bytes_changed,
                _bytes_changed,
                _structure_changed,
                _structure_changed,
                _number_changed,
            )
        )
        data = mutate(data, rng)
        if rng.random() < 0.05:
            data += rng.choice(self.files)[1]
        path = folder / f"image.{suffix if rng.random() < 0.9 else 'jpg'}"
        path.write_bytes(data)
        if rng.random() < 0.02:
            with path.open("r+b") as file:
                file.truncate(TAIL_BYTES)
        return path

    def read(self, path: Path, rng: random.Random) -> None:
        if rng.random() < 0.4:
            _read_for_training(path, rng.choice(get_args(Color)), rng.choice(get_args(BitDepth)))
        elif is_animation(path):
            animation = read_animation(path)
            frames = ((1 - frame.colours / 255.0, frame.alpha) for frame in animation.frames())
            content = animation.encoded(frames)
            _require((animation.height, animation.width), _size(content))
        else:
            _restore_photograph(path)


def _read_for_training(path: Path, color: Color, bit_depth: BitDepth) -> None:
    image = read_image(path, color, bit_depth)
    expected = image_format(path, color, bit_depth)
    # the header does not show an orientation that stands behind the pixels of a PNG
    _require(sorted(expected[:2]), sorted(image.shape[:2]))
    _require(expected[2:], (image.shape[2], image.dtype))


def _restore_photograph(path: Path) -> None:
    photograph = read_photograph(path)
    levels = np.float32(np.iinfo(photograph.colours.dtype).max)
    content = photograph.encoded(1 - photograph.colours / levels)
    again = path.with_name(f"again{path.suffix}")
    again.write_bytes(content)
    written = read_photograph(again)
    _require(written.colours.shape, photograph.colours.shape)
    kept = [words for words in written.left_out if "bits per channel" not in words]
    _require(kept, [])


def _require(found: Any, expected: Any) -> None:
    if tuple(found) != tuple(expected):
        raise AssertionError(f"{found} instead of {expected}")


def _size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        return image.height, image.width


def _valid_files() -> Iterator[tuple[str, bytes]]:
    """Yield suffix and content of valid images of every format, with metadata where it has them."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[271], exif[274] = "Camera", 6
    exif[34665] = {33434: (1, 250), 37500: b"note"}
    metadata = {"exif": exif, "icc_profile": PROFILE, "xmp": b"<x:xmpmeta/>"}
    for height, width in SIZES:
        colours = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        picture = Image.fromarray(colours)
        rgb, gray, palette = picture.convert("RGB"), picture.convert("L"), picture.quantize(17)
        for suffix in ("png", "tif", "bmp", "tga", "ppm", "webp", "avif", "jp2", "gif", "jpg"):
            for image in (rgb, gray):
                yield suffix, _saved(image, suffix)
        for suffix in ("png", "tif", "webp", "avif", "tga"):
            yield suffix, _saved(picture, suffix)
        for suffix in ("png", "tif", "webp", "avif", "jpg"):
            yield suffix, _saved(rgb, suffix, **metadata)
        for suffix in ("png", "tif", "gif", "bmp"):
            yield suffix, _saved(palette, suffix)
            yield suffix, _saved(gray.convert("1"), suffix)
        yield "jpg", _saved(rgb, "jpg", progressive=True)
        yield "jpg", _saved(rgb.convert("CMYK"), "jpg")
        yield "tif", _saved(rgb.convert("CMYK"), "tif")
        yield "jpg", _saved(rgb, "mpo", save_all=True, append_images=[rgb])
        for compression in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits"):
            yield "tif", _saved(rgb, "tif", compression=compression)
        yield "tif", _saved(gray.convert("I"), "tif")
        yield "webp", _saved(rgb, "webp", lossless=True)
        for suffix in ("gif", "png", "webp", "avif", "tif"):
            frames = [rgb.rotate(angle) for angle in (90, 180, 270)]
            yield suffix, _saved(rgb, suffix, save_all=True, append_images=frames, duration=40)
        deep = colours.astype(np.uint16) * 257
        for suffix, channels in (("png", 3), ("png", 4), ("ppm", 3), ("pgm", 1), ("png", 1)):
            yield suffix, encode_16_bits(deep[..., :channels], f".{suffix}")
        if min(height, width) > 32:
            yield "jp2", encode_16_bits(deep[..., :3], ".jp2")
            yield from _heic_files(rgb, metadata)


def _heic_files(image: Image.Image, metadata: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()
    yield "heic", _saved(image, "heif", **metadata)


def _saved(image: Image.Image, suffix: str, **options: Any) -> bytes:
    formats = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    file = io.BytesIO()
    if suffix == "tif" and "xmp" in options:
        tags = ImageFileDirectory_v2()
        tags[700], tags[33550], tags[65001] = options.pop("xmp"), (0.5, 0.5, 0.0), b"private"
        tags.tagtype[33550], options["tiffinfo"] = 12, tags
    image.save(file, formats.get(suffix, suffix.upper()), **options)
    return file.getvalue()


def _bytes_changed(data: bytes, rng: random.Random) -> bytes:
    if data.startswith(SIGNATURE) and rng.random() < 0.7:
        return _png_with(data, rng, lambda content: mutated_bytes(content, rng))
    return mutated_bytes(data, rng, TOKENS)


def _number_changed(data: bytes, rng: random.Random) -> bytes:
    """Replace a number of 2 or 4 bytes, often near the beginning, by one at a border."""
    length = rng.choice((2, 4))
    last = min(len(data), 400 if rng.random() < 0.8 else 10**9) - length
    place = rng.randrange(max(last, 1))
    number = rng.choice(NUMBERS) % 256**length
    changed = data[:place] + number.to_bytes(length, rng.choice(("big", "little")))
    changed += data[place + length :]
    return _png_with(changed, rng, lambda content: content) if data[:8] == SIGNATURE else changed


def _structure_changed(data: bytes, rng: random.Random) -> bytes:
    """Repeat, remove, exchange or add parts of a file."""
    if data.startswith(SIGNATURE):
        return _png_reordered(data, rng)
    if data.startswith(b"\xff\xd8"):
        return _reordered(_jpeg_parts(data), rng)
    if data.startswith((b"II*\0", b"MM\0*")):
        return _tiff_entry_changed(data, rng)
    if data.startswith(b"RIFF"):
        parts = _reordered(list(_riff_parts(data)), rng)
        return data[:4] + struct.pack("<I", len(parts) + 4) + b"WEBP" + parts
    if data[4:8] in (b"ftyp", b"jP  "):
        return _reordered(list(_box_parts(data)), rng)
    return mutated_bytes(data, rng, TOKENS)


def _reordered(parts: list[bytes], rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(parts))
        other = rng.randrange(len(parts))
        change = rng.randrange(4)
        if change == 0:
            parts[place:place] = [parts[other]] * rng.choice((1, 1, 2, 300))
        elif change == 1 and len(parts) > 1:
            del parts[place]
        elif change == 2:
            parts[place], parts[other] = parts[other], parts[place]
        else:
            parts[place] = mutated_bytes(parts[place], rng)
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _png_with(data: bytes, rng: random.Random, change: Callable[[bytes], bytes]) -> bytes:
    """Change one chunk, with a right checksum."""
    chunks = [(kind, content) for kind, content, _ in png_chunks(data)]
    if not chunks:
        return data
    place = rng.randrange(len(chunks))
    kind, content = chunks[place]
    chunks[place] = kind, change(content)
    parts = [_chunk(*each) for each in chunks]
    return SIGNATURE + b"".join(parts) + _chunk(b"IEND", b"")


def _png_reordered(data: bytes, rng: random.Random) -> bytes:
    notes = [
        _chunk(b"cHRM", rng.randbytes(32)),
        _chunk(b"gAMA", struct.pack(">I", rng.choice(NUMBERS))),
        _chunk(b"sRGB", rng.randbytes(1)),
        _chunk(b"iCCP", b"p\0\0" + zlib.compress(rng.choice((PROFILE, b"none", PROFILE[:99])))),
        _chunk(b"tEXt", b"a\0" + rng.randbytes(9)),
        _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(rng.choice((9, 10**6, 10**8))))),
        _chunk(b"iTXt", b"a\0\1\0\0\0" + rng.randbytes(9)),
        _chunk(b"eXIf", b"MM\0*" + rng.randbytes(30)),
        _chunk(b"tRNS", rng.randbytes(rng.choice((1, 2, 6, 99)))),
        _chunk(b"acTL", struct.pack(">II", rng.choice(NUMBERS), 0)),
        _chunk(b"PLTE", rng.randbytes(rng.choice((3, 9, 768)))),
        _chunk(b"zzZz", rng.randbytes(9)),
    ]
    parts = [_chunk(kind, content) for kind, content, _ in png_chunks(data)]
    for _ in range(rng.randint(0, 3)):
        parts.insert(rng.randint(0, len(parts)), rng.choice(notes))
    end = _chunk(b"IEND", b"")
    return SIGNATURE + _reordered([*parts, end], rng) + rng.choice((b"", end, notes[4]))


def _jpeg_parts(data: bytes) -> list[bytes]:
    """Split a JPEG file into its segments; the last part has the scans."""
    at, parts = 2, [data[:2]]
    while at + 4 <= len(data) and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(data[at:end])
        at = end
    return [*parts, data[at:-2], data[-2:]]


def _riff_parts(data: bytes) -> Iterator[bytes]:
    at = 12
    while at + 8 <= len(data):
        size = 8 + (struct.unpack_from("<I", data, at + 4)[0] + 1) // 2 * 2
        yield data[at : at + size]
        at += size


def _box_parts(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big") or len(data)
        yield data[at : at + max(size, 8)]
        at += max(size, 8)


def _tiff_entry_changed(data: bytes, rng: random.Random) -> bytes:
    """Change tag, type, count or value of an entry of the first directory."""
    order: Any = "little" if data[:2] == b"II" else "big"
    start = int.from_bytes(data[4:8], order)
    entries = int.from_bytes(data[start : start + 2], order)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        at = start + 2 + 12 * rng.randrange(max(entries, 1))
        offset, length = rng.choice(((0, 2), (2, 2), (4, 4), (8, 4)))
        number = rng.choice((*NUMBERS, 254, 258, 259, 273, 279, 322, 330, 338, 34665, 34675))
        number %= 256**length
        changed[at + offset : at + offset + length] = number.to_bytes(length, order)
    return bytes(changed)


TARGET = Images()
