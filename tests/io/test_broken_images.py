"""Reading broken and unusual image files."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from basicsr.io.images import image_size, list_images, read_image
from basicsr.io.photographs import read_photograph
from basicsr.utils.errors import DataError

NOISE = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def _png(path: Path, image: np.ndarray = NOISE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def _truncate(path: Path) -> None:
    path.write_bytes(_png(path).read_bytes()[:2000])


def _loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def _dangle(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere.png")


def _vanish(path: Path) -> None:
    path.unlink()


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncate, "cannot be decoded (image file is truncated"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable image (the file is empty)"),
    "text": (lambda path: path.write_text("text"), "not a readable image (not PNG, JPEG, "),
    "postscript": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "not a readable"),
    "missing": (_vanish, "no such file"),
    "dangling link": (_dangle, "a link to 'nowhere.png', which does not exist; remove it"),
    "loop": (_loop, "a link that leads to itself; remove it"),
    "lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"),
        "a pointer of Git LFS, and not the file itself; get it with: git lfs pull",
    ),
    "pipe": (_pipe, "not a file; "),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_raise_path_and_reason(tmp_path: Path, case: str):
    path = _png(tmp_path / "a.png")
    damage, reason = BROKEN[case]
    damage(path)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_a_file_without_permission():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = _png(Path(folder) / "a.png")
        path.chmod(0)
        with _as_nobody(), pytest.raises(DataError) as caught:
            read_image(path)
    assert str(caught.value) == f"{path}: not a readable image (Permission denied)"


def test_a_folder_without_permission():
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        _png(Path(root) / "1.png")
        closed = Path(root) / "closed"
        closed.mkdir(mode=0)
        with _as_nobody(), pytest.raises(DataError) as caught:
            list_images(root)
    assert str(caught.value) == f"{closed}: cannot be listed (Permission denied)"


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Drop root's right to read every file."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of TIFF tags
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "ppm"])
def test_flipped_bits_give_an_image_or_a_reason(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(NOISE).save(path)
    good, rng, reasons = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(60):
        damaged = bytearray(good)
        for place in rng.integers(len(damaged), size=4):
            damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            image = read_image(path)
        except DataError as error:
            reasons.append(str(error))
        else:
            assert (image.ndim, image.shape[2], image.dtype) == (3, 3, np.uint8)
    assert all(reason.startswith(f"{path}: ") for reason in reasons)
    if suffix == "png":  # it has checksums
        assert len(reasons) == 60


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path: Path, suffix: str, orientation: int):
    stored = np.kron(np.arange(6).reshape(2, 3), np.ones((16, 16))).astype(np.uint8) * 40
    quarters = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    upright = np.rot90(stored, quarters)
    if orientation in (2, 4, 5, 7):
        upright = upright[:, ::-1] if orientation in (2, 4) else upright[::-1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.dstack([stored] * 3)).save(path, exif=exif)
    read = read_image(path)
    assert image_size(path) == read.shape[:2] == upright.shape
    assert np.abs(read.astype(int) - upright[..., None]).max() < 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"\xff" * 40, b"MM\0*\0\0\0\x08\0\1\1\x12\0\3", b"II*\0\xff\xff"])
def test_broken_exif_is_ignored(tmp_path: Path, exif: bytes):
    path = tmp_path / "a.jpg"
    Image.fromarray(NOISE).save(path, exif=b"Exif\0\0" + exif)
    assert read_image(path).shape[:2] == image_size(path) == (48, 64)


def test_a_palette_with_transparency_keeps_its_colours_silently(tmp_path: Path, recwarn):
    palette = Image.fromarray(NOISE).quantize(32)
    expected = np.asarray(palette.convert("RGB"))
    palette.save(tmp_path / "levels.png", transparency=bytes(range(32)))
    palette.save(tmp_path / "one.png", transparency=3)
    for name in ("levels.png", "one.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name), expected)
    assert not recwarn.list


def test_cmyk_jpeg(tmp_path: Path):
    smooth = Image.fromarray(NOISE).resize((8, 6)).resize((64, 48), Image.Resampling.BICUBIC)
    smooth.convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    difference = read_image(tmp_path / "a.jpg").astype(int) - np.asarray(smooth)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_of_several_frames_the_first_is_read(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    other = Image.fromarray(255 - NOISE)
    Image.fromarray(NOISE).save(path, save_all=True, append_images=[other], **options)
    np.testing.assert_array_equal(read_image(path), NOISE)


def test_a_chunk_that_announces_gigabytes(tmp_path: Path):
    """OpenCV, which decodes images of 16 bits, would allocate them."""
    path = tmp_path / "a.png"
    path.write_bytes(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d49484452000000010000000110000000006aee4716"  # header
            "f186000b49444154081d63d0d40400007e0053000000000000000049454e44ae4260"
        )
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="truncated or damaged"):
        read_photograph(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
