"""Weights on the Hugging Face hub: `hf:OWNER/NAME`, with a model card made from their metadata.

A repository, like a local folder in its place, holds `model.safetensors`, a file of weights of this
project with its metadata, `config.json` with the network's options, and the card. The package
huggingface_hub comes with the extra `hub`; it finds the token of the user, the cache and
offline mode as its documentation says (HF_TOKEN, HF_HOME, HF_HUB_OFFLINE).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from torch import Tensor, nn

from basicsr.archs import RestorationNetwork
from basicsr.io.checkpoints import HUB_WEIGHTS, Weights
from basicsr.io.hub_files import download, hub_errors
from basicsr.models.pretrained import saved_network
from basicsr.utils.errors import CheckpointError

CONFIG = "config.json"
DEFAULT_LICENCE = "apache-2.0"


class HubNetwork(nn.Module, PyTorchModelHubMixin, library_name="dtpnet-derain"):
    """Network with the file of its weights, for the hub.

    `save_pretrained(folder)` and `push_to_hub("OWNER/NAME")` are those of the mixin;
    `from_pretrained` takes a folder or "OWNER/NAME", and `network` is the restoration network.

    Args:
        file: `.safetensors` file of this project.
        licence: of the weights, for the model card, as the hub abbreviates it.
        repository: for the commands of the model card.
    """

    def __init__(
        self, file: Path, licence: str = DEFAULT_LICENCE, repository: str = "OWNER/NAME"
    ) -> None:
        super().__init__()
        self.file, self.licence, self.repository = file, licence, repository
        self.network, self.weights = saved_network(file)
        if self.weights.network is None:
            raise CheckpointError(
                f"{file}: a published file without metadata; convert it first with "
                "scripts/convert_weights.py"
            )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Restore N x in_channels x H x W images with values in [0, 1]."""
        restored: Tensor | list[Tensor] = self.network(x)
        return restored

    def _save_pretrained(self, save_directory: Path) -> None:
        shutil.copyfile(self.file, save_directory / HUB_WEIGHTS)
        config = json.dumps({"network_g": self.weights.network}, indent=2)
        (save_directory / CONFIG).write_text(config + "\n")

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None = None, **options: Any
    ) -> HubNetwork:
        if Path(model_id).is_dir():
            return cls(Path(model_id) / HUB_WEIGHTS)
        chosen = ("cache_dir", "force_download", "local_files_only", "token")
        kept = {key: options[key] for key in chosen if key in options}
        return cls(download(model_id, revision, **kept))

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return the card, made from the metadata of the weights."""
        return ModelCard(card(self.network, self.weights, self.licence, self.repository))


def from_pretrained(source: str | Path, revision: str | None = None) -> RestorationNetwork:
    """Return the network of a local folder or of a repository of the hub, "OWNER/NAME".

    Raises CheckpointError if it cannot be reached or holds no weights of this project.
    """
    with hub_errors(str(source)):
        is_folder = Path(source).is_dir()
        file = Path(source) / HUB_WEIGHTS if is_folder else download(str(source), revision)
    return HubNetwork(file).network.eval()


def push_to_hub(
    file: Path, repository: str, licence: str = DEFAULT_LICENCE, private: bool = False
) -> str:
    """Publish a file of weights with its model card, and return the address of the commit.

    Raises CheckpointError if the hub cannot be reached or refuses.
    """
    with hub_errors(repository):
        return HubNetwork(file, licence, repository).push_to_hub(repository, private=private)


def card(network: RestorationNetwork, weights: Weights, licence: str, repository: str) -> str:
    """Return the model card: network, data, recipe, scores with protocols, licence, usage."""
    facts, options = weights.facts, weights.network or {}
    header = ModelCardData(
        license=licence,
        library_name="dtpnet-derain",
        pipeline_tag="image-to-image",
        tags=["image-restoration", str(options["type"]).lower()],
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    note = " (rebuilt from its description; never published)" if network.reconstruction else ""
    lines = [
        f"---\n{header.to_yaml()}\n---",
        f"# {options['type']}",
        f"{options['type']}{note}, {parameters:,} parameters, "
        f"{network.in_channels} to {network.out_channels} channels.",
        "## Training data and recipe",
        f"- training set: {facts.get('train_set', 'not recorded')}",
        f"- source: {facts.get('source', 'not recorded')}",
        *_recipe(facts),
        "## Scores",
        *_score_table(facts.get("scores") or []),
        "## Use",
        f"```bash\nderain photograph.jpg -o restored --weights hf:{repository}\n```",
        "```python\nfrom basicsr.models.hub import from_pretrained  # derain.models.hub, if "
        f'installed\n\nnetwork = from_pretrained("{repository}")\n```',
        f"Inputs are N x {network.in_channels} x H x W in [0, 1], with H and W multiples of "
        f"{network.size_multiple}.",
        "## Licence",
        f"Weights: {licence}. Training images belong to their authors.",
    ]
    return "\n\n".join(lines) + "\n"


def _recipe(facts: dict[str, Any]) -> list[str]:
    train = (facts.get("options") or {}).get("train")
    if not train:
        return ["- recipe: that of the source"]
    optimizer = dict(train.get("optim_g") or {})
    losses = ", ".join(str(loss["type"]) for loss in train.get("losses") or [])
    return [
        f"- recipe: {facts.get('iteration', train.get('total_iter'))} iterations, "
        f"{optimizer.get('type')} with learning rate {optimizer.get('lr')}, losses {losses}; all "
        f"options are in the metadata of `{HUB_WEIGHTS}`"
    ]


def _score_table(scores: list[dict[str, Any]]) -> list[str]:
    """Return the scores as a table; each row has its protocol."""
    if not scores:
        return ["None recorded."]
    others = ("dataset", "protocol", "quantize")
    metrics = list(dict.fromkeys(key for score in scores for key in score if key not in others))
    rows = [["data set", *metrics, "protocol", "8-bit values"]]
    rows.append(["---"] * len(rows[0]))
    for score in scores:
        values = [str(score.get(metric, "")) for metric in metrics]
        quantize = str(score.get("quantize", "round"))
        rows.append([str(score["dataset"]), *values, str(score["protocol"]), quantize])
    return ["\n".join(f"| {' | '.join(row)} |" for row in rows)]
