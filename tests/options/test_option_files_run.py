"""All shipped option files train two iterations, or test, with small networks on tiny images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.io import savemat

from basicsr import options as schema
from basicsr.archs import build_network
from basicsr.io.checkpoints import save_weights
from basicsr.io.images import write_png
from basicsr.options import TrainOptions, load_options
from basicsr.test import test as run_test
from basicsr.training.run import Process
from basicsr.training.trainer import train
from basicsr.utils.distributed import World
from basicsr.utils.errors import CheckpointError
from basicsr.utils.interruptions import StopRequest, Watchdog
from basicsr.utils.registry import ARCH_REGISTRY

OPTIONS = Path(__file__).parents[2] / "options"
TRAIN = sorted((OPTIONS / "train").rglob("*.yml"))
TEST = sorted((OPTIONS / "test").glob("*/*.yml"))
CPU = torch.device("cpu")
SMALL = {
    "dim": 8,
    "localization_dim": 8,
    "num_blocks": [1, 1, 1, 1],
    "num_refinement_blocks": 1,
    "heads": [1, 1, 1, 1],
    "recurrent_channels": 4,
    "channels": 4,
    "n_feat": 8,
    "scale_unetfeats": 4,
    "scale_orsnetfeats": 4,
    "num_cab": 1,
    "width": 4,
    "middle_blk_num": 1,
    "enc_blk_nums": [1, 1, 1],
    "dec_blk_nums": [1, 1, 1],
}
SIDES = {"DIDMDN": (64, 64), "DIDMDNDerainer": (64, 64)}  # of patches
IMAGES = ("lq", "right", "gt", "lq16", "right16", "gt16")


def every(files: list[Path]) -> list[Any]:
    """Return the files as parameters; DID-MDN's network cannot be shrunk, which takes a minute."""
    return [
        pytest.param(
            file,
            id=f"{file.parent.name}-{file.stem}",
            marks=[pytest.mark.slow] if file.stem.startswith("DIDMDN") else [],
        )
        for file in files
    ]


def shrunk(network: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a network of the same kind with few channels and blocks."""
    known = ARCH_REGISTRY.entry(network["type"]).parameters()
    small = {key: value for key, value in SMALL.items() if key in known}
    if network["type"] == "SPAIR":
        small |= {"num_blocks": [1, 1, 1], "heads": 1}
    return {**network, **small}


def sections(options: Any) -> Iterator[dict[str, Any]]:
    """Yield all data sets of the section `datasets`, also the parts of mixed ones."""
    if isinstance(options, dict):
        if "type" in options:
            yield options
        for each in options.values():
            yield from sections(each)
    elif isinstance(options, list):
        for each in options:
            yield from sections(each)


def on_tiny_images(datasets: dict[str, Any]) -> dict[str, Any]:
    """Return the section `datasets` with the folders of `workplace`."""
    for options in sections(datasets):
        for key in ("split", "files", "cache"):
            options.pop(key, None)
        depth = "16" if options.get("bit_depth") == 16 else ""
        if options["type"] == "RainTransplantDataset":
            options |= {"dataroot_gt": "gt", "dataroot": options["layout"]}
        elif "layout" in options:
            views = [f"lq{depth}", f"right{depth}"]
            dual = options.pop("layout").endswith("dual")
            del options["dataroot"]
            options |= {"dataroot_lq": views if dual else views[0], "dataroot_gt": f"gt{depth}"}
        elif "dataroot" in options:
            options["dataroot"] = options["type"]
        elif "dataroot_gt" in options:
            options["dataroot_gt"] = f"gt{depth}"
        elif "dataroot_lq" in options:
            options["dataroot_lq"] = "lq"
    return datasets


def write_benchmarks() -> None:
    """Write pairs of RainTrainL, SIDD's validation blocks and DND's regions as their authors do."""
    rng = np.random.default_rng(1)
    for folder in ("rain", "norain"):
        pixels = rng.integers(0, 256, (40, 44, 3), np.uint8)
        write_png(Path("RainTrainL", folder, "norain-1.png"), pixels)
    Path("SIDDBlocksDataset").mkdir()
    for each in ("ValidationNoisyBlocksSrgb", "ValidationGtBlocksSrgb"):
        blocks = rng.integers(0, 256, (1, 2, 32, 32, 3), dtype=np.uint8)
        savemat(f"SIDDBlocksDataset/{each}.mat", {each: blocks})
    h5py = pytest.importorskip("h5py")
    Path("DNDDataset/images_srgb").mkdir(parents=True)
    with h5py.File("DNDDataset/info.mat", "w") as file:
        cell = file.create_dataset("info/boundingboxes", (1, 1), h5py.ref_dtype)
        table = np.array([[1.0, 1, 32, 32]])
        cell[0, 0] = file.create_dataset("#refs#/0", data=table.T).ref
    with h5py.File("DNDDataset/images_srgb/0001.mat", "w") as file:
        file["InoisySRGB"] = rng.random((3, 40, 40), np.float32)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Iterator[Path]:
    """A current folder with three images of 44 x 40 pixels for each kind of data."""
    folder = tmp_path_factory.mktemp("workplace")
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for number in range(3):
            smooth = np.kron(rng.random((10, 11, 3)), np.ones((4, 4, 1)))
            for kind in IMAGES:
                peak = 65535 if kind.endswith("16") else 255
                image = (smooth + 0.1 * rng.random(smooth.shape)) / 1.1 * peak
                dtype = np.uint16 if peak > 255 else np.uint8
                write_png(folder / kind / f"{number}.png", image.astype(dtype))
        write_benchmarks()
        yield folder


@pytest.mark.parametrize("file", every(TRAIN))
def test_it_trains(file, workplace):
    raw = yaml.safe_load(file.read_text())
    raw["network_g"] = shrunk(raw["network_g"])
    raw["datasets"] = on_tiny_images(raw["datasets"])
    raw.pop("path", None)
    sizes = SIDES.get(raw["network_g"]["type"], (16, 24))
    patches = [{"size": size, "batch_size": 2, "iters": 1} for size in sizes]
    raw["datasets"]["train"] |= {"patches": patches, "num_worker_per_gpu": 0}
    raw["train"]["total_iter"] = 2
    # the weights of its network would be downloaded
    raw["train"]["losses"] = [
        loss for loss in raw["train"]["losses"] if loss["type"] != "PerceptualLoss"
    ]
    if "val" in raw:
        raw["val"]["val_freq"] = 2
    raw["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False}
    raw["device"] = "cpu"
    adapted = workplace / file.name
    adapted.write_text(yaml.safe_dump(raw))
    with StopRequest() as stop, Watchdog(100) as watchdog:
        train(load_options(TrainOptions, adapted), Process(CPU, World(), stop, watchdog))
    folder = workplace / "experiments" / file.stem
    assert (folder / "models" / "net_g_latest.safetensors").is_file()
    losses = [
        line for line in (folder / "metrics.jsonl").read_text().splitlines() if "loss" in line
    ]
    assert len(losses) == 2
    assert "skipped_steps" not in losses[-1]


@pytest.mark.parametrize("file", every(TEST))
def test_it_tests(file, workplace):
    raw = yaml.safe_load(file.read_text())
    raw["network_g"] = shrunk(raw["network_g"])
    raw["datasets"] = on_tiny_images(raw["datasets"])
    torch.manual_seed(0)
    weights = workplace / f"{file.stem}.safetensors"
    save_weights(weights, build_network(raw["network_g"]).state_dict(), raw["network_g"])
    raw["path"] = {"pretrain_network_g": str(weights)}
    raw.setdefault("val", {})["save_img"] = False
    raw["device"] = "cpu"
    adapted = workplace / file.name
    adapted.write_text(yaml.safe_dump(raw))
    options = load_options(schema.TestOptions, adapted)
    run_test(options, str(adapted), CPU, World())
    results = workplace / "results" / file.stem
    assert (results / "scores.json").is_file()
    table = (results / "scores.md").read_text() if (results / "scores.md").exists() else ""
    if "DND" not in file.stem and "ImageFolder" not in str(raw["datasets"]):
        assert all(protocol in table for protocol in options.val.protocols)


@pytest.fixture
def own_data(tmp_path, monkeypatch) -> Path:
    """A folder with a run named demo, pairs of images and photographs, as the files name them."""
    monkeypatch.chdir(tmp_path)
    network = shrunk({"type": "DTPNet-T"})
    torch.manual_seed(0)
    file = tmp_path / "experiments/demo/models/net_g_latest.safetensors"
    file.parent.mkdir(parents=True)
    save_weights(file, build_network(network).state_dict(), network)
    image = np.random.default_rng(0).integers(0, 256, (192, 208, 3), dtype=np.uint8)
    for folder in ("my_pairs/lq", "my_pairs/gt", "my_photographs"):
        write_png(tmp_path / "datasets" / folder / "0.png", image)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "dataset", "protocols"),
    [
        ("my_folders", "my_pairs", ["matlab_y", "rgb"]),
        ("my_photographs", "my_photographs", ["niqe"]),
        ("my_run", "my_pairs", ["matlab_y", "rgb"]),
    ],
)
def test_a_file_to_copy_runs(name, dataset, protocols, own_data):
    """The network comes from the weights, which the name of a run is enough for."""
    run = "path:pretrain_network_g=demo"
    options = load_options(schema.TestOptions, OPTIONS / "test" / f"{name}.yml", [run])
    run_test(options, f"{name}.yml", CPU, World(), own_data / "elsewhere")
    folder = own_data / "elsewhere" / name
    assert (folder / dataset / "restored" / "0.png").is_file()
    scores = json.loads((folder / "scores.json").read_text())
    assert [row["protocol"] for row in scores["results"]] == protocols
    assert {row["dataset"] for row in scores["results"]} == {dataset}
    assert scores["provenance"]["options"]["network_g"]["dim"] == SMALL["dim"]
    assert not (own_data / "results").exists()
    again = load_options(schema.TestOptions, folder / "options.yml")
    assert again.network_g is None


def test_weights_that_describe_no_network_need_network_g(own_data):
    torch.save({"params": {"conv.weight": torch.zeros(3, 3, 1, 1)}}, "foreign.pth")
    run = "path:pretrain_network_g=foreign.pth"
    options = load_options(schema.TestOptions, OPTIONS / "test" / "my_run.yml", [run])
    with pytest.raises(
        CheckpointError, match=r"foreign\.pth: .* \(in a test file, with network_g\)"
    ):
        run_test(options, "my_run.yml", CPU, World())
