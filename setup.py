"""Packages and version ranges of the dependencies; requirements.txt pins the tested versions."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["basicsr", "basicsr.*"]), "basicsr.pretrained_models"],
    package_dir={"basicsr.pretrained_models": "pretrained_models"},  # the shipped weights
    package_data={
        "basicsr.pretrained_models": ["*.safetensors"],
        "basicsr.archs.ops": ["*.c"],
        "basicsr.metrics": ["niqe_*"],
    },
    install_requires=[
        "torch>=2.7",
        "torchvision>=0.22",
        "numpy>=1.26",
        "opencv-python>=4.9",
        "scikit-image>=0.22",
        "scipy>=1.11",
        "pillow>=10.3",
        "pyyaml>=6.0",
        "pydantic>=2.7",
        "safetensors>=0.4.3",
        "tensorboard>=2.15",
        "tqdm>=4.66",
        "einops>=0.7",
        "matplotlib>=3.8",
    ],
    extras_require={
        "wandb": ["wandb>=0.17"],
        "iqa": ["pyiqa>=0.1.14"],
        "hdf5": ["h5py>=3.10"],  # the DND benchmark
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
        ],
    },
)
