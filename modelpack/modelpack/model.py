"""A loaded model: a manifest and a predictor behind one call."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

from modelpack import coerce, render
from modelpack.errors import ModelError, ModelpackError, UsageError
from modelpack.flavor import BUILTIN, Predictor, StreamingPredictor
from modelpack.frame import Frame
from modelpack.manifest import Manifest
from modelpack.panics import is_failure
from modelpack.signature import IO, Signature

if TYPE_CHECKING:
    from modelpack.package import Candidate, Package

__all__ = ["Model"]


class Model:
    """A model that scores data: checked on the way in, checked on the way out."""

    def __init__(self, package: Package, predictor: Predictor, candidate: Candidate) -> None:
        self.package = package
        self.candidate = candidate
        self._predictor = predictor

    def __repr__(self) -> str:
        return f"<Model {self.manifest.name} {self.manifest.version} flavor={self.candidate.name}>"

    @property
    def manifest(self) -> Manifest:
        """The package's manifest."""
        return self.package.manifest

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self.package.manifest.signature

    @property
    def digest(self) -> str:
        """The package's digest."""
        return self.package.digest

    @property
    def streams(self) -> bool:
        """Whether the model can answer piece by piece (:meth:`predict_stream`)."""
        return isinstance(self._predictor, StreamingPredictor)

    @property
    def driver_only(self) -> bool:
        """Whether the model needs a driver of a cluster to score, so that no executor can load it."""
        return bool(getattr(self._predictor, "driver_only", False))

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Score the data and return the model's own answer: an array, a DataFrame, whatever the model gives.

        ``data`` is a DataFrame, a dict of columns, a list of records, an array, an Arrow table; it is coerced to the
        signature without loss or refused.

        Raises:
            InputError: data or params do not fit the signature; nothing was scored.
            ModelError: the model raised; the original exception is ``__cause__``.
            OutputError: the answer does not fit the signature.
        """
        frame = coerce.inputs(data, self.signature)
        values = coerce.params(params, self.signature)
        answer = self._call(frame, values)
        self._checked(answer, frame, values)
        return answer

    def predict_stream(self, data: Any, params: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Score the data and yield the pieces of the answer as the model makes them.

        Raises:
            UsageError: the model does not stream (``stream-unsupported``).
            InputError, ModelError: as :meth:`predict`.
        """
        frame = coerce.inputs(data, self.signature)
        return self.score_stream(frame, coerce.params(params, self.signature))

    def score_stream(self, frame: Frame, params: Mapping[str, Any]) -> Iterator[Any]:
        """Score coerced data and yield the pieces of the answer: what the server calls.

        Raises:
            UsageError, ModelError: as :meth:`predict_stream`.
        """
        if not isinstance(self._predictor, StreamingPredictor):
            raise UsageError("the model gives its answer at once", code="stream-unsupported", hint="Use predict.")
        return self._guarded(self._predictor.predict_stream(render.to(frame, self._predictor.form), params))

    def score(self, frame: Frame, params: Mapping[str, Any]) -> Frame:
        """Score coerced data and return the checked answer as a Frame: what the server and batch call.

        ``params`` are as :func:`modelpack.coerce.params` returns them.
        """
        answer = self._call(frame, params)
        return self._checked(answer, frame, params)

    def _checked(self, answer: Any, frame: Frame, params: Mapping[str, Any]) -> Frame:
        known = coerce.symbols(frame, self.signature)
        return coerce.outputs(answer, self._outputs(params), rows=frame.rows, known=known)

    def _call(self, frame: Frame, params: Mapping[str, Any]) -> Any:
        data = render.to(frame, self._predictor.form)
        try:
            return self._predictor.predict(data, params)
        except ModelpackError as exc:
            # What the flavor refuses is told as it is; what the model's own code raises is the model's failure,
            # also if that code uses modelpack.
            if _passed_through(exc, {"modelpack", BUILTIN, _top(type(self._predictor).__module__)}):
                raise
            raise _raised(exc) from exc
        # sys.exit() in a model is a failure too, never the end of the program with a code of the model's choice.
        except BaseException as exc:
            if not is_failure(exc):
                raise
            raise _raised(exc) from exc

    def _guarded(self, pieces: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from pieces
        except BaseException as exc:
            if not is_failure(exc):
                raise
            raise _raised(exc) from exc

    def _outputs(self, params: Mapping[str, Any]) -> IO | None:
        """Return what the answer must fit: nothing where a param has changed what the model gives."""
        return None if coerce.changes_outputs(params, self.signature) else self.signature.outputs


def _passed_through(exc: BaseException, tops: Set[str]) -> bool:
    """Say whether the exception came through modules of these top-level packages only."""
    return all(_top(frame.f_globals.get("__name__", "")) in tops for frame, _ in traceback.walk_tb(exc.__traceback__))


def _top(module: str) -> str:
    return module.partition(".")[0]


def _raised(exc: BaseException) -> ModelError:
    return ModelError(f"the model raised {type(exc).__name__}", code="model-raised")
