"""The folder of one training run, `experiments/<name>`, and the checkpoints in it."""

from __future__ import annotations

import datetime
import fcntl
import functools
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from basicsr.io.checkpoints import copied, load_state, load_weights, save_state, save_weights
from basicsr.training.background import BackgroundWriter
from basicsr.utils.errors import CheckpointError, UserError
from basicsr.utils.files import atomic_write, open_own, sha256

logger = logging.getLogger(__name__)


class RunFolder:
    """Folder with `models/net_g_{ITERATION,latest,best}.safetensors` and training states.

    A training state `training_states/ITERATION.state` is complete by itself; the weights of that
    iteration are saved for testing and inference. The manifest `training_states/ITERATION.json` is
    written last, with the SHA-256 of both files; a checkpoint without a manifest is ignored.

    Args:
        path: the folder.
        keep: number of latest checkpoints to keep.
        keep_every: also keep checkpoints whose iteration is a multiple of this.
    """

    def __init__(self, path: Path, keep: int, keep_every: int | None = None) -> None:
        self.path = path
        self.keep = keep
        self.keep_every = keep_every
        self.writer = BackgroundWriter()
        self._lock: BinaryIO | None = None

    def lock(self) -> None:
        """Prevent other processes from training in this folder until this one ends."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open_own(self.path.parent / f".{self.path.name}.lock")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.path}: another process is training this run; wait for its end, or choose "
                "another name"
            ) from None
        except OSError as error:  # a file system without locks
            logger.warning(
                "%s: not protected from a second process (%s)", self.path, error.strerror
            )

    def unlock(self) -> None:
        """Let other processes train in this folder."""
        if self._lock is not None:
            self._lock.close()

    def start_afresh(self) -> Path | None:
        """Create the folder; rename an earlier run of this name that has checkpoints or weights.

        Returns:
            The new path of the earlier run, if there is one.
        """
        archived = None
        if self._manifests() or list(self.path.glob("models/*.safetensors")):
            stamp = datetime.datetime.now().strftime("%Y%m%d_%H%M%S_%f")
            archived = self.path.rename(self.path.with_name(f"{self.path.name}_archived_{stamp}"))
        self.path.mkdir(parents=True, exist_ok=True)
        return archived

    def latest_state(self) -> dict[str, Any] | None:
        """Return the newest intact and finite training state, or None without any checkpoint.

        Warns of the others. Raises CheckpointError if none can be used.
        """
        manifests = self._manifests()
        for manifest in reversed(manifests):
            try:
                return verified_state(manifest.with_suffix(".state"))
            except CheckpointError as error:
                logger.warning("%s; trying the checkpoint before it", error)
        if manifests:
            raise CheckpointError(
                f"{self._states}: no checkpoint can be resumed, as the lines above say; restore "
                "the folder from a copy, or move it away to start a new run"
            )
        return None

    def drop_after(self, iteration: int) -> None:
        """Drop checkpoints after `iteration`, as their iterations are done again."""
        for manifest in reversed(self._manifests()):
            if int(manifest.stem) > iteration:
                logger.warning(
                    "checkpoint %s is dropped: its iterations are done again", manifest.stem
                )
                manifest.unlink()

    def has_best_of(self, iteration: int) -> bool:
        """Return whether the best weights are of `iteration`, or of a later one, done again."""
        try:
            facts = load_weights(self.path / "models" / "net_g_best.safetensors").facts
        except CheckpointError:
            return False
        saved = facts.get("iteration")
        return isinstance(saved, int) and saved >= iteration

    def save(
        self, state: Mapping[str, Any], weights: Mapping[str, Tensor], network: Mapping[str, Any]
    ) -> None:
        """Save a checkpoint in the background, from copies of its tensors.

        Args:
            state: the training state, with its `iteration`.
            weights: the weights to validate and use.
            network: options of the network, saved with the weights.
        """
        write = functools.partial(self._write, copied(state), copied(weights), network)
        self.writer.submit("checkpoint", write)

    def save_best(
        self, weights: Mapping[str, Tensor], network: Mapping[str, Any], **facts: Any
    ) -> None:
        """Save weights as the best ones in the background.

        Args:
            weights: the weights, which are copied first.
            network: options of the network.
            facts: further facts to save with them, such as their scores.
        """
        write = functools.partial(
            save_weights, self._weights("best"), copied(weights), network, **facts
        )
        self.writer.submit("best weights", write)

    def _write(
        self, state: dict[str, Any], weights: dict[str, Tensor], network: Mapping[str, Any]
    ) -> None:
        self._prune()
        iteration = state["iteration"]
        files = [self._weights(iteration), self._states / f"{iteration:08d}.state"]
        try:
            save_weights(files[0], weights, network, iteration=iteration)
            save_state(files[1], state)
            # before the manifest: a run that is complete has its last weights under this name
            save_weights(self._weights("latest"), weights, network, iteration=iteration)
        except OSError:
            self._prune()  # make room: incomplete files are useless
            raise
        manifest = {
            "iteration": iteration,
            "saved": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "sha256": {file.relative_to(self.path).as_posix(): sha256(file) for file in files},
        }
        with atomic_write(files[1].with_suffix(".json")) as file:
            file.write((json.dumps(manifest, indent=1) + "\n").encode())
        self._prune()

    def _prune(self) -> None:
        """Remove the files of checkpoints that are not to be kept."""
        iterations = [int(manifest.stem) for manifest in self._manifests()]
        kept = set(iterations[-self.keep :])
        if self.keep_every:
            kept |= {each for each in iterations if each % self.keep_every == 0}
        for file in (*self._states.iterdir(), *self._weights("latest").parent.iterdir()):
            number = file.stem.removeprefix("net_g_")
            unfinished = file.suffix == ".part"  # left by a killed process
            if unfinished or (number.isdecimal() and int(number) not in kept):
                file.unlink()

    def _weights(self, which: int | str) -> Path:
        folder = self.path / "models"
        folder.mkdir(exist_ok=True)
        return folder / f"net_g_{which}.safetensors"

    @property
    def _states(self) -> Path:
        folder = self.path / "training_states"
        folder.mkdir(exist_ok=True)
        return folder

    def _manifests(self) -> list[Path]:
        files = sorted((self.path / "training_states").glob("*.json"))
        return [file for file in files if file.stem.isdecimal()]


def verified_state(file: Path) -> dict[str, Any]:
    """Load a training state. Raises CheckpointError if it differs from its manifest."""
    manifest = file.with_suffix(".json")
    if manifest.exists() and file.exists():
        try:
            hashes = json.loads(manifest.read_text())["sha256"]
            expected = hashes[f"{file.parent.name}/{file.name}"]
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(f"{manifest}: damaged") from None
        if sha256(file) != expected:
            raise CheckpointError(f"{file}: damaged, its SHA-256 is not that of its manifest")
    return load_state(file)
