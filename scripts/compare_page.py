"""Compare degraded and restored images on a contact sheet and a web page.

    python scripts/compare_page.py --lq DIR --restored DIR --gt DIR --out DIR
    python scripts/compare_page.py --lq rainy=DIR --restored A=DIR B=DIR --gt clean=DIR --out DIR

writes DIR/sheet.png (degraded | restored | ground truth | change) and DIR/index.html, one file with
all images inside and a divider to drag across each of them. The words in front of the folders are
captions. The map of the change is left out if several restored versions are compared. Without --gt,
only protocols that need no ground truth are measured.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from basicsr.data import LAYOUTS
from basicsr.evaluation.restored_images import match_restored
from basicsr.io.images import write_png
from basicsr.metrics import DEFAULT_PROTOCOL, Metric, Protocol, Scores, get_protocol
from basicsr.metrics.base import levels_8bit
from basicsr.utils.cli import command, positive, script_parser
from basicsr.utils.errors import DataError, OptionsError

CHANGE_GAIN = 4  # a change of 64 levels has full brightness in the map
CHANGE = f"change (x {CHANGE_GAIN})"


class Captioned(NamedTuple):
    """Folder of one version of the images, and its caption."""

    caption: str
    folder: Path


class Comparison(NamedTuple):
    """Versions of one image by caption, 8-bit RGB, the degraded one first.

    `scores` are those of the degraded and the restored versions, by caption.
    """

    name: str
    versions: dict[str, np.ndarray]
    scores: dict[str, Scores]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    protocol = get_protocol(options.protocol)
    images = read_images(options, protocol)
    write_png(options.out / "sheet.png", sheet(images, protocol))
    page = web_page(images, protocol, options.title)
    (options.out / "index.html").write_text(page, encoding="utf-8")
    print(f"{len(images)} images: {options.out / 'sheet.png'}, {options.out / 'index.html'}")


def read_images(options: argparse.Namespace, protocol: Protocol) -> list[Comparison]:
    """Read and measure the first images of the folders.

    Raises:
        OptionsError: two folders have the same caption.
        DataError: files have no partner, cannot be read, or differ in size.
    """
    lq, gt = _captioned(options.lq, "degraded"), None
    restored = [_captioned(argument, "restored") for argument in options.restored]
    if options.gt is not None:
        gt = _captioned(options.gt, "ground truth")
    captions = [each.caption for each in (lq, *restored, gt) if each is not None]
    for caption in captions:
        if captions.count(caption) > 1:
            raise OptionsError(f"two folders have the caption '{caption}'; use CAPTION=DIR")
    gt_of = {}
    if gt is not None:
        matched = match_restored(restored[0].folder, gt.folder, options.layout)
        gt_of = {image.name: image for image in matched}
    pairs = {
        each.caption: {pair.name: pair for pair in match_restored(each.folder, lq.folder)}
        for each in restored
    }
    images = []
    for name in list(pairs[restored[0].caption])[: options.max_images]:
        read = {caption: of_name[name].read("rgb") for caption, of_name in pairs.items()}
        versions = {lq.caption: next(iter(read.values()))[1]}
        versions |= {caption: image for caption, (image, _) in read.items()}
        if gt is not None:
            versions[gt.caption] = gt_of[name].read("rgb")[1]
        images.append(_compared(name, versions, gt and gt.caption, protocol))
    return images


def _captioned(argument: str, default: str) -> Captioned:
    """Split "DIR" or "CAPTION=DIR"."""
    caption, equals, folder = argument.partition("=")
    if not equals or Path(argument).exists():
        return Captioned(default, Path(argument))
    return Captioned(caption, Path(folder))


def _compared(
    name: str, versions: dict[str, np.ndarray], gt: str | None, protocol: Protocol
) -> Comparison:
    """Measure the versions of an image; `gt` is the caption of the ground truth."""
    sizes = {version: f"{image.shape[1]}x{image.shape[0]}" for version, image in versions.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{version} {size}" for version, size in sizes.items())
        raise DataError(f"{name}: the images to compare differ in size ({listed})")
    scores = {}
    if gt is not None or not protocol.needs_reference:
        target = None if gt is None else versions[gt]
        scores = {
            caption: protocol(image, target) for caption, image in versions.items() if caption != gt
        }
    shown = {caption: levels_8bit(image).astype(np.uint8) for caption, image in versions.items()}
    degraded, *restored = [caption for caption in shown if caption != gt]
    if len(restored) == 1:
        shown[CHANGE] = change_map(shown[degraded], shown[restored[0]])
    return Comparison(name, shown, scores)


def change_map(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the largest change of the channels of each pixel, from black to yellow."""
    import matplotlib

    levels = np.abs(before.astype(int) - after).max(axis=2) * CHANGE_GAIN
    colours = matplotlib.colormaps["inferno"](np.minimum(levels, 255).astype(np.uint8))
    return np.round(colours[..., :3] * 255).astype(np.uint8)


def sheet(images: Sequence[Comparison], protocol: Protocol, cell: int = 420) -> np.ndarray:
    """Return a contact sheet: one row per image, its versions side by side, with captions."""
    columns = list(images[0].versions)
    gap, head, caption = 14, 44, 36
    rows = [_fitted(image, cell) for image in images]
    width = gap + (cell + gap) * len(columns)
    height = head + sum(row[0].height + caption for row in rows)
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    title, small = ImageFont.load_default(20), ImageFont.load_default(16)
    lefts = [gap + (cell + gap) * column for column in range(len(columns))]
    for left, column in zip(lefts, columns, strict=True):
        draw.text((left + cell / 2, head / 2), column, "black", title, anchor="mm")
    top = head
    for image, row in zip(images, rows, strict=True):
        bottom = top + row[0].height
        for left, column, version in zip(lefts, columns, row, strict=True):
            picture.paste(version, (left, top))
            if column in image.scores:
                text = f"{caption_of(image.scores[column], protocol)} ({protocol.name})"
                draw.text((left + cell / 2, bottom + 5), text, "#444", small, anchor="ma")
        top = bottom + caption
    return np.asarray(picture)


def _fitted(image: Comparison, width: int) -> list[Image.Image]:
    """Return the versions, resized to one width."""
    rows, columns = next(iter(image.versions.values())).shape[:2]
    size = (width, max(1, round(rows * width / columns)))
    return [
        Image.fromarray(version).resize(size, Image.Resampling.LANCZOS)
        for version in image.versions.values()
    ]


def caption_of(scores: Scores, protocol: Protocol) -> str:
    """Return the scores as text; a metric with a unit needs no name."""
    return ", ".join(
        _number(metric, scores) if metric.unit else f"{metric.label} {_number(metric, scores)}"
        for metric in protocol.available_metrics
    )


def _number(metric: Metric, scores: Scores) -> str:
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{scores[metric.name]:.{metric.decimals}f}{unit}"


def web_page(images: Sequence[Comparison], protocol: Protocol, title: str) -> str:
    """Return the HTML page, with every image inside it."""
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    degraded, *compared = images[0].versions
    return template.substitute(
        title=html.escape(title),
        summary=_summary(images, protocol),
        degraded=html.escape(degraded),
        choices="\n    ".join(_choice(number, each) for number, each in enumerate(compared)),
        figures="\n".join(_figure(image, protocol) for image in images),
        table=_table(images, protocol),
    )


def _summary(images: Sequence[Comparison], protocol: Protocol) -> str:
    count = "1 image" if len(images) == 1 else f"{len(images)} images"
    if not images[0].scores:
        return f"{count}. There is no ground truth, so nothing is measured."
    metric = protocol.metrics[0]
    means = ", ".join(
        f"{_number(metric, _mean(images, caption, protocol))} {html.escape(caption)}"
        for caption in images[0].scores
    )
    return (
        f"{count}, mean {metric.label}: {means}, under the protocol "
        f"<b>{protocol.name}</b>: {html.escape(protocol.description)}."
    )


def _choice(number: int, caption: str) -> str:
    checked = "" if number else " checked"
    return (
        f'<label><input type="radio" name="right" value="{number}"{checked}>'
        f"{html.escape(caption)}</label>"
    )


def _figure(image: Comparison, protocol: Protocol) -> str:
    name = html.escape(image.name)
    degraded, *compared = image.versions
    height, width = image.versions[degraded].shape[:2]
    over = "\n".join(
        f'        <img class="over" data-version="{number}" '
        f'src="{_embedded(image.versions[caption])}" alt="{name}, {html.escape(caption)}">'
        for number, caption in enumerate(compared)
    )
    metric = protocol.metrics[0]
    before, *after = [_number(metric, each) for each in image.scores.values()] or [""]
    scores = f"{before} → {', '.join(after)}" if after else before
    return f"""    <figure>
      <div class="divided" style="aspect-ratio: {width} / {height}">
        <img src="{_embedded(image.versions[degraded])}" alt="{name}, {html.escape(degraded)}">
{over}
        <input type="range" min="0" max="100" step="any" value="50" aria-label="divider of {name}">
        <div class="divider"></div>
        <div class="tag left">{html.escape(degraded)}</div><div class="tag right"></div>
      </div>
      <figcaption><b>{name}</b><span>{scores}</span></figcaption>
    </figure>"""


def _embedded(image: np.ndarray) -> str:
    data = io.BytesIO()
    # no optimize=True: with it Pillow fails on noisy images, for which its buffer is too small
    Image.fromarray(image).save(data, "JPEG", quality=92, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _table(images: Sequence[Comparison], protocol: Protocol) -> str:
    if not images[0].scores:
        return ""
    headings = [
        f"{html.escape(caption)} {metric.label}"
        for caption in images[0].scores
        for metric in protocol.available_metrics
    ]
    rows = [_row(html.escape(image.name), image.scores, protocol) for image in images]
    means = {caption: _mean(images, caption, protocol) for caption in images[0].scores}
    return f"""<h2>Scores ({protocol.name})</h2>
  <div class="scroll"><table>
    <thead><tr>{_cells("th", ["image", *headings])}</tr></thead>
    <tbody>{"".join(rows)}</tbody>
    <tfoot>{_row("mean of these", means, protocol)}</tfoot>
  </table></div>"""


def _row(name: str, scores: dict[str, Scores], protocol: Protocol) -> str:
    numbers = [
        _number(metric, each) for each in scores.values() for metric in protocol.available_metrics
    ]
    return f"<tr>{_cells('td', [name, *numbers])}</tr>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{text}</{tag}>" for text in texts)


def _mean(images: Sequence[Comparison], version: str, protocol: Protocol) -> Scores:
    return protocol.summarize([image.scores[version] for image in images])


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    captioned = "[CAPTION=]DIR"
    parser.add_argument("--lq", required=True, metavar=captioned, help="degraded images")
    parser.add_argument(
        "--restored", required=True, nargs="+", metavar=captioned, help="restored images"
    )
    parser.add_argument("--gt", metavar=captioned, help="ground truth")
    parser.add_argument(
        "--layout", choices=LAYOUTS, metavar="NAME", help="data set that names the ground truth"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--title", default="Restored images")
    parser.add_argument("--protocol", default=DEFAULT_PROTOCOL, metavar="NAME")
    parser.add_argument("--max-images", type=positive, default=12, metavar="N")
    return parser


if __name__ == "__main__":
    main()
