"""Runs the steps of an audited program with torch's own operators; nothing is unpickled, imported or evaluated."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.audits.pt2 import Contents, Weight
from modelpack.audits.pt2_program import Named, Ref, Step
from modelpack.errors import FlavorError, PackageError
from modelpack_flavors._torch.guards import guarded

__all__ = ["Runner", "build"]


@dataclass(frozen=True, slots=True)
class _Call:
    """One step made ready: a function, its arguments with the places of earlier values, where its results go."""

    function: Callable[..., Any]
    positional: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]
    outputs: tuple[Any, ...]
    drop: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a value during one run."""

    index: int


class Runner:
    """A program that can be called with its user inputs, in order; returns its outputs, in order."""

    def __init__(
        self,
        values: list[Any],
        users: Sequence[int],
        calls: Sequence[_Call],
        outputs: Sequence[Any],
        written: Sequence[int],
    ) -> None:
        self._values = values
        self._users = tuple(users)
        self._calls = tuple(calls)
        self._outputs = tuple(outputs)
        self._written = tuple(written)

    @property
    def weights(self) -> list[Any]:
        """The tensors that the program holds, in the order of its inputs."""
        return [one for one in self._values if one is not None]

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """Run the program; the weights stay as they are."""
        values = list(self._values)
        for place, given in zip(self._users, inputs, strict=True):
            values[place] = given
        for place in self._written:
            # What is worked on in place is a copy: not the caller's array, not the next call's weight.
            values[place] = values[place].clone()
        for call in self._calls:
            positional = [_filled(one, values) for one in call.positional]
            keywords = {name: _filled(one, values) for name, one in call.keywords}
            _put(call.function(*positional, **keywords), call.outputs, values)
            for place in call.drop:
                values[place] = None
        return [_filled(one, values) for one in self._outputs]


def _filled(value: Any, values: Sequence[Any]) -> Any:
    if type(value) is _Place:
        return values[value.index]
    if type(value) is list:
        return [_filled(one, values) for one in value]
    return value


def _put(result: Any, outputs: tuple[Any, ...], values: list[Any]) -> None:
    if len(outputs) == 1:
        (place,) = outputs
        if type(place) is int:
            values[place] = result
        elif type(place) is list:
            _put(result, tuple(place), values)
        return
    for place, one in zip(outputs, result if outputs else (), strict=True):
        if type(place) is list:
            _put(one, tuple(place), values)
        elif place is not None:
            values[place] = one


def build(contents: Contents, device: Any) -> Runner:
    """Return the program on ``device``.

    Raises:
        FlavorError: the installed torch has not all of its operators (``operator-missing``).
        PackageError: an operator does not take the arguments that the program gives (``payload-invalid``).
    """
    return _Builder(contents, device).build()


class _Builder:
    def __init__(self, contents: Contents, device: Any) -> None:
        self.contents = contents
        self.device = device
        self.places: dict[str, int] = {}
        # For each value the inputs whose memory it may share, and the inputs whose memory is written to.
        self.shares: dict[int, set[int]] = {}
        self.written: set[int] = set()

    def build(self) -> Runner:
        program = self.contents.program
        users = [self.place(one.name) for one in program.inputs if one.kind == "user"]
        for one in program.inputs:
            self.shares[self.place(one.name)] = {self.place(one.name)}
        calls = [self.call(step) for step in program.steps]
        outputs = [self.argument(one.value) for one in program.outputs]
        keep = {self.places[one.name] for one in program.inputs if one.kind != "user"}
        calls = _with_drops(calls, outputs, keep)
        values: list[Any] = [None] * len(self.places)
        for one in program.inputs:
            if one.kind in ("weight", "constant"):
                source = self.contents.weights if one.kind == "weight" else self.contents.constants
                values[self.places[one.name]] = self.weight(source[one.source])
        return Runner(values, users, calls, outputs, sorted(self.written))

    def place(self, name: str) -> int:
        return self.places.setdefault(name, len(self.places))

    def weight(self, weight: Weight) -> Any:
        """Return a tensor over the weight's bytes, which it shares."""
        import torch

        dtype = getattr(torch, weight.dtype)
        if not len(weight.data):
            return torch.empty(weight.shape, dtype=dtype, device=self.device)
        with warnings.catch_warnings():
            # The bytes cannot be written to, and nothing does: what works in place gets a copy.
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            flat = torch.frombuffer(weight.data, dtype=dtype)
        return flat.as_strided(weight.shape, weight.strides, weight.offset).to(self.device)

    def call(self, step: Step) -> _Call:
        outputs = tuple([self.result(one) for one in step.outputs])
        arguments = {name: self.argument(value) for name, value in step.arguments}
        if not step.target.startswith("torch.ops."):
            return _Call(_plain(step.target), tuple(arguments.values()), (), outputs, ())
        function = self.operator(step.target)
        schema = function._schema
        self.follow(schema, arguments, outputs)
        positional: list[Any] = []
        keywords: list[tuple[str, Any]] = []
        for one in schema.arguments:
            if one.is_out:
                self.refuse(f"{step.target} writes into a result of its caller's")
            if one.name not in arguments:
                continue
            value = arguments.pop(one.name)
            if one.kwarg_only or len(positional) != schema.arguments.index(one):
                keywords.append((one.name, value))
            else:
                positional.append(value)
        if arguments:
            self.refuse(f"{step.target} does not take {next(iter(arguments))[:40]!r}")
        return _Call(guarded(function), tuple(positional), tuple(keywords), outputs, ())

    def follow(self, schema: Any, arguments: Mapping[str, Any], outputs: Sequence[Any]) -> None:
        """Note whose memory the results of an operator may share, and whose it writes to."""
        shared: set[int] = set()
        for one in schema.arguments:
            if one.alias_info is not None:
                sources = {s for place in _places([arguments.get(one.name)]) for s in self.shares.get(place, ())}
                shared |= sources
                if one.alias_info.is_write:
                    self.written |= sources
        for place in _numbers(outputs):
            self.shares[place] = shared

    def operator(self, target: str) -> Any:
        import torch

        name, overload = target.split(".")[-2:]
        packet = getattr(torch.ops.aten, name, None)
        if packet is None or overload not in packet.overloads():
            raise FlavorError(
                f"the installed torch {torch.__version__} has no operator {target}",
                code="operator-missing",
                hint=f"The model was exported with torch {self.contents.torch_version or 'of another version'}.",
            )
        return getattr(packet, overload)

    def refuse(self, message: str) -> Any:
        raise PackageError(message, code="payload-invalid")

    def result(self, output: Any) -> Any:
        if output is None:
            return None
        return [self.result(one) for one in output] if isinstance(output, list) else self.place(output)

    def argument(self, value: Any) -> Any:
        import torch

        match value:
            case Ref(name=name):
                return _Place(self.places[name])
            case Named(kind="device"):
                return self.device
            case Named(name=name):
                return getattr(torch, name)
            case list():
                return [self.argument(one) for one in value]
        return value


def _with_drops(calls: Sequence[_Call], outputs: Sequence[Any], keep: set[int]) -> list[_Call]:
    """Let every value go after its last use, so that memory is that of the values in use."""
    seen = {*keep, *_places(outputs)}
    found = []
    for call in reversed(calls):
        used = {*_places(call.positional), *_places([one for _, one in call.keywords]), *_numbers(call.outputs)}
        found.append(_Call(call.function, call.positional, call.keywords, call.outputs, tuple(sorted(used - seen))))
        seen |= used
    return found[::-1]


def _places(values: Any) -> set[int]:
    found: set[int] = set()
    for one in values:
        if type(one) is _Place:
            found.add(one.index)
        elif type(one) is list:
            found |= _places(one)
    return found


def _numbers(outputs: Any) -> set[int]:
    found: set[int] = set()
    for one in outputs:
        found |= _numbers(one) if type(one) is list else {one} - {None}
    return found


def _plain(target: str) -> Callable[..., Any]:
    import torch

    module, _, name = target.rpartition(".")
    table: Mapping[str, Any] = {"_operator": operator, "math": math, "torch": torch}
    function: Callable[..., Any] = getattr(table[module], name)
    return function
