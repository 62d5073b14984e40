"""What is measured: the loads, the models they are put on, and how long and how often."""

from __future__ import annotations

from dataclasses import dataclass

LOGISTIC = ("logistic",)
COLUMNS = ("columns10", "columns100", "columns2000")


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests of so many rows on so many connections, one after the other on each."""

    rows: int
    connections: int
    models: tuple[str, ...]
    arrow: bool = False  # Arrow in and out; only our server speaks it
    quick: bool = False
    both: bool = False  # server and client share all cores

    @property
    def name(self) -> str:
        """Return a short name: the key in the results."""
        return f"{'arrow' if self.arrow else 'json'} {self.rows}x{self.connections}"


LOADS = (
    Load(rows=1, connections=1, models=(*LOGISTIC, "forest", "mlp", "image"), quick=True),
    Load(rows=1, connections=32, models=(*LOGISTIC, "forest", "boosting", "mlp", "image"), quick=True),
    Load(rows=1, connections=256, models=LOGISTIC),
    Load(rows=1, connections=8, models=COLUMNS),
    Load(rows=64, connections=8, models=(*LOGISTIC, "forest", "boosting", "mlp")),
    Load(rows=1000, connections=8, models=LOGISTIC, quick=True),
    Load(rows=1000, connections=8, models=LOGISTIC, arrow=True),
    Load(rows=100_000, connections=1, models=LOGISTIC, arrow=True, quick=True),
)
MODELS = (*LOGISTIC, "forest", "boosting", "mlp", "image", *COLUMNS, "svm")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much time a run takes."""

    rounds: int  # for the logistic pipeline; other models take fewer
    other_rounds: int
    seconds: float
    warm: float
    overload_seconds: float
    overload: tuple[float, ...]
    workers: int  # how many are started to see what one more costs; 0: not measured


FULL = Effort(
    rounds=5,
    other_rounds=3,
    seconds=3,
    warm=1,
    overload_seconds=4,
    overload=(0.2, 0.5, 0.8, 1, 1.5, 2, 3, 5),
    workers=3,
)
QUICK = Effort(rounds=2, other_rounds=1, seconds=2, warm=0.5, overload_seconds=2, overload=(0.5, 1, 5), workers=0)
# A model that costs so much for each row that refusing is cheap beside answering, and five times the capacity of the
# quickest server is what the open loop can offer. A batch of it gains nothing by being large.
OVERLOAD_MODEL, OVERLOAD_ROWS, OVERLOAD_DEADLINE = "svm", 8, 1.0
OVERLOAD_CONNECTIONS = (64, 512)  # capacity is what the better of them gets: some servers need many for large batches
OVERLOAD_MOST = 12_000  # requests/s that the open loop can offer from its one core; points above are left out
OVERLOAD_BATCH = 256  # rows of one request that stands for a full batch: what our server gathers in a tenth of a second
QUICK_SYSTEMS = (
    *("floor", "modelpack", "modelpack, ONNX twin", "MLflow", "MLServer"),
    *("LitServe", "LitServe, batching", "BentoML"),
)
