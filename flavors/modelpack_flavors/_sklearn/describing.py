"""Describing a model as the nodes of a skops file.

The nodes are those that skops 0.16 writes, made here because importing skops imports all of scikit-learn; a test reads
every estimator back with skops itself. What would not read back as it was is refused, not written.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import json
import operator
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from modelpack.errors import SaveError
from modelpack_flavors._sklearn import boosters
from modelpack_flavors._sklearn.neighbors import TREES

__all__ = ["Description", "refuse"]

Node = dict[str, Any]
PICKLE_HINT = 'To store it as a pickle, which loads only where its digest is trusted: options={"format": "pickle"}.'


def refuse(message: str, hint: str = PICKLE_HINT) -> NoReturn:
    """Raise the error for a model that a skops file cannot hold."""
    raise SaveError(message, code="model-unsupported", hint=hint)


class Description:
    """The nodes of one model; ``members`` are the arrays they name.

    Members are named by their digest, so equal ones are one. Nodes of mutable objects carry ``__id__``, the object's
    address: equal ids are one object.
    """

    def __init__(self) -> None:
        self.members: dict[str, bytes] = {}
        self._alive: list[Any] = []
        self._done: dict[int, Node] = {}
        self._open: set[int] = set()

    def node(self, value: Any) -> Node:
        """Return the node of a value.

        Raises:
            SaveError: a skops file cannot hold it (``model-unsupported``).
        """
        if value is None or type(value) in (bool, int, float, str):
            return _node(str, "JsonNode", content=json.dumps(value), is_json=True)
        if id(value) in self._open:
            refuse(f"a {type(value).__name__} in the model contains itself")
        if id(value) not in self._done:
            # The object must live as long as its id stands for it.
            self._alive.append(value)
            self._open.add(id(value))
            self._done[id(value)] = self._described(value)
            self._open.discard(id(value))
        return self._done[id(value)]

    def _described(self, value: Any) -> Node:
        describe, shared = self._way(value)
        node = describe(value)
        if shared:
            node["__id__"] = id(value)
        return node

    def _way(self, value: Any) -> tuple[Callable[[Any], Node], bool]:
        """Return how a value is described, and whether it matters which places hold the very same one."""
        import numpy as np

        if isinstance(value, type | types.BuiltinFunctionType):
            return lambda v: _node(v, "TypeNode"), False
        if isinstance(value, types.MethodType):
            return self._method, False
        if isinstance(value, types.FunctionType | np.ufunc) or type(value).__name__ == "_ArrayFunctionDispatcher":
            return lambda v: _node(v, "FunctionNode"), False
        for kind, way, shared in self._table():
            if isinstance(value, kind):
                return way, shared
        return self._object, True

    def _table(self) -> Iterable[tuple[Any, Callable[[Any], Node], bool]]:
        import numpy as np
        from scipy import sparse

        yield dict, self._dict, True
        yield list, self._list, True
        yield tuple, self._tuple, False
        yield set, self._set, True
        yield frozenset | range | complex, self._reduced, False
        yield np.ma.MaskedArray, self._masked, True
        yield np.ndarray, self._array, True
        yield np.generic, self._array, False
        yield np.dtype, lambda v: _node(np.dtype, "DTypeNode", content=self.node(np.empty(0, v))), False
        yield np.random.RandomState, self._random_state, True
        yield np.random.Generator, self._generator, True
        yield sparse.spmatrix | sparse.sparray, self._sparse, True
        yield functools.partial, self._partial, False
        yield operator.itemgetter, self._operator, False
        yield bytes, lambda v: self._bytes(v, "BytesNode"), False
        yield bytearray, lambda v: self._bytes(v, "BytearrayNode"), True
        yield slice, self._slice, False

    # One method per kind of node, for values that have more to them than a name.

    def _dict(self, value: Any) -> Node:
        if isinstance(value, defaultdict):
            content = {"main": self.node(dict(value)), "default_factory": self.node(value.default_factory)}
            return _node(type(value), "DefaultDictNode", content=content)
        content = {_key(key): self.node(item) for key, item in value.items()}
        if len(content) != len(value):
            refuse("a dict in the model has keys that are equal as texts, such as 1 and '1'")
        types = [type(key) for key in value]
        return _node(type(value), "DictNode", content=content, key_types=self.node(types))

    def _list(self, value: Any) -> Node:
        return _node(type(value), "ListNode", content=[self.node(item) for item in value])

    def _tuple(self, value: Any) -> Node:
        return _node(type(value), "TupleNode", content=[self.node(item) for item in value])

    def _set(self, value: Any) -> Node:
        return _node(type(value), "SetNode", content=self._sorted(value))

    def _sorted(self, items: Any) -> list[Node]:
        """Return the nodes of a set's items in an order that does not depend on hashes."""
        nodes = [self.node(item) for item in items]
        return sorted(nodes, key=lambda node: json.dumps(node, sort_keys=True))

    def _reduced(self, value: Any) -> Node:
        """Describe a value by the arguments that make it."""
        if isinstance(value, frozenset):
            items: Node = _node(list, "ListNode", content=self._sorted(value))
            arguments = _node(tuple, "TupleNode", content=[items])
        elif isinstance(value, complex):
            arguments = self.node((value.real, value.imag))
        else:
            arguments = self.node((value.start, value.stop, value.step))
        return _node(type(value), "ConstructorFromReduceNode", content=arguments)

    def _array(self, value: Any) -> Node:
        import numpy as np

        kind = np.ndarray if isinstance(value, np.memmap) else type(value)
        if value.dtype == object and isinstance(value, np.ndarray):
            if value.ndim == 0:
                refuse("an array of objects in the model has no dimensions")
            return _node(kind, "NdArrayNode", content=self._nested(value), type="json", shape=self.node(value.shape))
        if value.dtype.hasobject:
            refuse("an array in the model has fields that hold objects")
        if value.ndim > 1 and not value.flags.forc and value.strides[0] < value.strides[-1]:
            # A slice of an array in column order stays in column order: products then round as they did.
            value = np.asfortranarray(value)
        buffer = io.BytesIO()
        np.save(buffer, value, allow_pickle=False)
        return _node(kind, "NdArrayNode", type="numpy", file=self._member(buffer.getvalue(), "npy"))

    def _nested(self, array: Any) -> list[Node]:
        if array.ndim == 1:
            return [self.node(item) for item in array]
        return [_node(list, "ListNode", content=self._nested(row)) for row in array]

    def _masked(self, value: Any) -> Node:
        content = {"data": self.node(value.data), "mask": self.node(value.mask)}
        return _node(type(value), "MaskedArrayNode", content=content)

    def _sparse(self, value: Any) -> Node:
        from scipy.sparse import save_npz

        buffer = io.BytesIO()
        # Uncompressed: the archive around it is compressed.
        save_npz(buffer, value, compressed=False)
        return _node(type(value), "SparseMatrixNode", type="scipy", file=self._member(buffer.getvalue(), "npz"))

    def _random_state(self, value: Any) -> Node:
        return _node(type(value), "RandomStateNode", content=self.node(value.get_state(legacy=False)))

    def _generator(self, value: Any) -> Node:
        bits = value.bit_generator
        content = {"bit_generator": self.node(bits.state), "seed_seq": self.node(bits.seed_seq.state)}
        return _node(type(value), "RandomGeneratorNode", content=content)

    def _partial(self, value: Any) -> Node:
        content = {
            "func": self.node(value.func),
            "args": self.node(value.args),
            "kwds": self.node(value.keywords),
            "namespace": self.node(value.__dict__ or None),
        }
        return _node(functools.partial, "PartialNode", content=content)

    def _method(self, value: Any) -> Node:
        owner = value.__self__
        if isinstance(owner, type):
            refuse(f"the model holds a class method, {owner.__name__}.{value.__name__}")
        return _node(type(owner), "MethodNode", content={"func": value.__func__.__name__, "obj": self.node(owner)})

    def _operator(self, value: Any) -> Node:
        return _node(type(value), "OperatorFuncNode", attrs=self.node(value.__reduce__()[1]))

    def _slice(self, value: Any) -> Node:
        content = {"start": value.start, "stop": value.stop, "step": value.step}
        if any(type(bound) not in (int, str, type(None)) for bound in content.values()):
            refuse("a slice in the model has a bound that is neither a number nor a text")
        return _node(slice, "SliceNode", content=content)

    def _bytes(self, value: Any, loader: str) -> Node:
        return _node(type(value), loader, file=self._member(bytes(value), "bin"))

    def _object(self, value: Any) -> Node:
        kind = type(value)
        names = {f"{base.__module__}.{base.__name__}" for base in kind.__mro__}
        if "sklearn.tree._tree.Tree" in names:
            _, arguments, state = value.__reduce__()
            return self._made("TreeNode", kind, arguments, state)
        if names & _LOSSES:
            return self._made("LossNode", kind, *_loss(value))
        if f"{kind.__module__}.{kind.__name__}" in boosters.BOOSTERS:
            return boosters.described(self, value)
        if not hasattr(value, "__dict__") and "__setstate__" not in dir(kind):
            refuse(f"a {kind.__module__}.{kind.__name__} keeps its state where nobody can read it")
        state = value.__getstate__()
        if names & TREES:
            # How often the tree was asked, and what that took, is no part of the model.
            state = (*state[:7], 0, 0, 0, 0, *state[11:])
        if isinstance(state, tuple) and "__setstate__" not in dir(kind):
            refuse(f"a {kind.__module__}.{kind.__name__} keeps part of its state in slots")
        if boosters.LABELLED in names:
            state = boosters.without_truth_values(state)
        if isinstance(state, dict):
            state = {name: item for name, item in state.items() if not _says_nothing(value, name, item)}
            if "sklearn.preprocessing._label.MultiLabelBinarizer" in names:
                state["_cached_dict"] = None  # filled when it is first used
        return _node(kind, "ObjectNode", content=self.node(state))

    def _made(self, loader: str, kind: type, arguments: Any, state: Any) -> Node:
        made = _node(kind, loader, content=self.node(state))
        made["__reduce__"] = {"args": self.node(arguments)}
        return made

    def _member(self, data: bytes, suffix: str) -> str:
        name = f"{hashlib.sha256(data).hexdigest()}.{suffix}"
        self.members[name] = data
        return name


_LOSSES = frozenset(
    {
        "sklearn._loss._loss.CyLossFunction",
        "sklearn._loss._loss.CyHalfMultinomialLoss",
        "sklearn.linear_model._sgd_fast.LossFunction",
    }
)


def _says_nothing(owner: Any, name: str, item: Any) -> bool:
    """Say whether an attribute means nothing in another process: an address, or the object's own method."""
    if name == "_stop_words_id":
        return True
    if not isinstance(item, types.MethodType) or item.__self__ is not owner:
        return False
    return item.__func__ is getattr(type(owner), name, None)


def _loss(value: Any) -> tuple[Any, Any]:
    """Return what a loss function is made from: its parameters, and no state."""
    made = value.__reduce__()
    if made[0] is type(value):
        return made[1], {}
    # Compiled classes without a __reduce__ of their own: (unpickler, (class, checksum, state)).
    state = made[1][2]
    return (state if isinstance(state, tuple) else ()), {}


def _node(named: Any, loader: str, **fields: Any) -> Node:
    module, name = _reference(named)
    return {"__class__": name, "__module__": module, "__loader__": loader, **fields}


def _key(key: Any) -> str:
    """Return a dict's key as a text that its type turns back into the key."""
    import numpy as np

    if isinstance(key, np.generic):
        key = key.item()
    if type(key) is str:
        return str(key)
    if type(key) in (int, float):
        return json.dumps(key)
    return refuse(
        f"a dict in the model has a key of type {type(key).__name__}, which a skops file cannot hold",
        'Use texts or numbers as keys (0 and 1 for false and true), or options={"format": "pickle"}.',
    )


@functools.cache
def _reference(named: Any) -> tuple[str, str]:
    """Return module and name of a class or function; there must be no other thing of that name."""
    import numpy as np

    name = named.__name__
    if isinstance(named, np.ufunc):
        # ufuncs do not know their module; the same name is an alias in several.
        for public in ("numpy", "scipy.special"):
            if getattr(sys.modules.get(public), name, None) is named:
                return public, name
    module = getattr(named, "__module__", None) or "__main__"
    found = None
    if "<" not in name:
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError:
            found = None
    if found is not named:
        refuse(
            f"{module}.{getattr(named, '__qualname__', name)} is a function or class that has no name to import it by"
        )
    return module, name
