"""Heavy libraries are imported only when they are needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from basicsr.archs import build_network
from basicsr.io.checkpoints import save_weights

ROOT = Path(__file__).parents[1]
COMMANDS = ("restore", "train", "test", "measure", "app")


def imported(program: str, *names: str) -> list[str]:
    """Run a program in a new process and return which of the modules `names` it has imported."""
    program = (
        f"import json, sys\ntry:\n    {program}\nfinally:\n"
        f"    print(json.dumps([name for name in {names!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_no_heavy_libraries(command):
    heavy = ("torch", "torchvision", "cv2", "scipy", "skimage", "matplotlib", "tensorboard")
    heavy += ("gradio", "pandas", "huggingface_hub", "openvino", "onnx")
    program = f"sys.argv[1:] = ['--help']; from basicsr.{command} import main; main()"
    assert imported(program, *heavy) == []


def test_the_entry_points_import_no_libraries_of_few_users():
    modules = (
        "basicsr.training.trainer, basicsr.training.check, basicsr.evaluation.evaluate, "
        "basicsr.inference.files"
    )
    heavy = ("cv2", "matplotlib", "skimage", "tensorboard", "torchvision")
    assert imported(f"import {modules}", *heavy) == []


def test_a_photograph_is_restored_without_the_libraries_of_training(tmp_path):
    options = {"type": "DTPNet-T", "dim": 16, "num_refinement_blocks": 1, "recurrent_iter": 1}
    save_weights(tmp_path / "w.safetensors", build_network(options).state_dict(), options)
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    arguments += ["--weights", str(tmp_path / "w.safetensors")]
    # the compiler of PyTorch is loaded by the first call of a custom operator
    training = ("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor", "sympy")
    libraries = ("cv2", "scipy", "skimage", "matplotlib", "basicsr.data", "basicsr.options")
    program = f"from basicsr.restore import main; main({arguments!r})"
    assert imported(program, *training, *libraries) == []
    assert (tmp_path / "out" / "a.png").exists()
