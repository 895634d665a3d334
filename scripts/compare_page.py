"""Show what a network did: a picture sheet and a web page, from folders of images.

    python scripts/compare_page.py --rainy DIR --restored DIR --clean DIR --out DIR

writes DIR/sheet.png (rainy | restored | clean | where it changed) and DIR/index.html, one file that
needs nothing else, with a divider to drag across each image. Without --clean nothing is measured.
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
from basicsr.evaluation.evaluate import mean_scores
from basicsr.evaluation.restored_images import match_restored
from basicsr.io.images import read_image, write_png
from basicsr.metrics import PROTOCOLS, Scores, measure
from basicsr.utils.cli import command
from basicsr.utils.errors import DataError

AMPLIFIED = 4  # a change of 64 levels is as bright as the map gets
COLUMNS = {
    "rainy": "rainy",
    "restored": "restored",
    "clean": "clean",
    "change": f"where it changed (x {AMPLIFIED})",
}


class Comparison(NamedTuple):
    """One image: its versions by column of the sheet, and the scores of those with a clean one."""

    name: str
    versions: dict[str, np.ndarray]
    scores: dict[str, Scores]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    images = read_images(
        options.rainy,
        options.restored,
        options.clean,
        options.layout,
        options.protocol,
        options.max_images,
    )
    write_png(options.out / "sheet.png", sheet(images, options.protocol))
    page = web_page(images, options.protocol, options.title)
    (options.out / "index.html").write_text(page, encoding="utf-8")
    print(f"{len(images)} images: {options.out / 'sheet.png'}, {options.out / 'index.html'}")


def read_images(
    rainy: Path,
    restored: Path,
    clean: Path | None,
    layout: str | None,
    protocol: str,
    max_images: int,
) -> list[Comparison]:
    """The first images of the folders, measured where there are clean ones.

    Raises DataError where files are left over, cannot be read, or differ in size.
    """
    clean_files = {}
    if clean is not None:
        clean_files = {pair.name: pair for pair in match_restored(restored, clean, layout)}
    images = []
    for pair in match_restored(restored, rainy)[:max_images]:
        shown = {"rainy": read_image(pair.clean), "restored": read_image(pair.restored)}
        if clean_files:
            shown["clean"] = clean_files[pair.name].read()[1]
        images.append(_compared(pair.name, shown, protocol))
    return images


def _compared(name: str, shown: dict[str, np.ndarray], protocol: str) -> Comparison:
    sizes = {version: f"{image.shape[1]}x{image.shape[0]}" for version, image in shown.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{version} {size}" for version, size in sizes.items())
        raise DataError(f"{name}: the images to compare differ in size ({told})")
    scores = {}
    if "clean" in shown:
        scores = {v: measure(shown[v], shown["clean"], protocol) for v in ("rainy", "restored")}
    shown["change"] = change_map(shown["rainy"], shown["restored"])
    return Comparison(name, shown, scores)


def change_map(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The largest change of a pixel's channels, amplified, as a colour from black to yellow."""
    import matplotlib

    levels = np.abs(before.astype(int) - after).max(axis=2) * AMPLIFIED
    colours = matplotlib.colormaps["inferno"](np.minimum(levels, 255).astype(np.uint8))
    return np.round(colours[..., :3] * 255).astype(np.uint8)


def sheet(images: Sequence[Comparison], protocol: str, cell: int = 420) -> np.ndarray:
    """All images below each other, their versions side by side, with captions."""
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
        draw.text((left + cell / 2, head / 2), COLUMNS[column], "black", title, anchor="mm")
    top = head
    for image, row in zip(images, rows, strict=True):
        bottom = top + row[0].height
        for left, column, version in zip(lefts, columns, row, strict=True):
            picture.paste(version, (left, top))
            if column in image.scores:
                text = f"{caption_of(image.scores[column])} ({protocol})"
                draw.text((left + cell / 2, bottom + 5), text, "#444", small, anchor="ma")
        top = bottom + caption
    return np.asarray(picture)


def _fitted(image: Comparison, width: int) -> list[Image.Image]:
    """The versions at one width."""
    rows, columns = image.versions["rainy"].shape[:2]
    size = (width, max(1, round(rows * width / columns)))
    return [
        Image.fromarray(version).resize(size, Image.Resampling.LANCZOS)
        for version in image.versions.values()
    ]


def caption_of(scores: Scores) -> str:
    return f"{scores.psnr:.2f} dB, SSIM {scores.ssim:.4f}"


def web_page(images: Sequence[Comparison], protocol: str, title: str) -> str:
    """The page, with every image inside it."""
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    compared = [column for column in images[0].versions if column != "rainy"]
    return template.substitute(
        title=html.escape(title),
        summary=_summary(images, protocol),
        choices="\n    ".join(_choice(column) for column in compared),
        figures="\n".join(_figure(image) for image in images),
        table=_table(images, protocol),
    )


def _summary(images: Sequence[Comparison], protocol: str) -> str:
    count = f"{len(images)} image{'s' * (len(images) > 1)}"
    if not images[0].scores:
        return f"{count}. There are no clean images, so nothing is measured."
    before, after = (_mean(images, version).psnr for version in ("rainy", "restored"))
    return (
        f"{count}: {before:.2f} dB in the rain, {after:.2f} dB restored, against the clean images "
        f"under the protocol <b>{protocol}</b>: {html.escape(PROTOCOLS[protocol].description)}."
    )


def _choice(column: str) -> str:
    checked = " checked" if column == "restored" else ""
    return (
        f'<label><input type="radio" name="right" value="{column}" '
        f'data-tag="{COLUMNS[column]}"{checked}>{COLUMNS[column]}</label>'
    )


def _figure(image: Comparison) -> str:
    name = html.escape(image.name)
    height, width = image.versions["rainy"].shape[:2]
    over = "\n".join(
        f'        <img class="over {column}" src="{_embedded(version)}" alt="{name}, {column}">'
        for column, version in image.versions.items()
        if column != "rainy"
    )
    scores = " → ".join(f"{s.psnr:.2f}" for s in image.scores.values())
    return f"""    <figure>
      <div class="divided" style="aspect-ratio: {width} / {height}">
        <img src="{_embedded(image.versions["rainy"])}" alt="{name}, rainy">
{over}
        <input type="range" min="0" max="100" step="any" value="50" aria-label="divider of {name}">
        <div class="divider"></div>
        <div class="tag left">rainy</div><div class="tag right"></div>
      </div>
      <figcaption><b>{name}</b><span>{scores and scores + " dB"}</span></figcaption>
    </figure>"""


def _embedded(image: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=92, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _table(images: Sequence[Comparison], protocol: str) -> str:
    if not images[0].scores:
        return ""
    rows = [_row(html.escape(image.name), image.scores) for image in images]
    means = {version: _mean(images, version) for version in ("rainy", "restored")}
    return f"""<h2>Scores ({protocol})</h2>
  <div class="scroll"><table>
    <thead><tr><th>image</th><th>rainy PSNR</th><th>rainy SSIM</th><th>restored PSNR</th>
      <th>restored SSIM</th><th>gain</th></tr></thead>
    <tbody>{"".join(rows)}</tbody>
    <tfoot>{_row("mean of these", means)}</tfoot>
  </table></div>"""


def _row(name: str, scores: dict[str, Scores]) -> str:
    rainy, restored = scores["rainy"], scores["restored"]
    numbers = (
        f"{rainy.psnr:.2f} dB",
        f"{rainy.ssim:.4f}",
        f"{restored.psnr:.2f} dB",
        f"{restored.ssim:.4f}",
        f"{restored.psnr - rainy.psnr:+.2f} dB",
    )
    return f"<tr><td>{name}</td>{''.join(f'<td>{number}</td>' for number in numbers)}</tr>"


def _mean(images: Sequence[Comparison], version: str) -> Scores:
    return mean_scores([image.scores[version] for image in images])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rainy", required=True, type=Path, metavar="DIR")
    parser.add_argument("--restored", required=True, type=Path, metavar="DIR")
    parser.add_argument("--clean", type=Path, metavar="DIR")
    parser.add_argument(
        "--layout", choices=LAYOUTS, metavar="NAME", help="data set that names the clean images"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--title", default="Rain removed")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="matlab_y")
    parser.add_argument("--max-images", type=_positive, default=12, metavar="N")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    main()
