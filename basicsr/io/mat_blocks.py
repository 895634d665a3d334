"""MATLAB files of the real-denoising benchmarks SIDD and DND.

SIDD keeps its blocks in one array of a version 5 file. DND keeps images and boxes in version 7.3
files: HDF5 (extra `hdf5`), in which MATLAB's axes appear reversed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr.utils.errors import DataError, UserError
from basicsr.utils.files import atomic_write, cache_folder

_PIXELS_PER_STEP = 4096  # of the conversion: their bytes fit into the processor's cache
_CONVERTING = threading.Lock()  # the threads of a process write to the same temporary file


class SiddBlocks:
    """Blocks of a SIDD file: `blocks[image, block]` is an H x W x 3 RGB array.

    The array's first axes vary fastest, so that the bytes of one block are spread over the whole
    file. When the first block is read, the file is therefore converted to one in the user's cache
    folder, which this and later runs map into memory.

    Args:
        path: version 5 file with one array of images x blocks x height x width x 3.

    Attributes:
        variable: name of the array.
        shape: its shape.

    Raises:
        DataError: the file is missing or holds no such array.
    """

    def __init__(self, path: str | Path) -> None:
        from scipy.io import whosmat  # here, as importing it takes a quarter of a second

        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file")
        try:
            arrays = whosmat(self.path)
        except Exception as error:  # scipy raises anything for damaged files
            raise DataError(f"{self.path}: not a MATLAB file of version 5 ({error})") from error
        blocks = [(name, shape) for name, shape, _ in arrays if len(shape) == 5 and shape[-1] == 3]
        if len(blocks) != 1:
            names = ", ".join(f"{name} {shape}" for name, shape, _ in arrays) or "nothing"
            raise DataError(
                f"{self.path}: expected one array of images x blocks x height x width x 3; "
                f"found {names}"
            )
        self.variable: str = blocks[0][0]
        self.shape: tuple[int, ...] = blocks[0][1]
        self._converted: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of blocks of all images."""
        return self.shape[0] * self.shape[1]

    def __getitem__(self, position: tuple[int, int]) -> np.ndarray:
        """Return a block as an array of its own. Raises DataError if the file is damaged."""
        with _CONVERTING:
            if self._converted is None:
                self._converted = self._open()
        image, block = position
        return np.ascontiguousarray(self._converted[block, image].T)

    def _open(self) -> np.ndarray:
        """Map the converted file; write it first if there is none for this state of the file."""
        status = self.path.stat()
        source = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:16]
        folder = cache_folder()
        converted = folder / f"{source}-{status.st_size}-{status.st_mtime_ns}.npy"
        if not converted.exists():
            blocks = self._load()
            for outdated in set(folder.glob(f"{source}-*.npy")) - {converted}:
                outdated.unlink(missing_ok=True)
            temporary = converted.with_suffix(f".{os.getpid()}")  # ranks may convert at once
            try:
                with temporary.open("wb") as file:
                    np.save(file, blocks)
                temporary.replace(converted)
            finally:
                temporary.unlink(missing_ok=True)
        return np.load(converted, mmap_mode="r")

    def _load(self) -> np.ndarray:
        """Return the array as blocks x images x 3 x width x height in this order in memory."""
        from scipy.io import loadmat

        try:
            stored = loadmat(self.path, variable_names=[self.variable])[self.variable]
            if np.shape(stored) != self.shape:  # scipy returns some errors as text
                raise ValueError(str(stored))
        except Exception as error:  # scipy raises anything for damaged files
            raise DataError(f"{self.path}: is damaged ({error}); download it again") from error
        images, blocks, height, width, channels = self.shape
        by_pixel = stored.T.reshape(-1, blocks * images)
        by_block = np.empty(by_pixel.shape[::-1], stored.dtype)
        # in one step, NumPy would take eight times as long: each write would miss the cache
        for first in range(0, len(by_pixel), _PIXELS_PER_STEP):
            step = slice(first, first + _PIXELS_PER_STEP)
            by_block[:, step] = by_pixel[step].T
        return by_block.reshape(blocks, images, channels, width, height)


def block_names(shape: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Return image and block, from 0, of all blocks of SIDD, by name: IMAGE_BLOCK, from 1."""
    images, blocks = shape[:2]
    positions = [(image, block) for image in range(images) for block in range(blocks)]
    return {f"{image + 1:02d}_{block + 1:02d}": (image, block) for image, block in positions}


def write_sidd_result(path: str | Path, restored: np.ndarray) -> None:
    """Write restored blocks as the published scripts do: float32 in [0, 1], not rounded.

    `restored` has the shape of the noisy blocks, images x blocks x height x width x 3.
    """
    _save(Path(path), {"Idenoised": restored.astype(np.float32, copy=False)})


class Box(NamedTuple):
    """Region of an image, in pixels from 0, the ends exclusive."""

    top: int
    left: int
    bottom: int
    right: int


class DndImages:
    """Noisy images of DND: `info.mat` and `images_srgb/0001.mat`, `0002.mat`, ...

    Args:
        folder: folder with `info.mat`.

    Attributes:
        boxes: regions of each image that are denoised and submitted.

    Raises:
        DataError: a file is missing or has another structure.
        UserError: h5py is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with _opened_hdf5(self.folder / "info.mat") as file:
            references = file["info/boundingboxes"][()].ravel()
            self.boxes = [_boxes(file[reference][()]) for reference in references]
        for image in range(len(self)):
            if not self.path(image).is_file():
                raise DataError(
                    f"{self.path(image)}: no such file, but {self.folder / 'info.mat'} has boxes "
                    f"of {len(self)} images"
                )

    def __len__(self) -> int:
        return len(self.boxes)

    def path(self, image: int) -> Path:
        """Return the file of image number `image`, counted from 0."""
        return self.folder / "images_srgb" / f"{image + 1:04d}.mat"

    def crop(self, image: int, box: int) -> np.ndarray:
        """Read the region of a box: H x W x 3 float32 in [0, 1]; the rest is not read."""
        top, left, bottom, right = self.boxes[image][box]
        with _opened_hdf5(self.path(image)) as file:
            stored = file["InoisySRGB"]
            if right > stored.shape[1] or bottom > stored.shape[2]:
                raise DataError(
                    f"{self.path(image)}: box {box + 1} ends at ({bottom}, {right}), outside of "
                    f"the image of {stored.shape[2]} x {stored.shape[1]} (height x width)"
                )
            region = stored[:, left:right, top:bottom]
        return np.ascontiguousarray(region.T, dtype=np.float32)


def dnd_submission_file(folder: str | Path, image: int) -> Path:
    """Return the file of image number `image`, counted from 0: `0001.mat` for the first."""
    return Path(folder) / f"{image + 1:04d}.mat"


def write_dnd_submission(folder: str | Path, image: int, crops: Sequence[np.ndarray]) -> None:
    """Write the denoised boxes of one image in the form that DND's server evaluates.

    Args:
        folder: folder of the submission; zip it when all images are written.
        image: number of the image, counted from 0.
        crops: H x W x 3 float arrays in [0, 1], in the order of the image's boxes.
    """
    cells = np.empty(len(crops), dtype=object)
    for number, crop in enumerate(crops):
        cells[number] = crop.astype(np.float32, copy=False)
    variables = {"Idenoised": cells, "israw": False, "eval_version": "1.0"}
    _save(dnd_submission_file(folder, image), variables)


def _boxes(stored: np.ndarray) -> list[Box]:
    """Convert a 4 x N table of first row, first column, last row, last column, counted from 1."""
    if stored.ndim != 2 or stored.shape[0] != 4:
        raise DataError(f"info.mat: expected 4 x N boxes, found an array of {stored.shape}")
    table = np.rint(stored.T).astype(int).tolist()
    return [Box(top - 1, left - 1, bottom, right) for top, left, bottom, right in table]


def _save(path: Path, variables: dict[str, Any]) -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        savemat(file, variables)


@contextmanager
def _opened_hdf5(path: Path) -> Iterator[Any]:
    """Open a MATLAB 7.3 file. Raises DataError if it is missing, damaged or lacks an array."""
    try:
        import h5py  # an optional dependency
    except ImportError as error:
        raise UserError("DND needs h5py: pip install 'dtpnet-derain[hdf5]'") from error
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a MATLAB 7.3 file ({error})") from error
