"""Take the README's picture of the web page, in a real browser.

    python scripts/page_picture.py -o Deraining/figures/page.jpg

It starts the page, restores its third example, and drags the divider. Chromium is needed (Debian:
apt-get install chromium), and the package playwright, which drives it: pip install playwright.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import DataError, OptionsError

SIZE = (1280, 790)
EXAMPLE = 2
DIVIDER = 0.4
"""Where the divider is dragged to, as a part of the width."""
SECONDS = 600
"""Limit of restoring."""


@command
def main(arguments: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.jpg")
    options = parser.parse_args(arguments)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise OptionsError("chromium: not found; apt-get install chromium")
    page = subprocess.Popen(
        [sys.executable, "-m", "basicsr.app", "--port", "0"],
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert page.stdout is not None
        address = re.search(r"http://\S+", page.stdout.readline())
        if address is None:
            raise DataError("the page did not start; run python -m basicsr.app to see why")
        take_picture(address[0], chromium, options.out)
    finally:
        page.terminate()
        page.wait()
    print(f"{options.out}: written")


def take_picture(address: str, chromium: str, file: Path) -> None:
    """Write a JPEG of the page at `address` with a restored example.

    Raises OptionsError if playwright is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise OptionsError("playwright: not installed; pip install playwright") from None
    with sync_playwright() as playwright:
        # the sandbox of Chromium does not work for root, as whom containers run
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        width, height = SIZE
        view = browser.new_page(viewport={"width": width, "height": height})
        view.goto(address)
        view.locator("#examples button img").nth(EXAMPLE).click()
        view.wait_for_selector("#photographs a[download]")
        view.click("#restore")
        view.wait_for_selector("#restored a[download]", timeout=1000 * SECONDS)
        view.wait_for_function(
            "[...document.querySelectorAll('#comparison img')].every(image => image.complete)"
        )
        box = view.locator("#comparison").bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        view.mouse.move(box["x"] + box["width"] / 2, middle)
        view.mouse.down()
        view.mouse.move(box["x"] + box["width"] * DIVIDER, middle, steps=5)
        view.mouse.up()
        view.mouse.move(0, 0)
        view.wait_for_timeout(1000)  # transitions end
        view.screenshot(path=file, type="jpeg", quality=85)
        browser.close()


if __name__ == "__main__":
    main()
