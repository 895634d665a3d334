"""A target of scripts/fuzz.py that does what its seed says."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from basicsr.utils.errors import UserError


class Faulty:
    name = "faulty"

    def make(self, rng: random.Random, folder: Path) -> Path:
        path = folder / "input"
        path.write_text(str(rng.random()))
        return path

    def read(self, path: Path, rng: random.Random) -> None:
        number = float(path.read_text())
        if number == SEEDS["trace"]:
            raise ValueError("a bug")
        if number == SEEDS["unclear"]:
            raise UserError("it failed")
        if number == SEEDS["error"]:
            raise UserError(f"{path}: damaged; get it again")
        if number == SEEDS["hang"]:
            while True:
                pass
        if number == SEEDS["memory"]:
            full = bytearray(2**30)
            time.sleep(1000)
            del full
        if number == SEEDS["crash"]:
            os.kill(os.getpid(), signal.SIGSEGV)


KINDS = ("ok", "error", "unclear", "trace", "hang", "memory", "crash")
SEEDS = {kind: random.Random(kind).random() for kind in KINDS}
TARGET = Faulty()
