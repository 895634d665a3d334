"""Open image files by their content: which formats are read, and the limits of size and effort."""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from basicsr.io.stored_files import in_lmdb, read_file
from basicsr.utils.errors import DataError, OptionsError, UserError, remedy
from basicsr.utils.files import mistaken_content

HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Files that need the package pillow-heif."""
_TGA_SUFFIXES = frozenset({".tga", ".icb", ".vda", ".vst"})
SUFFIXES = (
    frozenset({".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff"})
    | frozenset({".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".avif", ".avifs"})
    | frozenset({".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"})
    | _TGA_SUFFIXES
    | HEIC_SUFFIXES
)
"""Suffixes of the files that are taken for images."""
# Recognised by content; other readers of Pillow are left out, as some start other programs.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "PPM", "GIF", "AVIF", "JPEG2000")
_SHOWN_FORMATS = "PNG, JPEG, WebP, TIFF, GIF, AVIF, HEIC, JPEG 2000, TGA, BMP or PPM"
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

LIMIT_VARIABLE = "DERAIN_MAX_MEGAPIXELS"
DEFAULT_MEGAPIXELS = 250.0
_METADATA_BYTES = 2**25
"""Bytes that a file may have beside its pixels."""
_FEW_READS = 2**20
"""Calls that read the header of a file, or its pixels in blocks."""
_WHOLE_WEBP, _WHOLE_BOXES = 2**29, 2**27
"""Bytes of a WebP file, and of an AVIF or HEIC file, that Pillow reads as a whole."""
_PIXEL_BYTES = 16
"""Bytes per pixel of the largest file of any format: incompressible 16-bit colours and alpha."""
_SCANS_PER_LIMIT = 20
"""An image of the largest size may have as many scans, and smaller ones accordingly more."""
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)
_lock = threading.Lock()


def max_megapixels() -> float:
    """Return the size of the largest image that is decoded, in millions of pixels.

    It is read from the environment, so that worker processes have the same limit.

    Raises OptionsError if the variable is not a positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE)
    try:
        limit = DEFAULT_MEGAPIXELS if text is None else float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise OptionsError(f"{LIMIT_VARIABLE}: '{text}' is not a positive number of megapixels")
    return limit


def set_max_megapixels(limit: float | None) -> None:
    """Set the limit of this process and of the workers that it starts; None changes nothing."""
    if limit is not None:
        os.environ[LIMIT_VARIABLE] = repr(float(limit))


class TooLarge(ValueError):
    """Image above the limit; the message says what is too large."""


class BoundedFile(BufferedReader):
    """File that stops a reader which reads more, or more often, than its image can need.

    Damaged or malicious files make readers skip gigabytes, some of them byte by byte.

    Attributes:
        allowed: bytes that may still be read.
        reads: number of calls that may still be made.
        end: where the image ends; what follows is not read.
    """

    def __init__(self, raw: FileIO | BytesIO) -> None:
        super().__init__(raw)
        self.allowed = _METADATA_BYTES
        self.reads = _FEW_READS
        self.end: int | None = None

    def allow_pixels(self, pixels: float) -> None:
        """Allow reading the bytes that `pixels` pixels can need, twice."""
        self.allowed = int(2 * (_METADATA_BYTES + _PIXEL_BYTES * pixels))
        self.reads = _FEW_READS

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self.allowed + 1 if size is None or size < 0 else size
        if self.end is not None:
            wanted = min(wanted, max(self.end - self.tell(), 0))
        data = super().read(min(wanted, self.allowed + 1))
        self.allowed -= len(data)
        self.reads -= 1
        if self.allowed < 0 or self.reads < 0:
            raise TooLarge(
                "the file is much larger than its image can be; save it again with an image editor"
            )
        return data

    def content(self) -> bytes:
        """Return the whole file, or the beginning that an image of its size can need."""
        return self._from_start(self.allowed // 2)

    def size(self) -> int:
        """Return the length of the file in bytes."""
        position = self.tell()
        length = self.seek(0, os.SEEK_END)
        self.seek(position)
        return length

    def head(self) -> bytes:
        """Return the first 4096 bytes."""
        return self._from_start(4096)

    def _from_start(self, size: int) -> bytes:
        position = self.tell()
        self.seek(0)
        data = super().read(size if self.end is None else min(size, self.end))
        self.seek(position)
        return data


@contextmanager
def opened(path: str | Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open a file and read its header, not its pixels; see `bounded` for its bytes.

    Args:
        path: the file.
        content: what it would hold; then it need not exist.

    Raises DataError for a file that is missing or no image, or whose pixels are above the limit.
    """
    try:
        with _file(path, content) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
            with _opened(file, Path(path)) as image:
                yield image
    except (UserError, MemoryError):  # lack of memory is no fault of the file
        raise
    except FileNotFoundError as error:
        if os.path.islink(path):
            raise DataError(
                f"{path}: a link to {os.readlink(path)!r}, which does not exist; remove it"
            ) from error
        raise DataError(f"{path}: no such file") from error
    except TooLarge as error:
        raise DataError(f"{path}: too large to be decoded ({error})") from error
    except UnidentifiedImageError as error:
        fault = None
        if content is None and os.path.isfile(path):
            with open(path, "rb") as plain:
                fault = mistaken_content(plain.read(512))
        raise DataError(
            f"{path}: {fault or f'not a readable image (not {_SHOWN_FORMATS})'}"
        ) from error
    except Exception as error:  # Pillow's readers raise anything for broken headers
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise DataError(f"{path}: a link that leads to itself; remove it") from error
        raise DataError(f"{path}: not a readable image ({reason(error)})") from error


def _file(path: str | Path, content: bytes | None) -> BoundedFile:
    if content is None and in_lmdb(path):
        content = read_file(path)
    if content is not None:
        return BoundedFile(BytesIO(content))
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
        raise DataError(f"{path}: not a file; remove it, or give it a name without this suffix")
    if status.st_size == 0:
        raise DataError(f"{path}: not a readable image (the file is empty)")
    return BoundedFile(FileIO(path, "rb"))


def bounded(image: Image.Image) -> BoundedFile:
    """Return the file of an image that `opened` gave."""
    file = getattr(image, "bounded_file", None)
    assert isinstance(file, BoundedFile)
    return file


def require_pixels(pixels: float, words: str) -> None:
    """Raise TooLarge above the limit; `words` describe the image."""
    limit = max_megapixels()
    if pixels > limit * 1e6:
        what_to_do = remedy(
            f", which --max-megapixels or the environment variable {LIMIT_VARIABLE} raises",
            page="; reduce its size",
        )
        raise TooLarge(f"{words}; the limit is {limit:g} megapixels{what_to_do}")


def _require_few_scans(file: BoundedFile, pixels: int) -> None:
    """Raise TooLarge for a JPEG whose many scans would take minutes to decode."""
    limit = _SCANS_PER_LIMIT * max_megapixels() * 1e6
    if pixels * file.size() / 10 <= limit:  # a scan has 10 bytes at least
        return
    scans = _count_scans(file.content())
    if pixels * scans > limit:
        what_to_do = remedy(
            f"save it again, or raise the limit with --max-megapixels or {LIMIT_VARIABLE}",
            page="save it again with an image editor",
        )
        raise TooLarge(
            f"{pixels / 1e6:.0f} megapixels in {scans} scans, which would take very long; "
            f"{what_to_do}"
        )


def reason(error: Exception) -> str:
    """Return the message of a library's error in one line."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(message.split()) or type(error).__name__


def _opened(file: BoundedFile, path: Path) -> Image.Image:
    """Open an image below the limit. Pillow's own limit, a global variable, is lower."""
    head = file.read(64)
    file.seek(0)
    formats: tuple[str, ...] = _FORMATS
    if head[4:8] == b"ftyp" or head.startswith(b"RIFF"):  # which Pillow reads at once
        file.allowed = _WHOLE_WEBP if head.startswith(b"RIFF") else _WHOLE_BOXES
        file.end = _end_of_boxes(file)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and b"avif" not in head[8:40]:
        _register_heic(path)
        formats = ("HEIF",)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        require_pixels(*_webp_pixels(head))  # Pillow allocates memory when it opens the file
    elif path.suffix.lower() in _TGA_SUFFIXES:  # this format cannot be recognised by its content
        formats = (*_FORMATS, "TGA")
    with _lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    width, height = image.size
    require_pixels(width * height, f"{width} x {height} pixels")
    file.allow_pixels(width * height)
    if isinstance(image, BmpImageFile):  # run-length encoding is read byte by byte
        file.reads += 4 * width * height
    if isinstance(image, JpegImageFile):
        _require_few_scans(file, width * height)
    if isinstance(image, TiffImageFile):  # libtiff reads the file itself
        for tag in (279, 325):  # bytes of its strips, of its tiles
            if sum(image.tag_v2.get(tag, ())) > file.allowed:
                raise TooLarge("its strips are larger than they can be; save it again")
    image.bounded_file = file  # type: ignore[attr-defined]  # Pillow forgets its own
    return image


def _end_of_boxes(file: BoundedFile) -> int:
    """Return where a WebP file, or the last complete box of an AVIF or HEIC file, ends."""
    length, at = file.size(), 0
    try:
        while True:
            file.seek(at)
            head = file.read(16)
            if head.startswith(b"RIFF"):
                return min(8 + int.from_bytes(head[4:8], "little"), length)
            size = int.from_bytes(head[:4], "big")
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            if size == 0 and head[4:8].strip(b"\0"):  # a box up to the end of the file
                return length
            if size < 8 or at + size > length:
                return length if at + size > length else at
            at += size
    finally:
        file.seek(0)


def _webp_pixels(head: bytes) -> tuple[int, str]:
    """Return the pixels that a WebP file announces, and words for them."""
    kind = head[12:16]
    width = height = 0
    if kind == b"VP8X":
        width = int.from_bytes(head[24:27], "little") + 1
        height = int.from_bytes(head[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width = int.from_bytes(head[26:28], "little") & 0x3FFF
        height = int.from_bytes(head[28:30], "little") & 0x3FFF
    return width * height, f"{width} x {height} pixels"


def _register_heic(path: Path) -> None:
    try:
        import pillow_heif
    except ImportError:
        what_to_do = remedy(
            "install it with python -m pip install pillow-heif", page="save it as JPEG or PNG"
        )
        raise DataError(f"{path}: HEIC images need the package pillow-heif; {what_to_do}") from None
    pillow_heif.register_heif_opener(thumbnails=False)


def _count_scans(content: bytes) -> int:
    """Return the number of scans of a JPEG file."""
    scans, at = 0, 2
    while found := _NEXT_MARKER.search(content, at):
        marker, at = content[found.end() - 1], found.end()
        if marker == 0xD9:  # end of the image
            break
        if marker == 0xDA:
            scans += 1
        elif marker in (0x01, 0xD8):  # without a length
            continue
        at += int.from_bytes(content[at : at + 2], "big")
    return scans


def _renew_lock() -> None:
    """Free the lock in a forked worker: a thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
