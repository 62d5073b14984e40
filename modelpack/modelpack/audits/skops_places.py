"""Where the parts of a skops file may stand: functions where they are called, compiled parts where they are checked.

A type on the list is harmless where its library puts it. In another place it could be called with what it is not made
for, or stand in for something that has been checked: a part out of its place makes the file class ``code``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelpack.audits.patterns import is_simple
from modelpack.audits.skops_archive import name_of

if TYPE_CHECKING:
    from modelpack.audits.skops import Walk

__all__ = ["Places"]

_FUNCTIONS = frozenset({"FunctionNode", "PartialNode", "OperatorFuncNode"})
_OBJECTS = frozenset({"ObjectNode", "TreeNode", "LossNode", "TypeNode", "MethodNode"})

# Attributes that are called with rows, distances or names: nothing but a function is callable there.
_CALLED = frozenset({
    "_score_func", "affinity", "analyzer", "distance_func", "effective_metric_", "feature_name_combiner",
    "feature_names_out", "fun", "func", "importance_getter", "inverse_func", "max_features", "metric",
    "pooling_func", "preprocessor", "score_func", "strip_accents", "tokenizer", "weights",
})  # fmt: skip
# Attributes that may hold a function besides other things.
_TAKES_FUNCTION = _CALLED | frozenset({
    "_asarray", "_kmeans_single", "_objective", "callback", "callbacks", "connectivity", "cv", "eval_metric",
    "init", "is_data_valid", "is_model_valid", "kernel", "loss", "objective", "oob_score", "optimizer",
    "refit", "scorer_", "scoring", "solver", "strategy", "verbose_feature_names_out",
})  # fmt: skip
_KERNELS = frozenset({"k1", "k2", "kernel", "kernel_"})
_KERNEL = "sklearn.gaussian_process.kernels."
_METRIC = "sklearn.metrics._dist_metrics."
# Regular expressions: what texts have of a vectorizer, and names of columns of a selector.
_PATTERNS = frozenset({"pattern", "token_pattern"})
# Arguments that functions get.
_ARGUMENTS = frozenset({
    "_kwargs", "effective_metric_params_", "inv_kw_args", "kernel_params", "kw_args", "metric_params",
    "pairwise_kernels_kwargs",
})  # fmt: skip
# More threads or processes than this are no wish of anybody who trains models.
_MAX_JOBS = 1024
# Names of methods that are called on the estimators inside.
_METHODS = frozenset({"_response_method", "chain_method_", "response_method", "stack_method_"})
_SCORING = frozenset({"auto", "decision_function", "predict", "predict_log_proba", "predict_proba"})
# Parts that compiled code trusts, or that answer to any name, and the attributes whose owners check them.
_KEPT: Mapping[str, frozenset[str]] = {
    "sklearn.cluster._kmeans._kmeans_single_elkan": frozenset({"_kmeans_single"}),
    "sklearn.cluster._kmeans._kmeans_single_lloyd": frozenset({"_kmeans_single"}),
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper": frozenset({"_bin_mapper"}),
    "sklearn.tree._tree.Tree": frozenset({"tree_"}),
    "sklearn.utils._bunch.Bunch": frozenset({"named_estimators_"}),
}
_LOSSES, _LOSS_KEYS = "sklearn._loss.loss.", frozenset({"_base_loss", "_loss"})


class Places:
    """Judges the places of one walk; what is found is noted in the walk."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._states: set[int] = set()
        self._shared: set[int] = set()
        self._met: dict[int, tuple[str, int]] = {}

    def meet(self, node: Mapping[str, Any], *, again: bool) -> None:
        """Note that a node is met, or met again by a reference."""
        if again:
            self._shared.add(id(node))
        if node["__loader__"] in ("DictNode", "FunctionNode", "ObjectNode", "TreeNode"):
            name = name_of(node)
            if _kept(name):
                self._met[id(node)] = name, self._met.get(id(node), (name, 0))[1] + 1

    def settle(self) -> None:
        """Judge what can be judged only when everything has been met."""
        if self._states & self._shared:
            self._walk.refuse("the state of an object is a part of something else")
        for name, left in self._met.values():
            if left:
                self._walk.unlist(name, f"{name} is kept where nothing checks it")

    def attributes(self, owner: str, state: Mapping[str, Any]) -> None:
        """Judge the attributes of an object of a listed class, whose node and everything below has been walked."""
        self._states.add(id(state))
        for key, raw in state["content"].items():
            if key.startswith("__") and key.endswith("__"):
                self._walk.refuse(f"{owner} has an attribute {key}")
            value = self._walk.resolve(raw)
            name = name_of(value)
            if key in _kept(name) and id(value) in self._met:
                self._met[id(value)] = name, self._met[id(value)][1] - 1
            if key in _METHODS:
                self._method(owner, key, value)
            fault = self._fault(key, value, name)
            if fault is not None:
                self._walk.unlist(f"{owner}.{key}", f"{owner}.{key} {fault}")

    def _fault(self, key: str, value: Mapping[str, Any], name: str) -> str | None:
        """Say what is wrong with the value of an attribute, or None."""
        loader = value["__loader__"]
        single = self._walk.scalar(value) if loader == "JsonNode" else ...
        if key == "memory" and single is not None:
            return "names a cache, whose files are pickles"
        if key in _PATTERNS and isinstance(single, str) and not is_simple(single):
            return "is a pattern that can take very long to match"
        if loader in _FUNCTIONS and key not in _TAKES_FUNCTION:
            return "is a function, and none is expected there"
        if key in ("metric", "effective_metric_") and name.startswith(_METRIC):
            return None
        if loader in _OBJECTS and (key in _CALLED or (key in _KERNELS and not name.startswith(_KERNEL))):
            return f"is called, and {name} is no reviewed function"
        if loader == "ObjectNode" and key in ("dtype", "f_"):
            return f"is called, and {name} is no reviewed function"
        return self._argument_fault(value) if key in _ARGUMENTS else None

    def _method(self, owner: str, key: str, value: Mapping[str, Any]) -> None:
        items = value["content"] if value["__loader__"] in ("ListNode", "TupleNode") else [value]
        for item in map(self._walk.resolve, items):
            found = self._walk.scalar(item) if item["__loader__"] == "JsonNode" else ...
            if found is not None and found not in _SCORING:
                self._walk.refuse(f"{owner}.{key} names a method that does not score")

    def partial(self, state: Mapping[str, Any]) -> None:
        """Judge a partial call: of a function, with data, and without attributes of its own."""
        parts = {key: self._walk.resolve(raw) for key, raw in state["content"].items()}
        if parts["func"]["__loader__"] != "FunctionNode":
            self._unlist_partial(state, "calls something else than a function")
        for fault in filter(None, (self._argument_fault(parts[key]) for key in ("args", "kwds"))):
            self._unlist_partial(state, fault)
        names = parts["namespace"]
        empty = not names["content"] if names["__loader__"] == "DictNode" else names["__loader__"] == "JsonNode"
        if not empty:
            self._unlist_partial(state, "has attributes of its own")

    def _unlist_partial(self, state: Mapping[str, Any], fault: str) -> None:
        self._walk.unlist(name_of(state), f"a {name_of(state)} {fault}")

    def _argument_fault(self, value: Mapping[str, Any]) -> str | None:
        if self._objects_in(value):
            return "hands an object to a function"
        if value["__loader__"] == "DictNode" and "n_jobs" in value["content"]:
            jobs = self._walk.resolve(value["content"]["n_jobs"])
            number = self._walk.scalar(jobs) if jobs["__loader__"] == "JsonNode" else ...
            if number is not None and not (type(number) is int and abs(number) <= _MAX_JOBS):
                return "asks for any number of jobs"
        return None

    def _objects_in(self, value: Mapping[str, Any]) -> bool:
        """Say whether an object other than data is below a node."""
        pending, seen = [value], set()
        while pending:
            node = self._walk.resolve(pending.pop())
            if node["__loader__"] in _OBJECTS - {"TypeNode"}:
                return True
            if id(node) not in seen:
                seen.add(id(node))
                pending.extend(_below(node))
        return False


def _below(value: Any) -> Iterator[Any]:
    """Yield the nodes right below a node, whatever its kind."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, dict) and "__loader__" in item:
            yield item
        else:
            yield from _below(item)


def _kept(name: str) -> frozenset[str]:
    return _LOSS_KEYS if name.startswith(_LOSSES) else _KEPT.get(name, frozenset())
