"""A torch model behind one call: arrays in, arrays out, in inference mode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from modelpack.errors import FlavorError
from modelpack.flavor import Form
from modelpack.frame import Frame
from modelpack_flavors._torch import feeding, options
from modelpack_flavors._torch.feeding import Feed

__all__ = ["DEVICE", "Scorer", "device_of", "evaluating", "floats_of", "set_threads"]

DEVICE = "MODELPACK_TORCH_DEVICE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """Calls ``run`` with the tensors of a feed; it returns the answer's tensors with their names.

    ``weights`` are the tensors that the model holds, as far as they are known.
    """

    run: Callable[[Sequence[Any]], Sequence[tuple[str, Any]]]
    feed: Feed
    floats: str | None
    device: Any
    names: Sequence[str | None] | None
    weights: Sequence[Any] = ()
    form: Form = "frame"

    def predict(self, data: Frame, params: Mapping[str, Any]) -> Any:
        """Return the answer: one array, or arrays by name."""
        import torch

        with torch.inference_mode():
            tensors = self.feed.tensors(data, self.floats, self.device)
            return feeding.answers(self.run(tensors), self.names)


def module_run(model: Any, feed: Feed) -> Callable[[Sequence[Any]], Sequence[tuple[str, Any]]]:
    """Return the function that calls a module."""

    def run(tensors: Sequence[Any]) -> Sequence[tuple[str, Any]]:
        # A module may work in place, and the tensors may share the caller's memory.
        args, kwargs = feed.arguments([tensor.clone() for tensor in tensors])
        return list(feeding.flattened(model(*args, **kwargs)))

    return run


def live_run(model: Any, feed: Feed) -> Callable[[Sequence[Any]], Sequence[tuple[str, Any]]]:
    """Return the function that calls somebody's module: in evaluation mode, and leaving it as it was."""
    call = module_run(model, feed)

    def run(tensors: Sequence[Any]) -> Sequence[tuple[str, Any]]:
        with evaluating(model):
            return call(tensors)

    return run


def runner_run(runner: Any, names: Sequence[str | None] | None) -> Callable[[Sequence[Any]], Sequence[tuple[str, Any]]]:
    """Return the function that runs an audited program."""

    def run(tensors: Sequence[Any]) -> Sequence[tuple[str, Any]]:
        found = [one for one in runner(tensors) if one is not None]
        given = [""] if names is None else [name or "" for name in names]
        return list(zip(given, found, strict=True))

    return run


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a module into evaluation mode, and back as it was, its buffers too."""
    import torch

    training = [module for module in model.modules() if module.training]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
        for module in training:
            module.training = True


def floats_of(tensors: Any) -> str | None:
    """Return the name of the first float type among tensors, which is the one the model computes in."""
    for tensor in tensors:
        if tensor.is_floating_point():
            return str(tensor.dtype).removeprefix("torch.")
    return None


def device_of(config: Mapping[str, Any]) -> Any:
    """Return the device to load on: that of the environment variable, or of the config ("auto": a GPU if there is one).

    Raises:
        FlavorError: there is no such device here (``device-unavailable``).
    """
    import torch

    name = os.environ.get(DEVICE) or config.get("device") or "cpu"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if not options.is_device(name):
            raise ValueError(name)
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception as exc:
        raise FlavorError(
            f"torch has no device {str(name)[:40]!r} here",
            code="device-unavailable",
            hint=f"Set {DEVICE} to another, cpu for example.",
        ) from exc
    return device


def set_threads(config: Mapping[str, Any]) -> None:
    """Set the number of threads that one operator may use, for this process, if the config says one."""
    import torch

    threads = config.get("threads")
    if threads is not None:
        torch.set_num_threads(threads)
