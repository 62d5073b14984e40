"""The BentoML service, as its documentation writes them; what it serves is said by the environment."""

from __future__ import annotations

import os

import bentoml
import numpy as np
import trained

BATCHED = {"batchable": True, "max_batch_size": 1024} if os.environ["BENCH_BATCH"] != "1" else {}


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]), traffic={"timeout": 60}, logging={"access": {"enabled": False}}
)
class Served:
    """Arrays in, arrays out."""

    def __init__(self) -> None:
        """Load the model in the worker."""
        self.predicts, self.dtype = trained.load(os.environ["BENCH_MODEL"])

    @bentoml.api(**BATCHED)
    def predict(self, data: np.ndarray) -> np.ndarray:
        """Return the model's answer."""
        return self.predicts(np.asarray(data, dtype=self.dtype))
