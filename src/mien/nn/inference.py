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


def settings_of(trained: Run) -> TrainConfig:
    """A run's settings without those of a distillation alone; not checked again, since they were when it began."""
    settings: dict[str, Any] = {**trained.settings}
    return TrainConfig.model_construct(**settings)


def load_network(trained: Run) -> Network:
    """The run's network with the weights that val chose, in fp32, for inference."""
    crop = trained.config["crop"]
    network = make_network(settings_of(trained), crop_size=crop["size"], color=crop["color"])
    network.load_state_dict(load_weights(trained.weights))
    return network.eval()


def predict_split(trained: Run, index: Index, split: str, batch_size: int) -> store.Predictions:
    """Logits of one split; test only for the evaluate stage, which checks that it may."""
    check_index(trained, index)
    rows = index.rows(split)
    with meter(f"{trained.name}: {split}", len(rows)) as progress:
        logits = predict_logits(
            load_network(trained), index.pixels, rows, batch_size=batch_size, advance=progress.advance
        )
    # A joint head predicts by its linear one; the others' logits are scaled cosines.
    settings = settings_of(trained)
    head = "linear" if settings.head == "joint" else settings.head
    of_test = test_meta(trained.folder, index.image_ids[index.splits == "test"].tolist(), index.folder)
    meta: store.PredictionsMeta = {
        "name": trained.name,
        "weights_hash": trained.weights_hash,
        "index": index.content_hash,
        "scale_in_logits": True,
        "head": head,
        "scale": None if head == "linear" else settings.scale,
        "training_prior": trained.config["training_prior"],
        "predicts_prior": trained.config["predicts_prior"],
        "test_set": of_test["test_set"],
        "index_folder": of_test["index_folder"],
    }
    return store.Predictions(split, index.image_ids[rows], index.labels[rows], logits, meta, index.group_ids[rows])
