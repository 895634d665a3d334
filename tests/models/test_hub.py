"""Weights on the hub: local folders, a stand-in server, and no network."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

huggingface_hub = pytest.importorskip("huggingface_hub")

from basicsr.archs import build_network  # noqa: E402
from basicsr.io.checkpoints import load_weights, save_weights  # noqa: E402
from basicsr.models.hub import HubNetwork, from_pretrained, push_to_hub  # noqa: E402
from basicsr.models.pretrained import weights_file  # noqa: E402
from basicsr.utils.errors import CheckpointError  # noqa: E402

NETWORK = {"type": "PRN_r", "recurrent_iter": 1, "channels": 4}
FACTS = {
    "train_set": "RainTrainL",
    "source": "a test",
    "iteration": 7,
    "scores": [{"dataset": "Rain100L", "psnr": "36.08", "ssim": "0.973", "protocol": "matlab_y"}],
    "options": {"train": {"optim_g": {"type": "Adam", "lr": 1e-3}, "losses": [{"type": "L1Loss"}]}},
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that up- and downloads use."""

    files: dict[str, bytes]

    def answer(self, content: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        repository = self.path.partition("/resolve/main/")[0]
        if repository != "/someone/net" or name not in self.files:
            known = {"/someone/net": ("EntryNotFound", 404), "/someone/gated": ("GatedRepo", 403)}
            code, status = known.get(repository, ("RepoNotFound", 404))
            self.answer(status=status, X_Error_Code=code, X_Error_Message=f"no access to {name}")
            return
        content = self.files[name]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.answer(content, X_Repo_Commit=COMMIT, ETag=etag)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        address = f"http://{self.headers['Host']}"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            found: Any = {"url": f"{address}/someone/net", "id": "someone/net"}
        elif "/preupload/" in self.path:
            paths = [each["path"] for each in json.loads(body)["files"]]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            found = {"files": [{"path": path, **regular} for path in paths]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            commit = f"{address}/someone/net/commit/{COMMIT}"
            found = {"success": True, "commitOid": COMMIT, "commitUrl": commit}
        else:
            found = {}
        self.answer(json.dumps(found).encode(), Content_Type="application/json")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[dict[str, bytes]]:
    """Files of the repository someone/net on a server that huggingface_hub takes for the hub."""
    files: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"files": files}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    use(monkeypatch, address, tmp_path / "cache")
    yield files
    server.shutdown()
    server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    constants = huggingface_hub.constants
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def file(tmp_path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", build_network(NETWORK).state_dict(), NETWORK, **FACTS)
    return tmp_path / "w.safetensors"


def assert_same(network: torch.nn.Module, file: Path) -> None:
    expected = load_weights(file).state_dict
    assert network.state_dict().keys() == expected.keys()
    for key, value in network.state_dict().items():
        assert torch.equal(value, expected[key])


def test_a_local_folder(file, tmp_path):
    HubNetwork(file).save_pretrained(tmp_path / "folder")
    assert (tmp_path / "folder" / "model.safetensors").read_bytes() == file.read_bytes()
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config == {"network_g": NETWORK}
    assert_same(from_pretrained(tmp_path / "folder"), file)


def test_the_card(file, tmp_path):
    HubNetwork(file, "mit", "someone/net").save_pretrained(tmp_path / "folder")
    card = huggingface_hub.ModelCard.load(tmp_path / "folder" / "README.md")
    assert card.data.license == "mit"
    assert card.data.library_name == "dtpnet-derain"
    for text in (
        "PRN_r, 627 parameters, 3 to 3 channels",
        "training set: RainTrainL",
        "7 iterations, Adam with learning rate 0.001, losses L1Loss",
        "| data set | psnr | ssim | protocol | 8-bit values |",
        "| Rain100L | 36.08 | 0.973 | matlab_y | round |",
        "--weights hf:someone/net",
    ):
        assert text in card.text


def test_publishing_and_reading_from_a_server(hub, file, monkeypatch, tmp_path):
    assert push_to_hub(file, "someone/net").endswith(COMMIT)
    assert hub["model.safetensors"] == file.read_bytes()
    assert b"36.08" in hub["README.md"]
    assert_same(from_pretrained("someone/net"), file)
    downloaded = weights_file("hf:someone/net")
    assert downloaded.read_bytes() == file.read_bytes()

    # without the server, the file is read from the cache
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert weights_file("hf:someone/net") == downloaded


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:someone/other", "hf:someone/other: the hub refuses (.*); check the name, and log in"),
        ("hf:someone/gated", "hf:someone/gated: the hub refuses (.*); check the name, and log in"),
        ("hf:someone/net", "hf:someone/net: the repository has no model.safetensors; name one"),
        ("hf:a/b/c", "hf:a/b/c: no repository of the hub; its name has the form OWNER/NAME"),
        ("hf:net", "hf:net: no repository of the hub; its name has the form OWNER/NAME"),
    ],
)
def test_wrong_names(hub, name, message):
    with pytest.raises(CheckpointError, match=message):
        weights_file(name)


@pytest.mark.parametrize("offline", [False, True])
def test_without_a_network(monkeypatch, tmp_path, file, offline, caplog, capfd):
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "empty")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    message = "someone/net: the hub cannot be reached, .*; check the network, or copy"
    with pytest.raises(CheckpointError, match=message):
        weights_file("hf:someone/net")
    with pytest.raises(CheckpointError, match=message):
        from_pretrained("someone/net")
    with pytest.raises(CheckpointError, match=message):
        push_to_hub(file, "someone/net")
    # the client logs each of its attempts
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""
