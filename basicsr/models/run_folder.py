"""The folder of one training run, `experiments/<name>`, and the checkpoints in it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.models.restoration_model import RestorationModel
from basicsr.utils.checkpoints import save_state, save_weights


class RunFolder:
    """Holds `models/net_g_{ITERATION,latest,best}.safetensors`, `training_states/ITERATION.state`.

    A training state is complete by itself; the weights beside it are for testing and using.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        self.keep = keep

    def start_afresh(self) -> Path | None:
        """Make the folder; an older run of the same name is renamed, never overwritten."""
        archived = None
        if self.path.exists():
            stamp = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
            archived = self.path.rename(self.path.with_name(f"{self.path.name}_archived_{stamp}"))
        self.path.mkdir(parents=True)
        return archived

    def latest_state(self) -> Path | None:
        states = self._states()
        return states[-1] if states else None

    def save(
        self, model: RestorationModel, iteration: int, network: Mapping[str, Any], **progress: Any
    ) -> None:
        """Save weights and a state after `iteration` steps; drop all but the last `keep` of them.

        The state goes last: where it is, everything else of its iteration is there as well.
        """
        weights = model.restoring_network.state_dict()
        for name in (f"net_g_{iteration}", "net_g_latest"):
            save_weights(self._weights(name), weights, network, iteration=iteration)
        state = self.path / "training_states" / f"{iteration:08d}.state"
        state.parent.mkdir(exist_ok=True)
        save_state(state, {"iteration": iteration, **progress, **model.state_dict()})
        for old in self._states()[: -self.keep]:
            self._weights(f"net_g_{int(old.stem)}").unlink(missing_ok=True)
            old.unlink()

    def save_best(self, model: RestorationModel, network: Mapping[str, Any], **facts: Any) -> None:
        """Keep the present weights as the best ones, with `facts` that say how good they are."""
        save_weights(
            self._weights("net_g_best"), model.restoring_network.state_dict(), network, **facts
        )

    def _weights(self, name: str) -> Path:
        folder = self.path / "models"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.safetensors"

    def _states(self) -> list[Path]:
        return sorted((self.path / "training_states").glob("*.state"))
