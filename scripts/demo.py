"""The whole road in a few minutes: train a small DTPNet, test it, and show what it does.

It calls the commands that users call, on the option files options/*/Deraining/demo.yml.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Every command is printed before it runs; the first that fails ends the demo."""
    images = "results/demo/photographs"
    for command in (
        "basicsr/train.py -opt options/train/Deraining/demo.yml",
        "basicsr/test.py -opt options/test/Deraining/demo.yml",
        f"scripts/compare_page.py --rainy {images}/rainy --restored {images}/restored "
        f"--clean {images}/clean --out results/demo --title DTPNet-T",
    ):
        print(f"\n$ python {command}", flush=True)
        done = subprocess.run([sys.executable, *command.split()], cwd=ROOT)
        if done.returncode:
            sys.exit(done.returncode)
    print(f"\nLook at {ROOT}/results/demo/index.html: drag the dividers. sheet.png lies beside it.")


if __name__ == "__main__":
    main()
