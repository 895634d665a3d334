"""Restore and measure a data set; used by validation and by `test.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from basicsr.data import ImagePair, RestorationDataset
from basicsr.inference.restorer import Restorer
from basicsr.io.images import to_levels, write_png
from basicsr.metrics import Protocol, Scores, get_protocol
from basicsr.utils.distributed import World
from basicsr.utils.errors import DataError, NonFiniteError, Stopped, UserError


class ImageScores(NamedTuple):
    """Scores of one image, by protocol.

    A protocol is left out where it needs a ground truth and there is none. `degraded` has the
    scores of the network's input; it is empty where input and ground truth differ in shape.
    """

    name: str
    restored: dict[str, Scores]
    degraded: dict[str, Scores]


SaveImage = Callable[[str, np.ndarray, ImagePair], None]
"""Called with the name of an image, the restored uint8 or uint16 image, and the pair."""


def check_images(dataset: RestorationDataset, protocols: Sequence[str], key: str) -> None:
    """Read and measure what `evaluate` will, so that it does not fail after hours of work.

    Every image is read, and every protocol measures the smallest one: metrics may need files, or
    larger images.

    Args:
        dataset: the images to restore and measure.
        protocols: names of the protocols; images without ground truth need not suit those that
            compare with it.
        key: key path of the data set in the option file, such as "datasets.val".

    Raises:
        DataError: an image cannot be read, or is too small for a protocol.
        UserError: a metric lacks something.
    """
    applied = [get_protocol(name) for name in protocols]
    applied = [each for each in applied if dataset.has_gt or not each.needs_reference]
    pixels: dict[str, int] = {}

    def examine(name: str, pair: ImagePair) -> None:
        image = pair.lq if pair.gt is None else pair.gt
        pixels[name] = image.shape[0] * image.shape[1]
        for protocol in applied:
            try:
                protocol.require_size(image)
            except DataError as error:
                where = _described(dataset, dataset.names.index(name))
                raise DataError(f"{key}: {where}: {error}") from None

    dataset.check(examine)
    smallest = dataset.names.index(min(pixels, key=pixels.__getitem__))
    pair = dataset.sample(smallest)
    restored = _in_unit_range(pair.lq if pair.gt is None else pair.gt)
    try:
        _scores(dataset.names[smallest], restored, pair, applied, "round")
    except UserError as error:
        error.args = (f"{key}: {_described(dataset, smallest)}: {error}",)
        raise


def _described(dataset: RestorationDataset, index: int) -> str:
    """Return the name of an image with its file."""
    files = dataset.files(index)
    return f"{dataset.names[index]} ({files[-1]})" if files else dataset.names[index]


def _in_unit_range(image: np.ndarray) -> np.ndarray:
    """Return an image like one that a network restored."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(np.float32) / np.iinfo(image.dtype).max
    return image.clip(0, 1)


def evaluate(
    restorer: Restorer,
    dataset: RestorationDataset,
    protocols: Sequence[str],
    quantize_mode: str,
    save_image: SaveImage | None = None,
    world: World | None = None,
    before_each: Callable[[], None] = lambda: None,
) -> list[ImageScores]:
    """Restore every image of `dataset` and measure it.

    The processes of a `world` share the images; each of them returns the scores of all images.

    Args:
        restorer: restores one image.
        dataset: images, with or without ground truth.
        protocols: names of the protocols; those that need a ground truth are skipped without it.
        quantize_mode: "round" or "truncate", how the restored image is made 8- or 16-bit.
        save_image: called for every image.
        world: the processes that take part.
        before_each: called before each image; may raise Stopped, which all processes then raise.

    Returns:
        one entry per image, in the order of the data set.

    Raises:
        NonFiniteError: in all processes; a restored image is not finite.
    """
    world = world or World()
    chosen = [get_protocol(name) for name in protocols]
    scores: list[ImageScores] = []
    failure: Stopped | NonFiniteError | None = None
    indices = range(world.rank, len(dataset), world.size)
    hidden = None if world.is_main else True
    try:
        for index in tqdm(indices, "restoring", leave=False, disable=hidden):
            before_each()
            pair, name = dataset.sample(index), dataset.names[index]
            try:
                restored = restorer(pair.lq)
            except NonFiniteError as error:
                raise NonFiniteError(f"{name}: {error}") from None
            if save_image is not None:
                save_image(name, to_levels(restored, _file_dtype(pair), quantize_mode), pair)
            scores.append(_scores(name, restored, pair, chosen, quantize_mode))
    except (Stopped, NonFiniteError) as error:
        failure = error
    shares = world.gather(failure or scores)
    if failures := [share for share in shares if isinstance(share, Exception)]:
        raise failure or failures[0]
    return [shares[i % world.size][i // world.size] for i in range(len(dataset))]


def _file_dtype(pair: ImagePair) -> type[np.unsignedinteger]:
    stored = pair.lq if pair.gt is None else pair.gt
    return np.uint16 if stored.dtype == np.uint16 else np.uint8


def _scores(
    name: str,
    restored: np.ndarray,
    pair: ImagePair,
    protocols: Sequence[Protocol],
    quantize_mode: str,
) -> ImageScores:
    levels = to_levels(restored, np.uint8, quantize_mode)
    applicable = [p for p in protocols if pair.gt is not None or not p.needs_reference]
    return ImageScores(
        name,
        {p.name: p(levels if p.reads == "8bit" else restored, pair.gt) for p in applicable},
        {p.name: p(pair.lq, pair.gt) for p in applicable if _measures_input(p, pair)},
    )


def _measures_input(protocol: Protocol, pair: ImagePair) -> bool:
    if protocol.needs_reference and pair.gt is not None:
        return pair.lq.shape == pair.gt.shape
    return pair.lq.shape[2] in (1, 3)


def pictures_in(folder: Path, dataset: RestorationDataset) -> SaveImage:
    """Return a function that writes restored images as PNG into `folder/restored`.

    If the degraded images are synthesized, they and their ground truth are written too, into
    `folder/lq` (two views: `folder/lq_left` and `folder/lq_right`) and `folder/gt`.
    """

    def save(name: str, image: np.ndarray, pair: ImagePair) -> None:
        write_png(folder / "restored" / f"{name}.png", image)
        if dataset.synthetic and pair.gt is not None:
            lq = pair.lq
            if np.issubdtype(lq.dtype, np.floating):
                lq = to_levels(lq.clip(0, 1), _file_dtype(pair))
            views = {"lq": lq}
            if lq.shape[2] == 6:
                views = {"lq_left": lq[:, :, :3], "lq_right": lq[:, :, 3:]}
            for view, levels in {**views, "gt": pair.gt}.items():
                write_png(folder / view / f"{name}.png", levels)

    return save
