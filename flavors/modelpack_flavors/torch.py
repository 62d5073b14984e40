"""PyTorch: modules as audited graphs with their weights, or with the code that builds them (docs/flavors/torch.md)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.audits import pt2
from modelpack.audits.pt2_program import Unlisted
from modelpack.errors import FlavorError, TrustError
from modelpack.flavor import LoadContext, Predictor, SaveContext, Saved
from modelpack.optional import require
from modelpack_flavors._torch import exporting, feeding, modules, options, programs, running, saving, scoring
from modelpack_flavors._torch.feeding import Feed

__all__ = ["FLAVOR"]


@dataclass(frozen=True, slots=True)
class TorchFlavor:
    """Saves and loads modules and exported programs of PyTorch.

    Options of save: ``format`` ("pt2", "safetensors", "torchscript", "torch-pickle"), ``outputs`` (names of the
    answer's tensors), ``dynamic`` (free dimensions by input and axis), ``batch`` ("free" or "fixed"), ``device``,
    ``threads``, and for "safetensors" ``entrypoint`` and ``kwargs``.
    """

    name: str = "torch"
    version: str = "1"
    formats: Sequence[str] = ("pt2", "safetensors", "torchscript", "torch-pickle")
    extra: str = "torch"

    def matches(self, model: object) -> int:
        """Return 50 for modules and exported programs."""
        bases = {(base.__module__, base.__name__) for base in type(model).__mro__}
        known = {("torch.nn.modules.module", "Module"), ("torch.export.exported_program", "ExportedProgram")}
        return 50 if bases & known else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Write the model in the first format that can hold it: a graph, or weights and the class in ``code=``.

        Raises:
            UsageError: an unknown option, or one with an unknown value (``option-unknown``, ``option-invalid``).
            SaveError: the model cannot be written (``model-unsupported``), needs an example (``example-needed``), or
                fails on it (``example-failed``).
        """
        options.check(context.options)
        require("torch", what="Saving a torch model", extra=self.extra)
        return saving.save(model, context)

    def load(self, context: LoadContext) -> Predictor:
        """Build the predictor from verified bytes; a graph is run by our own reader of it, and by nothing else.

        Raises:
            UsageError: torch is not installed (``extra-missing``).
            TrustError: the payload needs class ``code``, which is not granted (``code-not-allowed``).
            FlavorError: the config is not one for this model (``config-invalid``), there is no such device
                (``device-unavailable``), or torch is too old (``operator-missing``).
            PackageError: the file is not what its format says (``payload-invalid``).
        """
        require("torch", what="Loading a torch model", extra=self.extra)
        config = options.configured(context.config)
        device = scoring.device_of(config)
        scoring.set_threads(config)
        if context.format == "pt2":
            raw = context.files.view(context.entry or "")
            try:
                return _graph(pt2.inspect(raw, context.entry or ""), config, device)
            except Unlisted:
                # What the audit calls class code needs a grant, whoever asks.
                _granted(context)
            return _module(_exported(bytes(raw)), config, device)
        _granted(context)
        if context.format == "safetensors":
            return _module(modules.load_class(context, config.get("kwargs", {}), device), config, device)
        raw = context.files.read(context.entry or "")
        if context.format == "torchscript":
            return _module(modules.load_script(raw, device), config, device)
        return _module(modules.load_pickle(raw, context.namespace, device), config, device)


def _granted(context: LoadContext) -> None:
    if not context.code_allowed:
        raise TrustError("loading it can run code from the package", code="code-not-allowed")


def _exported(raw: bytes) -> Any:
    import torch

    return torch.export.load(io.BytesIO(raw)).module()


def _graph(contents: pt2.Contents, config: Mapping[str, Any], device: Any) -> Predictor:
    feed = options.feed_of(config) or programs.feed_of(contents)
    users = sum(one.kind == "user" for one in contents.program.inputs)
    if len(feed.names) != users:
        raise FlavorError(
            f"the program takes {users} inputs where {len(feed.names)} are named",
            code="config-invalid",
            path="flavors.config.inputs",
        )
    names = config["outputs"] if "outputs" in config else exporting.names_of(contents.tree, programs.count(contents))
    runner = running.build(contents, device)
    return scoring.Scorer(
        run=scoring.runner_run(runner, names),
        feed=feed,
        floats=scoring.floats_of(runner.weights),
        device=device,
        names=names,
        weights=runner.weights,
    )


def _module(model: Any, config: Mapping[str, Any], device: Any) -> Predictor:
    feed: Feed = options.feed_of(config) or feeding.blank(modules.parameters_of(model))
    return scoring.Scorer(
        run=scoring.module_run(model, feed),
        feed=feed,
        floats=scoring.floats_of(modules.state_of(model)),
        device=device,
        names=config.get("outputs"),
    )


FLAVOR = TorchFlavor()
