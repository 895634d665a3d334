"""The temporary folder of the page, and its removal."""

from __future__ import annotations

import os
import tempfile
import time

import pytest

from basicsr.page.storage import PREFIX, Storage, remove_abandoned, remove_older


@pytest.fixture(autouse=True)
def parent(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_is_private_and_removed_at_the_end(parent):
    with Storage() as storage:
        assert storage.folder.parent == parent
        assert storage.folder.stat().st_mode & 0o777 == 0o700
        (storage.new_folder() / "a.png").write_bytes(b"1")
        variables = storage.environment()
        assert variables["GRADIO_TEMP_DIR"] == str(storage.uploads)
        assert variables["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert list(parent.iterdir()) == []


def test_old_files_of_a_running_page_are_deleted(parent):
    with Storage(kept_seconds=0.2) as storage:
        old = storage.new_folder() / "old.png"
        old.write_bytes(b"1")
        (storage.examples / "kept.png").write_bytes(b"1")
        for _ in range(100):
            if not old.parent.exists():
                break
            time.sleep(0.05)
        assert not old.parent.exists()
        assert (storage.examples / "kept.png").exists()


def test_only_what_is_older_is_deleted(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"1")
    remove_older(tmp_path, time.time() - 60)
    assert (tmp_path / "a" / "1.png").exists()
    remove_older(tmp_path, time.time() + 60)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_pages_are_removed_and_others_are_not(parent):
    killed = parent / f"{PREFIX}killed"
    killed.mkdir()
    (killed / "lock").touch()
    (killed / "photograph.png").write_bytes(b"1")
    starting = parent / f"{PREFIX}starting"  # has no lock yet
    starting.mkdir()
    target = parent / "target"
    target.mkdir()
    (target / "lock").touch()
    os.symlink(target, parent / f"{PREFIX}link")
    with Storage() as running:
        assert not killed.exists()
        remove_abandoned(parent)
        assert running.folder.exists()
    assert starting.exists()
    assert (target / "lock").exists()
