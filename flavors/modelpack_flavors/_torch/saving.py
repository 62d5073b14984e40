"""Saving torch models: what is tried, in which order, and how the written model is compared with the live one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.audits import pt2
from modelpack.errors import ModelpackError, SaveError, UsageError
from modelpack.flavor import Predictor, SaveContext, Saved
from modelpack.frame import Frame
from modelpack.signature import Signature, Table, Tensors
from modelpack_flavors._torch import exporting, feeding, modules, programs, running, scoring
from modelpack_flavors._torch.feeding import Feed

__all__ = ["save"]

REQUIRES = ("torch>=2.10",)
_ENTRIES = {
    "pt2": exporting.ENTRY,
    "safetensors": "model.safetensors",
    "torchscript": "model.pt",
    "torch-pickle": "model.pt",
}
# A graph does the same arithmetic as the module; only the order of a sum may differ.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What an example showed: how data feeds the model, the tensors, the answer's tensors with their names."""

    frame: Frame
    io: Table | Tensors
    feed: Feed
    tensors: Sequence[Any]
    answer: Sequence[tuple[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """A module to be saved, and what has been found out about it."""

    model: Any
    context: SaveContext
    seen: _Seen | None
    feed: Feed
    names: Sequence[str | None] | None

    def path(self, format_id: str) -> Path:
        return self.context.directory / _ENTRIES[format_id]


def save(model: Any, context: SaveContext) -> Saved:
    """Write the model into the context's directory and return what was written."""
    if hasattr(model, "graph_signature"):
        return _save_program(model, context)
    wanted = context.options.get("format")
    parameters = modules.parameters_of(model)
    seen = _look(model, context.example, parameters) if context.example is not None else None
    feed = seen.feed if seen is not None else feeding.blank(parameters)
    job = _Job(model=model, context=context, seen=seen, feed=feed, names=_names(seen, context))
    entrypoint = modules.entrypoint_of(model, context.code, context.options.get("entrypoint"))
    if wanted in ("torchscript", "torch-pickle"):
        (modules.write_script if wanted == "torchscript" else modules.write_pickle)(model, job.path(wanted))
        return _saved(job, wanted)
    if wanted == "safetensors" or (seen is None and wanted is None):
        return _save_weights(job, entrypoint)
    if seen is None:
        raise _needs_example()
    try:
        return _save_graph(job, seen)
    except SaveError as exc:
        if wanted == "pt2" or entrypoint is None or exc.code != "model-unsupported":
            raise
        job.path("pt2").unlink(missing_ok=True)
    return _save_weights(job, entrypoint)


def _needs_example() -> SaveError:
    return SaveError(
        "a torch model needs an example, by which it is exported, or its source files with code=",
        code="example-needed",
        path="example",
        hint="Give example= (a few rows of input), or code= and, if its class takes arguments, options={'kwargs': …}.",
    )


def _look(model: Any, example: Any, parameters: Sequence[Any]) -> _Seen:
    """Run the model on the example: as it is, then with integers as floats, since people write 1 for 1.0.

    Raises:
        SaveError: it fails on both (``example-failed``).
    """
    import torch

    frame, io = feeding.read(example)
    state = modules.state_of(model)
    floats = scoring.floats_of(state)
    device = state[0].device if state else torch.device("cpu")
    feed = feeding.feed_of(io, parameters, floats)
    failures: list[Exception] = []
    for one in dict.fromkeys([feed, feeding.as_floats(feed, floats)]):
        try:
            with torch.inference_mode():
                tensors = one.tensors(frame, floats, device)
                answer = scoring.live_run(model, one)(tensors)
            if answer:
                # Tensors made in inference mode cannot be exported.
                return _Seen(frame=frame, io=io, feed=one, tensors=[_own(t) for t in tensors], answer=answer)
        except ModelpackError:
            raise
        except Exception as exc:
            failures.append(exc)
    cause = failures[0] if failures else TypeError("it gave no tensor")
    raise SaveError(
        f"the model raised {type(cause).__name__} on the example: {cause}",
        code="example-failed",
        path="example",
        hint="Give an example that the model can score, or none.",
    ) from cause


def _own(tensor: Any) -> Any:
    import torch

    with torch.inference_mode(False):
        return torch.empty_like(tensor, memory_format=torch.contiguous_format).copy_(tensor)


def _names(seen: _Seen | None, context: SaveContext) -> list[str | None] | None:
    """Return the names of the answer's tensors; None for one bare tensor, or if nobody says."""
    asked: Sequence[str | None] | None = context.options.get("outputs")
    if seen is None:
        return list(asked) if asked else None
    if asked is not None and len(asked) != len(seen.answer):
        raise UsageError(
            f"the model gives {len(seen.answer)} tensors where {len(asked)} are named",
            code="option-invalid",
            path="options.outputs",
        )
    names: list[str | None] = [*asked] if asked is not None else [name for name, _ in seen.answer]
    if names == [""]:
        return None
    _check_rows(seen, names)
    return names


def _check_rows(seen: _Seen, names: Sequence[str | None]) -> None:
    """Refuse an answer of several tensors that are not all rows of the batch.

    Raises:
        SaveError: there is one that is not (``model-unsupported``).
    """
    kept = [(name, tensor) for name, (_, tensor) in zip(names, seen.answer, strict=True) if name]
    for name, tensor in kept if len(kept) > 1 else ():
        if tensor.shape[:1] != (seen.frame.rows,):
            raise SaveError(
                f"the first dimension of the answer's {name!r} is not that of the rows",
                code="model-unsupported",
                path="options.outputs",
                hint="Leave it out by None instead of a name: options={'outputs': ['…', None]}.",
            )


def _save_graph(job: _Job, seen: _Seen) -> Saved:
    free = job.context.options.get("batch", "free") == "free"
    dynamic = job.context.options.get("dynamic", {})
    with scoring.evaluating(job.model):
        program = exporting.export(job.model, seen.feed, seen.tensors, dynamic, free=free)
    path = job.path("pt2")
    exporting.write(program, path)
    contents = pt2.inspect(path.read_bytes(), path.name)
    _compare(job.model, contents, seen, free=free)
    shapes = exporting.shapes(seen.feed, seen.tensors, dynamic, free=free)
    return replace(
        _saved(job, "pt2", shapes),
        outputs=programs.outputs_of(contents, programs.named(seen.feed, shapes), job.names),
        declares={"torch": contents.torch_version, "operators": list(contents.program.targets)},
        needs_code=False,
    )


def _compare(model: Any, contents: pt2.Contents, seen: _Seen, *, free: bool) -> None:
    """Hold the written graph to the module's answers, on all rows and, where their number is free, on the first alone.

    Raises:
        SaveError: the answers differ (``model-unsupported``).
    """
    import torch

    runner = running.build(contents, seen.tensors[0].device)
    batches = [list(seen.tensors)]
    if free and all(tensor.ndim for tensor in seen.tensors):
        batches.append([tensor[:1] for tensor in seen.tensors])
    for tensors in batches:
        try:
            with torch.inference_mode():
                live = scoring.live_run(model, seen.feed)([one.clone() for one in tensors])
                written = [one for one in runner(tensors) if one is not None]
        except Exception as exc:
            raise _differs(f"it raised {type(exc).__name__}: {exc}") from exc
        if len(live) != len(written):
            raise _differs(f"it gives {len(written)} tensors, the model {len(live)}")
        for (name, one), other in zip(live, written, strict=True):
            same = torch.is_tensor(other) and one.shape == other.shape and one.dtype == other.dtype
            if not same or not np.allclose(_array(one), _array(other), equal_nan=True, **TOLERANCE):
                raise _differs(f"{name or 'its answer'} is another")


def _array(tensor: Any) -> Any:
    return feeding.answers([("", tensor)], None)


def _differs(message: str) -> SaveError:
    return SaveError(
        f"the exported program does not answer as the model does: {message}",
        code="model-unsupported",
        path="example",
        hint="A model whose steps depend on values or that draws random numbers needs its source files with code=.",
    )


def _save_weights(job: _Job, entrypoint: str | None) -> Saved:
    if entrypoint is None:
        raise _needs_example()
    path = job.path("safetensors")
    modules.write_weights(job.model, path)
    kwargs = job.context.options.get("kwargs", {})
    if "entrypoint" not in job.context.options:
        _check_class(type(job.model), kwargs, path)
    saved = _saved(job, "safetensors")
    config = {**saved.config, **({"kwargs": dict(kwargs)} if kwargs else {})}
    return replace(saved, entrypoint=entrypoint, config=config)


def _check_class(kind: Any, kwargs: Mapping[str, Any], path: Path) -> None:
    """Build the module again as it will be when loaded.

    Raises:
        SaveError: the class does not make it (``model-unsupported``).
    """
    try:
        modules.rebuilt(kind, kwargs, modules.tensors(path.read_bytes(), path.name))
    except Exception as exc:
        raise SaveError(
            f"{kind.__qualname__}({', '.join(f'{name}=…' for name in kwargs)}) does not make this model again: {exc}",
            code="model-unsupported",
            path="options.kwargs",
            hint="Give the arguments of its class: options={'kwargs': {…}}.",
        ) from exc


def _saved(job: _Job, format_id: str, shapes: Sequence[Sequence[Any]] | None = None) -> Saved:
    seen = job.seen
    if seen is not None and shapes is None:
        shapes = exporting.shapes(job.feed, seen.tensors, {}, free=True)
    kind = type(job.model)
    return Saved(
        format=format_id,
        entry=_ENTRIES[format_id],
        predictor=_live(job),
        config=_config(job.feed if seen is not None else None, job.names, job.context),
        packages=("torch",) if format_id in ("torchscript", "torch-pickle") else (),
        requires=REQUIRES,
        declares={"module": f"{kind.__module__}.{kind.__qualname__}"},
        inputs=feeding.inputs_of(seen.io, job.feed, shapes or ()) if seen is not None else None,
    )


def _live(job: _Job) -> Predictor:
    import torch

    state = modules.state_of(job.model)
    return scoring.Scorer(
        run=scoring.live_run(job.model, job.feed),
        feed=job.feed,
        floats=scoring.floats_of(state),
        device=state[0].device if state else torch.device("cpu"),
        names=job.names,
    )


def _config(feed: Feed | None, names: Sequence[str | None] | None, context: SaveContext) -> dict[str, Any]:
    chosen = {key: context.options[key] for key in ("device", "threads") if key in context.options}
    return {**(feed.to_json() if feed else {}), **({"outputs": list(names)} if names else {}), **chosen}


# Exported programs, ours or those of others.


def _save_program(program: Any, context: SaveContext) -> Saved:
    if context.options.get("format", "pt2") != "pt2":
        raise UsageError("an exported program is written as pt2", code="option-invalid", path="options.format")
    import torch

    path = context.directory / exporting.ENTRY
    exporting.write(program, path)
    contents = pt2.inspect(path.read_bytes(), path.name)
    feed, count = programs.feed_of(contents), programs.count(contents)
    names = context.options.get("outputs") or exporting.names_of(contents.tree, count)
    runner = running.build(contents, torch.device("cpu"))
    inputs = programs.inputs_of(contents)
    seen = feeding.read(context.example)[1] if context.example is not None else None
    if isinstance(seen, Table):
        shapes = [tensor.shape for tensor in inputs.tensors]
        inputs_seen: Table | Tensors | None = feeding.inputs_of(seen, feed, shapes)
    else:
        inputs_seen = inputs if seen is not None else None
    return Saved(
        format="pt2",
        entry=exporting.ENTRY,
        predictor=scoring.Scorer(
            run=scoring.runner_run(runner, names),
            feed=feed,
            floats=scoring.floats_of(runner.weights),
            device=torch.device("cpu"),
            names=names,
        ),
        config=_config(feed, names, context),
        requires=REQUIRES,
        declares={"torch": contents.torch_version, "operators": list(contents.program.targets)},
        signature=Signature(inputs=inputs),
        inputs=inputs_seen,
        outputs=programs.outputs_of(contents, [(t.name, t.shape) for t in inputs.tensors], names)
        if inputs_seen is not None
        else None,
        needs_code=False,
    )
