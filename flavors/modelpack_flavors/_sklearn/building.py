"""Building a model out of an audited archive: what the audit saw is what is built, node by node.

The kinds of nodes are those of skops 0.16 and mean the same; a test builds every estimator both ways. Nothing is
imported whose name the audit did not report.
"""

from __future__ import annotations

import functools
import importlib
import io
import operator
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from modelpack import optional
from modelpack.audits.skops import Walk
from modelpack.audits.skops_archive import name_of
from modelpack_flavors._sklearn.boosters import LIBRARIES

__all__ = ["Builder"]


class Builder:
    """Builds the objects of a walked archive, each node once.

    ``find`` returns the class or function of a module; None stands for the usual import.
    """

    def __init__(self, walk: Walk, find: Callable[[str, str], Any] | None = None) -> None:
        self._walk = walk
        self._find = find or _imported
        self._built: dict[int, Any] = {}

    def root(self) -> Any:
        """Build the whole model."""
        return self.build(self._walk.archive.schema)

    def build(self, node: dict[str, Any]) -> Any:
        """Return the object of a node; the same object each time."""
        state = self._walk.resolve(node)
        if id(state) not in self._built:
            self._built[id(state)] = getattr(self, f"_{state['__loader__']}")(state)
        return self._built[id(state)]

    def _named(self, state: dict[str, Any]) -> Any:
        if name_of(state) not in self._walk.types:
            self._walk.refuse("a name was not seen by the audit")
        return self._find(state["__module__"], state["__class__"])

    def _member(self, state: dict[str, Any]) -> io.BytesIO:
        return io.BytesIO(self._walk.archive.read(state["file"]))

    def _items(self, state: dict[str, Any]) -> list[Any]:
        return [self.build(item) for item in state["content"]]

    # One method per kind of node, called like it.

    def _JsonNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return self._walk.scalar(state)

    def _DictNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        types = self.build(state["key_types"])
        content = self._named(state)()
        for kind, (key, value) in zip(types, state["content"].items(), strict=True):
            content[kind(key)] = self.build(value)
        return content

    def _DefaultDictNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        factory = self.build(state["content"]["default_factory"])
        return defaultdict(factory, self.build(state["content"]["main"]))

    def _ListNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return self._named(state)(self._items(state))

    _SetNode = _ListNode

    def _TupleNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        kind = self._named(state)
        return kind(*self._items(state)) if hasattr(kind, "_fields") else tuple(self._items(state))

    def _BytesNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return self._member(state).getvalue()

    def _BytearrayNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return bytearray(self._member(state).getvalue())

    def _SliceNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return slice(*(state["content"][key] for key in ("start", "stop", "step")))

    def _TypeNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return self._named(state)

    _FunctionNode = _TypeNode

    def _PartialNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        func, args, keywords, names = (
            self.build(state["content"][key]) for key in ("func", "args", "kwds", "namespace")
        )
        made = functools.partial(func, *args, **keywords)
        made.__dict__.update(names or {})
        return made

    def _MethodNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return getattr(self.build(state["content"]["obj"]), state["content"]["func"])

    def _OperatorFuncNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return getattr(operator, state["__class__"])(*self.build(state["attrs"]))

    def _ConstructorFromReduceNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return self._named(state)(*self.build(state["content"]))

    def _ObjectNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        kind = self._named(state)
        made = kind.__new__(kind)
        attributes = None if state.get("content") is None else self.build(state["content"])
        if isinstance(attributes, dict) and not self._walk.unlisted:
            self._refuse_shadows(kind, attributes)
        if attributes is not None and hasattr(made, "__setstate__"):
            made.__setstate__(attributes)
        elif attributes is not None:
            made.__dict__.update(attributes)
        return made

    def _refuse_shadows(self, kind: type, attributes: dict[str, Any]) -> None:
        """Refuse attributes found in place of the class's own, such as methods; a default that is a number is none."""
        for key in attributes:
            own = next((vars(base)[key] for base in kind.__mro__ if key in vars(base)), None)
            if own is not None and not isinstance(own, bool | int | float):
                self._walk.refuse(f"the state of {kind.__module__}.{kind.__qualname__} hides its {key}")

    def _NdArrayNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        import numpy as np

        if state["type"] == "json":
            return self._objects(state)
        array = np.load(self._member(state), allow_pickle=False)
        return array if name_of(state) == "numpy.ndarray" else self._named(state)(array)

    def _objects(self, state: dict[str, Any]) -> Any:
        """Build an array of objects: nested lists, which the audit has compared with its shape."""
        import numpy as np

        shape = self.build(state["shape"])
        items: list[Any] = [state]
        for _ in shape:
            items = [self._walk.resolve(item) for inner in items for item in inner["content"]]
        built = [self.build(item) for item in items]
        array = np.empty(shape, dtype=object)
        for index, item in enumerate(built):
            array.flat[index] = item
        return array

    def _MaskedArrayNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        import numpy as np

        return np.ma.MaskedArray(self.build(state["content"]["data"]), self.build(state["content"]["mask"]))

    def _DTypeNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        return self.build(state["content"]).dtype

    def _RandomStateNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        made = self._named(state)()
        made.set_state(self.build(state["content"]))
        return made

    def _RandomGeneratorNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        import numpy as np

        bits = self.build(state["content"]["bit_generator"])
        kind = getattr(np.random, bits["bit_generator"])
        if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):
            self._walk.refuse("a random generator does not name a bit generator")
        made = kind(np.random.SeedSequence(**self.build(state["content"]["seed_seq"])))
        made.state = bits
        return self._named(state)(made)

    def _SparseMatrixNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        from scipy.sparse import load_npz

        return load_npz(self._member(state))

    def _TreeNode(self, state: dict[str, Any]) -> Any:  # noqa: N802
        made = self._named(state)(*self.build(state["__reduce__"]["args"]))
        attributes = self.build(state["content"])
        if attributes:
            made.__setstate__(attributes)
        return made

    _LossNode = _TreeNode


def _imported(module: str, name: str) -> Any:
    library = module.partition(".")[0]
    if library in LIBRARIES:
        optional.require(library, what="Loading this model", extra=library)
    return getattr(importlib.import_module(module), name)
