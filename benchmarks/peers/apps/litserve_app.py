"""The LitServe app: `python litserve_app.py FOLDER PORT WORKERS BATCH`, as its documentation writes them.

LitServe reads the annotations of ``decode_request``; without one it hands over the decoded JSON.
"""

import sys
from typing import Any

import litserve
import numpy as np
import trained


class Api(litserve.LitAPI):  # type: ignore[misc]
    """Arrays in, lists out."""

    folder = ""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.predicts, self.dtype = trained.load(self.folder)

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Return the request's array."""
        return np.asarray(request["input"], dtype=self.dtype)

    def batch(self, inputs: list[Any]) -> Any:
        """Return the rows of all requests in one array."""
        self.ends = np.cumsum([len(data) for data in inputs])[:-1]
        return np.concatenate(inputs)

    def predict(self, x: Any) -> Any:
        """Return the model's answer."""
        return self.predicts(x)

    def unbatch(self, output: Any) -> list[Any]:
        """Return each request's rows."""
        return np.split(output, self.ends)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return what becomes JSON."""
        return {"output": output.tolist()}


def main() -> None:
    """Serve until stopped."""
    folder, port, workers, batch = sys.argv[1], *(int(word) for word in sys.argv[2:5])
    api = Api(max_batch_size=batch, batch_timeout=0.005) if batch > 1 else Api()
    api.folder = folder
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=workers)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
