"""MLServer's custom runtime for models it has no runtime of its own for (torch, ONNX)."""

from __future__ import annotations

import trained
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):  # type: ignore[misc]
    """Arrays in, arrays out."""

    async def load(self) -> bool:
        """Load the model in the worker."""
        self.predicts, self.dtype = trained.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the model's answer in the open inference protocol."""
        data = NumpyCodec.decode_input(payload.inputs[0]).astype(self.dtype, copy=False)
        output = NumpyCodec.encode_output("predict", self.predicts(data))
        return InferenceResponse(model_name=self.name, outputs=[output])
