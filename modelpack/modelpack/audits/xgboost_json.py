"""Audit of XGBoost models, as JSON or as UBJ: a declared set of trees or weights, and nothing that could run.

Every array that XGBoost's compiled code indexes by is compared with the others here, on the bytes, before the library
sees them: node numbers, features, categories, groups, tree ids. The layout is that of XGBoost 1.6 to 3.x.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from modelpack.audits import Audit
from modelpack.audits.skops_archive import malformed
from modelpack.audits.ubj import parse as parse_ubj
from modelpack.audits.xgboost_trees import Reader, categories, trees
from modelpack.files import VerifiedFiles

__all__ = ["Facts", "audit", "check"]

OBJECTIVES = frozenset(
    f"{kind}:{name}"
    for kind, names in {
        "binary": "hinge logistic logitraw",
        "count": "poisson",
        "multi": "softmax softprob",
        "rank": "map ndcg pairwise",
        "reg": "absoluteerror expectileerror gamma linear logistic pseudohubererror quantileerror squarederror "
        "squaredlogerror tweedie",
        "survival": "aft cox",
    }.items()
    for name in names.split()
)
# Groups beyond the number of trees would be outputs that no tree writes to; a few are what an untrained model has.
MAX_EMPTY_GROUPS = 4096

_COUNT = re.compile(r"[0-9]{1,9}\Z")
_ROUND = re.compile(r"-?[0-9]{1,9}\Z")
_FEATURE_TYPES = frozenset({"float", "int", "i", "q", "c", "indicator"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a checked model says of itself.

    ``groups`` is the number of values it gives for one row; ``names`` are empty if it was trained without;
    ``categories`` are those of the features whose categories it keeps, texts as the bytes it has; ``root`` is the
    whole model, parsed.
    """

    booster: str
    objective: str
    features: int
    groups: int
    names: tuple[str, ...]
    types: tuple[str, ...]
    categories: Mapping[int, tuple[Any, ...]]
    root: Any = field(repr=False)


def audit(files: VerifiedFiles, entry: str | None) -> Audit:
    """Audit the model in the file ``entry``.

    Raises:
        PackageError: it is not a model that we take, whatever is granted (``payload-invalid``).
    """
    check(files.read(entry or ""), entry or "")
    return Audit(trust="graph")


def check(data: bytes, entry: str, *, trees: bool = True) -> Facts:
    """Check the bytes of a model; return what it says of itself.

    ``trees``: False for bytes that have passed before, to learn what they say.

    Raises:
        PackageError: it is malformed, or one of its indices points nowhere (``payload-invalid``).
    """
    return _Model(_parsed(data, entry), entry, trees).check()


def _parsed(data: bytes, entry: str) -> Any:
    """Parse by the second byte, as XGBoost tells the two forms apart."""
    if data[:2] == b"{L":
        return parse_ubj(data, entry)
    if data[:2] != b'{"':
        malformed("neither XGBoost's JSON nor its UBJ", entry)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            malformed("the model repeats a key", entry)
        return found

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as exc:
        malformed(f"the model is not JSON: {type(exc).__name__}", entry)


class _Model(Reader):
    """One parsed model."""

    def __init__(self, root: Any, entry: str, trees: bool) -> None:
        super().__init__(entry)
        self.root, self.trees = root, trees
        self._categories: Mapping[int, tuple[Any, ...]] = {}

    def check(self) -> Facts:
        learner = self.fields(self.root, "the model", {"learner", "version"})["learner"]
        version = self.integers(self.root["version"], "version", 3)
        if not 1 <= version[0] <= 3:
            self.refuse("it was written by a version of XGBoost whose models this reader does not know")
        self.fields(
            learner,
            "learner",
            {"gradient_booster", "learner_model_param", "objective"},
            {"attributes", "feature_names", "feature_types"},
        )
        self._attributes(learner.get("attributes", {}))
        shape = self._shape(learner["learner_model_param"])
        features = shape["num_feature"]
        self._names(learner, features)
        objective = self._objective(learner["objective"], shape)
        name = self._booster(learner["gradient_booster"], shape)
        return Facts(
            booster=name,
            objective=objective,
            features=features,
            groups=shape["groups"],
            names=tuple(learner.get("feature_names", ())),
            types=tuple(learner.get("feature_types", ())),
            categories=self._categories,
            root=self.root,
        )

    def _attributes(self, attributes: Any) -> None:
        if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
            self.refuse("its attributes are not texts")
        best = attributes.get("best_iteration")
        if best is not None and not _ROUND.match(best):
            self.refuse("its best iteration is not a number")

    def _names(self, learner: Mapping[str, Any], features: int) -> None:
        for part in ("feature_names", "feature_types"):
            values = learner.get(part, [])
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                self.refuse(f"its {part} are not texts")
            if len(values) not in (0, features):
                self.refuse(f"it has another number of {part} than of features")
        if not set(learner.get("feature_types", ())) <= _FEATURE_TYPES:
            self.refuse("a feature is of an unknown type")

    def count(self, params: Any, field: str, default: int | None = None) -> int:
        """Return a size, which XGBoost writes as a text."""
        text = params.get(field) if isinstance(params, dict) else None
        if text is None and default is not None:
            return default
        if not isinstance(text, str) or not _COUNT.match(text):
            self.refuse(f"{field} is not a number")
        return int(text)

    def _shape(self, params: Any) -> dict[str, int]:
        known = {"base_score", "num_class", "num_feature", "num_target", "boost_from_average"}
        self.fields(params, "learner_model_param", {"base_score", "num_feature", "num_class"}, known)
        shape = {
            "num_feature": self.count(params, "num_feature"),
            "num_class": self.count(params, "num_class"),
            "num_target": self.count(params, "num_target", 1),
        }
        if shape["num_class"] > 1 and shape["num_target"] > 1:
            self.refuse("it has both classes and targets")
        shape["groups"] = max(shape["num_class"], shape["num_target"], 1)
        self._base_score(params["base_score"], shape["groups"])
        return shape

    def _base_score(self, text: Any, groups: int) -> None:
        """Check the text of one number, or of a list with one for each group."""
        try:
            value = json.loads(text) if isinstance(text, str) and len(text) <= 64 * (groups + 1) else None
        except (ValueError, RecursionError):
            value = None
        values = value if isinstance(value, list) else [value]
        if not values or not all(type(item) in (int, float) for item in values):
            self.refuse("its base score is not a number")
        if len(values) not in (1, groups):
            self.refuse("it has another number of base scores than of outputs")

    def _objective(self, objective: Any, shape: Mapping[str, int]) -> str:
        name = objective.get("name") if isinstance(objective, dict) else None
        if not isinstance(name, str) or name not in OBJECTIVES:
            self.refuse("its objective is none that this reader knows")
        for part, value in objective.items():
            flat = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
            if part != "name" and not (part.endswith("_param") and flat):
                self.refuse("its objective has a parameter that is not a text")
        if name.startswith("multi:"):
            classes = self.count(objective.get("softmax_multiclass_param"), "num_class")
            if classes < 1 or classes != shape["num_class"]:
                self.refuse("its objective has another number of classes than the model")
        elif shape["num_class"] > 1:
            self.refuse("its objective has no classes, but the model has")
        return name

    def _booster(self, booster: Any, shape: Mapping[str, int]) -> str:
        name = booster.get("name") if isinstance(booster, dict) else None
        if name == "gbtree":
            self.fields(booster, "gradient_booster", {"model", "name"})
            self._trees(booster["model"], shape)
        elif name == "dart":
            self.fields(booster, "gradient_booster", {"gbtree", "name", "weight_drop"})
            inner = self.fields(booster["gbtree"], "gbtree", {"model", "name"})
            if inner["name"] != "gbtree":
                self.refuse("a dart model is not made of trees")
            self.floats(booster["weight_drop"], "weight_drop", self._trees(inner["model"], shape))
        elif name == "gblinear":
            self.fields(booster, "gradient_booster", {"model", "name"})
            model = self.fields(booster["model"], "model", {"weights"}, {"boosted_rounds", "param"})
            self.number(model.get("boosted_rounds", 0), "boosted_rounds")
            self.floats(model["weights"], "weights", (shape["num_feature"] + 1) * shape["groups"])
        else:
            self.refuse("its booster is none that this reader knows")
        return str(name)

    def _trees(self, model: Any, shape: Mapping[str, int]) -> int:
        """Check the trees and what says which tree is for what; return their number."""
        self.fields(
            model, "model", {"gbtree_model_param", "tree_info", "trees"}, {"cats", "iteration_indptr", "cats_hash"}
        )
        params = model["gbtree_model_param"]
        number = self.count(params, "num_trees")
        parallel = self.count(params, "num_parallel_tree", 1)
        if not isinstance(model["trees"], list) or len(model["trees"]) != number:
            self.refuse("it has another number of trees than it says")
        groups = shape["groups"]
        if groups > max(number, MAX_EMPTY_GROUPS):
            self.refuse("it has more outputs than trees")
        info = self.integers(model["tree_info"], "tree_info", number)
        if number and not (info.min() >= 0 and info.max() < groups):
            self.refuse("a tree belongs to an output that does not exist")
        vector = self.trees and trees(self, model["trees"], shape["num_feature"], shape["num_target"])
        if "iteration_indptr" in model:
            layers = self.integers(model["iteration_indptr"], "iteration_indptr")
            if not len(layers) or layers[0] != 0 or layers[-1] != number or (layers[1:] < layers[:-1]).any():
                self.refuse("its iterations are not a division of its trees")
        elif self.trees and number % max(parallel * (1 if vector else groups), 1):
            self.refuse("its number of trees is no multiple of those of one iteration")
        if parallel < 1:
            self.refuse("an iteration has no trees")
        self._categories = categories(self, model.get("cats"), shape["num_feature"])
        return number

    def refuse(self, message: str) -> NoReturn:
        """Refuse the model as malformed."""
        malformed(f"an XGBoost model that cannot be used: {message}", self.entry)
