"""Train a small DTPNet, test it and show its results, in a few minutes on a CPU.

Runs the same commands as a user would, with the option files options/*/Deraining/demo.yml.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print and run each command; stop at the first one that fails."""
    images = "results/demo/photographs"
    for command in (
        "basicsr/train.py -opt options/train/Deraining/demo.yml",
        "basicsr/test.py -opt options/test/Deraining/demo.yml",
        f"scripts/compare_page.py --lq {images}/lq --restored {images}/restored "
        f"--gt {images}/gt --out results/demo --title DTPNet-T",
    ):
        print(f"\n$ python {command}", flush=True)
        done = subprocess.run([sys.executable, *command.split()], cwd=ROOT)
        if done.returncode:
            sys.exit(done.returncode)
    print(f"\nOpen {ROOT}/results/demo/index.html and drag the dividers (as one image: sheet.png).")


if __name__ == "__main__":
    main()
