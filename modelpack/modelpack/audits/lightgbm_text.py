"""Audit of LightGBM models as text: exactly what LightGBM writes, with every index inside what it points into.

The parts are read in the order in which LightGBM writes them and must fill the file: a header of ``key=value`` lines,
the trees, their importances, the parameters of training, the pandas categories. Versions 3 and 4 of the text are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from modelpack.audits import Audit
from modelpack.audits.lightgbm_trees import Trees
from modelpack.audits.skops_archive import malformed
from modelpack.files import VerifiedFiles

__all__ = ["Facts", "audit", "check"]

OBJECTIVES = frozenset(
    name
    for line in (
        "binary cross_entropy cross_entropy_lambda fair gamma huber lambdarank mape multiclass multiclassova",
        "poisson quantile rank_xendcg regression regression_l1 tweedie",
    )
    for name in line.split()
)
MULTICLASS = frozenset({"multiclass", "multiclassova"})
# Outputs without a tree are what an untrained model has; a few.
MAX_EMPTY_OUTPUTS = 4096

_REQUIRED = (
    "version",
    "num_class",
    "num_tree_per_iteration",
    "label_index",
    "max_feature_idx",
    "feature_names",
    "feature_infos",
    "tree_sizes",
)
_OPTIONAL = ("objective", "average_output", "monotone_constraints")
_COUNT = re.compile(rb"[0-9]{1,9}\Z")
_FLOAT = rb"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?|inf|nan)"
_INFO = re.compile(rb"none|\[%b:%b\]|-?[0-9]+(?::-?[0-9]+)*" % (_FLOAT, _FLOAT))
_OBJECTIVE = re.compile(rb"[a-z_0-9]+(?: [a-z_]+(?::[-+.0-9a-z]+)?)*\Z")
_SIZES = re.compile(rb"(?:[0-9]{1,12}(?: [0-9]{1,12})*)?\Z")
_SIGNS = re.compile(rb"-?[01](?: -?[01])*\Z")
_IMPORTANCE = re.compile(rb"[^\n\r\0]+=[0-9][0-9.e+]*\Z")
_PARAMETER = re.compile(rb"\[[a-z_0-9]+: [^\n\r\0]*\]\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a checked model says of itself; ``outputs`` is the number of values it gives for one row."""

    objective: str | None
    features: tuple[str, ...]
    infos: tuple[str, ...]
    outputs: int
    iterations: int
    pandas_categorical: list[list[Any]] | None
    categorical: tuple[int, ...]


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
    return _Model(data, entry, trees).check()


class _Model:
    """A cursor over the bytes of one model."""

    def __init__(self, data: bytes, entry: str, trees: bool) -> None:
        self.data, self.entry, self.at, self.trees = data, entry, 0, trees

    def refuse(self, message: str) -> NoReturn:
        malformed(f"not a LightGBM model that can be used: {message}", self.entry)

    def line(self) -> bytes:
        """Return the next line, without its end."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            self.refuse("it ends too early")
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    def expect(self, *lines: bytes) -> None:
        for wanted in lines:
            if self.line() != wanted:
                self.refuse("its parts are not where LightGBM writes them")

    def check(self) -> Facts:
        self.expect(b"tree")
        header = self._header()
        names = header["feature_names"].split(b" ")
        features = self._number(header, "max_feature_idx") + 1
        infos = header["feature_infos"].split(b" ")
        if len(names) != features or len(infos) != features or not all(names):
            self.refuse("it has another number of features than names")
        if not all(_INFO.fullmatch(info) for info in infos):
            self.refuse("a feature's range cannot be read")
        outputs = self._outputs(header)
        trees = self._trees(header["tree_sizes"], features)
        if trees % outputs or (not trees and outputs > MAX_EMPTY_OUTPUTS):
            self.refuse("its number of trees is no multiple of those of one iteration")
        self._importances()
        parameters = self._parameters()
        pandas = self._pandas()
        return Facts(
            objective=header["objective"].split(b" ")[0].decode() if "objective" in header else None,
            features=tuple(self._text(name) for name in names),
            infos=tuple(info.decode() for info in infos),
            outputs=outputs,
            iterations=trees // outputs,
            pandas_categorical=pandas,
            categorical=self._categorical(parameters, features),
        )

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.refuse("it is not UTF-8")

    def _header(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        while line := self.line():
            key, sign, value = line.partition(b"=")
            name = key.decode("latin-1")
            if name not in _REQUIRED + _OPTIONAL or name in found or bool(sign) == (name == "average_output"):
                self.refuse("its header has a line that does not belong there")
            if b"\r" in value or b"\0" in value:
                self.refuse("its header has a character that is none of a text")
            found[name] = value
        if not set(_REQUIRED) <= set(found):
            self.refuse("its header is incomplete")
        if found["version"] not in (b"v3", b"v4"):
            self.refuse("it is of a version that this reader does not know")
        self._number(found, "label_index")
        signs = found.get("monotone_constraints")
        if signs is not None and (
            not _SIGNS.match(signs) or len(signs.split(b" ")) != self._number(found, "max_feature_idx") + 1
        ):
            self.refuse("its constraints are not one for each feature")
        return found

    def _number(self, header: Mapping[str, bytes], name: str) -> int:
        if not _COUNT.match(header[name]):
            self.refuse(f"its {name} is not a number")
        return int(header[name])

    def _outputs(self, header: Mapping[str, bytes]) -> int:
        """Return the number of values for one row: of trees in an iteration, and of classes."""
        classes, trees = self._number(header, "num_class"), self._number(header, "num_tree_per_iteration")
        if classes < 1 or classes != trees:
            self.refuse("it has another number of trees in an iteration than of classes")
        if "objective" not in header:
            return trees
        if not _OBJECTIVE.match(header["objective"]):
            self.refuse("its objective cannot be read")
        name, *words = header["objective"].decode().split(" ")
        if name not in OBJECTIVES:
            self.refuse("its objective is none that this reader knows")
        if len({word.partition(":")[0] for word in words}) != len(words):
            self.refuse("its objective says something twice")
        said = [word for word in words if word.startswith("num_class:")]
        wanted = [f"num_class:{classes}"] if name in MULTICLASS else []
        if said != wanted or (name not in MULTICLASS and classes != 1):
            self.refuse("its objective has another number of classes than the model")
        return trees

    def _trees(self, sizes: bytes, features: int) -> int:
        if not _SIZES.match(sizes):
            self.refuse("the sizes of its trees cannot be read")
        lengths = [int(size) for size in sizes.split()]
        reader = Trees(features, self.refuse)
        for place, length in enumerate(lengths):
            end = self.at + length
            if end > len(self.data):
                self.refuse("a tree ends after the model")
            if self.trees:
                reader.check(self.data[self.at : end], place)
            self.at = end
        self.expect(b"end of trees", b"")
        return len(lengths)

    def _importances(self) -> None:
        self.expect(b"feature_importances:")
        while line := self.line():
            if not _IMPORTANCE.match(line):
                self.refuse("an importance cannot be read")

    def _parameters(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if not self.data.startswith(b"parameters:\n", self.at):
            return found
        self.expect(b"parameters:")
        while line := self.line():
            if not _PARAMETER.match(line):
                self.refuse("a parameter cannot be read")
            key, _, value = line[1:-1].partition(b": ")
            if key in found:
                self.refuse("a parameter is given twice")
            found[key] = value
        self.expect(b"end of parameters")
        return found

    def _pandas(self) -> list[list[Any]] | None:
        """Return the categories of the pandas columns that the model was trained on, at the end of the file."""
        if self.at == len(self.data):
            return None
        self.expect(b"")
        label, _, text = self.line().partition(b":")
        if label != b"pandas_categorical" or self.at != len(self.data):
            self.refuse("something follows its parameters")
        try:
            found = json.loads(self._text(text))
        except (ValueError, RecursionError):
            self.refuse("its pandas categories are not JSON")
        if found is None:
            return None
        scalars = (str, int, float, bool)
        if not isinstance(found, list) or not all(
            isinstance(one, list) and all(type(value) in scalars for value in one) for one in found
        ):
            self.refuse("its pandas categories are not lists of values")
        return found

    def _categorical(self, parameters: Mapping[bytes, bytes], features: int) -> tuple[int, ...]:
        """Return the numbers of the categorical features, as far as the parameters say."""
        text = parameters.get(b"categorical_feature", b"")
        if not re.fullmatch(rb"[0-9]{1,9}(?:,[0-9]{1,9})*", text):
            return ()
        found = np.unique([int(number) for number in text.split(b",")])
        return tuple(int(number) for number in found if number < features)
