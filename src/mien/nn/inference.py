"""A finished run as a network, and its predictions of a split."""

from __future__ import annotations

from typing import Any

from mien.core.artifacts import predictions as store
from mien.core.artifacts.checkpoint import load_weights
from mien.core.artifacts.index import Index
from mien.core.artifacts.run import Run, check_index
from mien.core.artifacts.test_accesses import test_meta
from mien.core.config.train import TrainConfig
from mien.core.progress import meter
from mien.nn.models.network import Network, make_network
from mien.nn.predict import predict_logits


def settings_of(run: Run) -> TrainConfig:
    """A run's settings without those of a distillation alone; not checked again, since they were when it began."""
    settings: dict[str, Any] = {**run.settings}
    return TrainConfig.model_construct(**settings)


def load_network(run: Run) -> Network:
    """The run's network with the weights that val chose, in fp32, for inference."""
    crop = run.config["crop"]
    network = make_network(settings_of(run), crop_size=crop["size"], color=crop["color"])
    network.load_state_dict(load_weights(run.weights))
    return network.eval()


def predict_split(run: Run, index: Index, split: str, batch_size: int) -> store.Predictions:
    """Logits of one split; test only for the evaluate stage, which checks that it may."""
    check_index(run, index)
    rows = index.rows(split)
    with meter(f"{run.name}: {split}", len(rows)) as progress:
        logits = predict_logits(load_network(run), index.pixels, rows, batch_size=batch_size, advance=progress.advance)
    # A joint head predicts by its linear one; the others' logits are scaled cosines.
    settings = settings_of(run)
    head = "linear" if settings.head == "joint" else settings.head
    own_test = test_meta(run.folder, index.image_ids[index.splits == "test"].tolist(), index.folder)
    meta: store.PredictionsMeta = {
        "name": run.name,
        "weights_hash": run.weights_hash,
        "index": index.content_hash,
        "scale_in_logits": True,
        "head": head,
        "scale": None if head == "linear" else settings.scale,
        "training_prior": run.config["training_prior"],
        "predicts_prior": run.config["predicts_prior"],
        "test_set": own_test["test_set"],
        "index_folder": own_test["index_folder"],
    }
    return store.Predictions(split, index.image_ids[rows], index.labels[rows], logits, meta, index.group_ids[rows])
