"""Modules that need code to be built again: weights and a class, TorchScript, whole pickles."""

from __future__ import annotations

import inspect
import io
import pickle
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelpack.audits import safetensors_file
from modelpack.errors import PackageError, SaveError
from modelpack.flavor import LoadContext
from modelpack.optional import require

__all__ = [
    "entrypoint_of",
    "load_class",
    "load_pickle",
    "load_script",
    "parameters_of",
    "rebuilt",
    "state_of",
    "tensors",
    "write_pickle",
    "write_script",
    "write_weights",
]

_DTYPES: Mapping[str, str] = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu", "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16",
    "I32": "int32", "U32": "uint32", "F32": "float32", "I64": "int64", "U64": "uint64", "F64": "float64",
    "C64": "complex64",
}  # fmt: skip


def entrypoint_of(model: Any, code: Sequence[Path], asked: str | None) -> str | None:
    """Return ``module:Class`` if the model's class stands in the source files given."""
    if asked is not None or not code:
        return asked
    kind = type(model)
    own = {path.resolve().name.removesuffix(".py") for path in code}
    if kind.__module__.partition(".")[0] not in own or "<" in kind.__qualname__:
        return None
    return f"{kind.__module__}:{kind.__qualname__}"


def write_weights(model: Any, path: Path) -> None:
    """Write the model's state as safetensors; tensors that share memory are written once each.

    Raises:
        SaveError: the state holds more than tensors (``model-unsupported``).
    """
    save = require("safetensors.torch", what="Writing a model's weights", extra="torch").save_file
    state = model.state_dict()
    for name, value in state.items():
        if not hasattr(value, "untyped_storage"):
            raise SaveError(f"{name!r} in the model's state is no tensor", code="model-unsupported")
    save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, path)


def tensors(raw: bytes | memoryview, entry: str) -> dict[str, Any]:
    """Return the tensors of a safetensors file, in memory of their own."""
    import torch

    found = {}
    for name, one in safetensors_file.inspect(raw, entry).items():
        dtype = getattr(torch, _DTYPES[one.dtype])
        if one.start == one.stop:
            found[name] = torch.empty(one.shape, dtype=dtype)
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            flat = torch.frombuffer(memoryview(raw)[one.start : one.stop], dtype=dtype)
        found[name] = flat.reshape(one.shape).clone()
    return found


def rebuilt(factory: Any, kwargs: Mapping[str, Any], state: Mapping[str, Any]) -> Any:
    """Return a module made by ``factory(**kwargs)`` that holds the state.

    Raises:
        TypeError, RuntimeError, ValueError: it is not made so, or has other weights.
    """
    import torch

    model = factory(**kwargs)
    if not isinstance(model, torch.nn.Module):
        raise TypeError("it makes no torch.nn.Module")
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def load_class(context: LoadContext, kwargs: Mapping[str, Any], device: Any) -> Any:
    """Import the class and give it its weights; runs code from the package."""
    entry = context.entry or ""
    state = tensors(context.files.view(entry), entry)
    factory = context.namespace.resolve(context.entrypoint or "")
    try:
        return rebuilt(factory, kwargs, state).to(device)
    except (TypeError, RuntimeError, ValueError) as exc:
        raise PackageError(
            f"the package's code does not make the model that its weights are for: {exc}",
            code="payload-invalid",
            path=entry,
        ) from exc


def write_script(model: Any, path: Path) -> None:
    """Write a scripted module."""
    import torch

    if not isinstance(model, torch.jit.ScriptModule):
        raise SaveError(
            "only a torch.jit.ScriptModule is written as TorchScript",
            code="model-unsupported",
            path="options.format",
            hint="Give the result of torch.jit.script or torch.jit.trace.",
        )
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(model, buffer)
    path.write_bytes(buffer.getvalue())


def load_script(raw: bytes, device: Any) -> Any:
    """Build a scripted module."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        load: Any = torch.jit.load
        return load(io.BytesIO(raw), map_location=device).eval()


def write_pickle(model: Any, path: Path) -> None:
    """Write a whole module as torch.save does."""
    import torch

    buffer = io.BytesIO()
    try:
        torch.save(model, buffer)
    except Exception as exc:
        raise SaveError(f"the model cannot be pickled: {type(exc).__name__}: {exc}", code="model-unpicklable") from exc
    path.write_bytes(buffer.getvalue())


def load_pickle(raw: bytes, namespace: Any, device: Any) -> Any:
    """Unpickle a module; the package's own modules are found in its own namespace."""
    import torch

    namespace.install()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if namespace.owns(module):
                namespace.import_module(module)
                module = namespace.qualify(module)
            return super().find_class(module, name)

    found = types.ModuleType("modelpack_torch_pickle")
    found.__dict__.update(vars(pickle), Unpickler=Unpickler, load=lambda file, **more: Unpickler(file, **more).load())
    model = torch.load(io.BytesIO(raw), map_location=device, weights_only=False, pickle_module=found)
    if not isinstance(model, torch.nn.Module):
        raise PackageError("the pickle holds no torch.nn.Module", code="payload-invalid")
    return model.eval()


def parameters_of(model: Any) -> list[inspect.Parameter]:
    """Return the parameters of the module's ``forward``, without self; none for those of any number."""
    try:
        found = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []
    return [one for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.POSITIONAL_ONLY, one.KEYWORD_ONLY)]


def state_of(model: Any) -> list[Any]:
    """Return the module's parameters, then its buffers."""
    return [*model.parameters(), *model.buffers()]
