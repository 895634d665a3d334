"""Checkpoints of a run: complete, verified and pruned."""

import json
import logging

import pytest
import torch

from basicsr.io.checkpoints import load_weights, save_state
from basicsr.training import run_folder as run_folder_module
from basicsr.training.run_folder import RunFolder, verified_state
from basicsr.utils.errors import CheckpointError, UserError
from basicsr.utils.files import sha256

NETWORK = {"type": "PRN"}
PROGRESS = {"validation_due": False, "identity": {}, "average": None, "optimizer": {}}


def run_folder(path, **keeping):
    folder = RunFolder(path / "run", **{"keep": 2, **keeping})
    if not folder.path.exists():
        folder.start_afresh()
    return folder


def save(folder, *iterations):
    for iteration in iterations:
        weights = {"w": torch.full((3,), float(iteration))}
        folder.save({**PROGRESS, "iteration": iteration, "network": weights}, weights, NETWORK)
        folder.writer.finish(0, bool)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_last_checkpoints_are_kept(tmp_path):
    folder = run_folder(tmp_path)
    assert folder.latest_state() is None
    save(folder, 2, 4, 6)
    assert names(folder.path / "training_states") == [
        *("00000004.json", "00000004.state", "00000006.json", "00000006.state")
    ]
    assert names(folder.path / "models") == [
        *("net_g_4.safetensors", "net_g_6.safetensors", "net_g_latest.safetensors")
    ]
    assert folder.latest_state()["iteration"] == 6
    assert load_weights(folder.path / "models/net_g_latest.safetensors").state_dict["w"][0] == 6


def test_a_checkpoint_is_complete_after_the_last_weights_have_their_name(tmp_path, monkeypatch):
    """A run that is killed while it writes a checkpoint has no complete one with older weights."""
    folder = run_folder(tmp_path)
    written, save_weights = [], run_folder_module.save_weights

    def record(path, *arguments, **facts):
        complete = [file.stem for file in (folder.path / "training_states").glob("*.json")]
        written.append((path.name, complete))
        save_weights(path, *arguments, **facts)

    monkeypatch.setattr(run_folder_module, "save_weights", record)
    save(folder, 2)
    assert written == [("net_g_2.safetensors", []), ("net_g_latest.safetensors", [])]
    assert folder.latest_state()["iteration"] == 2


def test_every_nth_checkpoint_is_kept(tmp_path):
    folder = run_folder(tmp_path, keep=1, keep_every=4)
    save(folder, *range(1, 11))
    assert names(folder.path / "training_states")[::2] == [
        *("00000004.json", "00000008.json", "00000010.json")
    ]


def test_a_manifest_has_the_hashes(tmp_path):
    folder = run_folder(tmp_path)
    save(folder, 2)
    manifest = json.loads((folder.path / "training_states/00000002.json").read_text())
    assert manifest["iteration"] == 2
    assert sorted(manifest["sha256"]) == [
        *("models/net_g_2.safetensors", "training_states/00000002.state")
    ]
    for name, expected in manifest["sha256"].items():
        assert sha256(folder.path / name) == expected


@pytest.mark.parametrize("harm", ["truncate", "flip", "no state", "manifest", "empty"])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tmp_path, harm, caplog):
    folder = run_folder(tmp_path)
    save(folder, 2, 4)
    state = folder.path / "training_states/00000004.state"
    content = bytearray(state.read_bytes())
    if harm == "truncate":
        state.write_bytes(content[:-100])
    elif harm == "flip":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif harm == "no state":
        state.unlink()
    elif harm == "manifest":
        state.with_suffix(".json").write_text("{")
    else:
        state.write_bytes(b"")
    logging.getLogger("basicsr").propagate = True
    assert folder.latest_state()["iteration"] == 2
    assert "00000004" in caplog.text
    assert "trying the checkpoint before it" in caplog.text


def test_the_newest_finite_state_is_resumed_from(tmp_path, caplog):
    folder = run_folder(tmp_path, keep=5)
    save(folder, 2, 4)
    for iteration in (6, 8):
        state = folder.path / f"training_states/{iteration:08d}.state"
        weights = {"w": torch.tensor([1.0, float("inf")])}
        save_state(state, {**PROGRESS, "iteration": iteration, "network": weights})
        manifest = {"sha256": {f"training_states/{state.name}": sha256(state)}}
        state.with_suffix(".json").write_text(json.dumps(manifest))
    logging.getLogger("basicsr").propagate = True
    assert folder.latest_state()["iteration"] == 4
    for iteration in (6, 8):
        assert f"{iteration:08d}.state: not finite (NaN or inf in network.w)" in caplog.text
    assert caplog.text.count("trying the checkpoint before it") == 2


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    folder = run_folder(tmp_path)
    save(folder, 2)
    (folder.path / "training_states/00000002.state").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint can be resumed"):
        folder.latest_state()
    with pytest.raises(CheckpointError, match="damaged, its SHA-256"):
        verified_state(folder.path / "training_states/00000002.state")


def test_a_state_without_a_manifest_is_ignored(tmp_path):
    """The process was killed between the two; the next checkpoint removes the state."""
    folder = run_folder(tmp_path)
    save(folder, 2)
    states = folder.path / "training_states"
    (states / "00000004.state").write_bytes(b"whole or not")
    (states / ".00000005.state.part").write_bytes(b"half")
    assert folder.latest_state()["iteration"] == 2
    save(folder, 6)
    assert names(states)[::2] == ["00000002.json", "00000006.json"]
    assert len(names(states)) == 4


def test_resuming_earlier_drops_later_checkpoints(tmp_path):
    folder = run_folder(tmp_path, keep=5)
    save(folder, 2, 4, 6)
    folder.drop_after(4)
    assert folder.latest_state()["iteration"] == 4


def test_other_files_are_ignored(tmp_path):
    folder = run_folder(tmp_path)
    save(folder, 2)
    (folder.path / "training_states/backup of 9.json").write_text("{}")
    save(folder, 4)
    assert folder.latest_state()["iteration"] == 4
    assert (folder.path / "training_states/backup of 9.json").exists()


def test_an_earlier_run_is_renamed_and_an_empty_folder_used(tmp_path):
    folder = run_folder(tmp_path)
    assert folder.start_afresh() is None
    save(folder, 2)
    archived = folder.start_afresh()
    assert (archived / "training_states/00000002.state").exists()
    assert folder.latest_state() is None


def test_a_second_process_is_locked_out(tmp_path):
    first, second = run_folder(tmp_path), run_folder(tmp_path)
    first.lock()
    with pytest.raises(UserError, match="another process is training this run"):
        second.lock()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    folder = run_folder(tmp_path)
    (tmp_path / "precious").write_text("text")
    (folder.path.parent / f".{folder.path.name}.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="is a link, which is not followed"):
        folder.lock()
    assert (tmp_path / "precious").read_text() == "text"


def test_missing_best_weights_are_noticed(tmp_path):
    folder = run_folder(tmp_path)
    assert not folder.has_best_of(6)
    folder.save_best({"w": torch.zeros(3)}, NETWORK, iteration=6)
    folder.writer.finish(1, bool)
    assert folder.has_best_of(6)
    assert not folder.has_best_of(8)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    folder = run_folder(tmp_path, keep=1)
    save(folder, 2)

    def full(path, state):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("basicsr.training.run_folder.save_state", full)
    with pytest.raises(UserError, match="No space left on device"):
        save(folder, 4)
    assert not (folder.path / "models/net_g_4.safetensors").exists()
    assert folder.latest_state()["iteration"] == 2


def test_the_state_is_saved_as_it_was_at_the_call(tmp_path):
    folder = run_folder(tmp_path)
    weights = {"w": torch.zeros(1000)}
    folder.save({**PROGRESS, "iteration": 1, "network": weights}, weights, NETWORK)
    weights["w"].add_(1)
    folder.writer.finish(1, bool)
    assert folder.latest_state()["network"]["w"].sum() == 0
