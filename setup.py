"""Packages and version ranges of the dependencies; requirements.txt pins the tested versions.

The library is `basicsr` in a checkout, and `derain` where it is installed: PyPI has another package
called basicsr, and two packages of one name would overwrite each other's files.
"""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

EDITABLE = "editable_wheel" in sys.argv  # pip install -e: the checkout itself, with derain.py
NAME = "basicsr" if EDITABLE else "derain"


class RenamingBuild(build_py):
    """Build step that copies the modules of basicsr as modules of derain."""

    def build_module(self, module, module_file, package):
        file, copied = super().build_module(module, module_file, package)
        if copied:
            file = Path(file)
            file.write_text(renamed(file.read_text(encoding="utf-8")), encoding="utf-8")
        return str(file), copied


def renamed(source: str) -> str:
    """Return the text of a module with the installed names of the package and its commands."""
    source = re.sub(r"(python )?\bbasicsr/(train|test|measure)\.py", r"derain-\2", source)
    return re.sub(r"\bbasicsr\b", "derain", source)


setup(
    packages=[
        *(re.sub("^basicsr", NAME, name) for name in find_packages(include=["basicsr*"])),
        f"{NAME}.pretrained_models",
    ],
    package_dir={
        NAME: "basicsr",
        f"{NAME}.pretrained_models": "pretrained_models",  # the shipped weights
    },
    py_modules=["derain"] if EDITABLE else [],
    cmdclass={} if EDITABLE else {"build_py": RenamingBuild},
    package_data={
        f"{NAME}.pretrained_models": ["*.safetensors"],
        f"{NAME}.archs.ops": ["*.c", "*.h"],
        f"{NAME}.metrics": ["niqe_*"],
        f"{NAME}.page": ["*.js"],
    },
    install_requires=[
        "torch>=2.7",
        "torchvision>=0.22",
        "numpy>=1.26",
        "opencv-python>=4.9",
        "av>=17.1",  # videos; its wheels bring the libraries of ffmpeg
        "scikit-image>=0.22",
        "scipy>=1.11",
        "pillow>=11.3",
        "pyyaml>=6.0",
        "pydantic>=2.7",
        "safetensors>=0.4.3",
        "tensorboard>=2.15",
        "tqdm>=4.66",
        "einops>=0.7",
        "matplotlib>=3.8",
    ],
    extras_require={
        "app": ["gradio>=6.0"],  # the web page
        "export": ["onnx>=1.19", "onnxruntime>=1.20", "onnxscript>=0.5"],
        "openvino": ["openvino>=2025.2"],  # restore --backend openvino
        "hub": ["huggingface_hub>=0.30"],
        "wandb": ["wandb>=0.17"],
        "iqa": ["pyiqa>=0.1.14"],
        "heic": ["pillow-heif>=1.0"],  # photographs of iPhones
        "hdf5": ["h5py>=3.10"],  # the DND benchmark
        "lmdb": ["lmdb>=1.4"],  # data sets of BasicSR users
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "mypy>=1.13",
            "types-PyYAML",
            "jsonschema>=4.20",
            "h5py>=3.10",
            "pillow-heif>=1.0",
            "lmdb>=1.4",
            "onnx>=1.19",
            "onnxruntime>=1.20",
            "onnxscript>=0.5",
            "openvino>=2025.2",
            "huggingface_hub>=0.30",
            "spandrel>=0.4",
            "spandrel_extra_arches>=0.2",
        ],
    },
)
