"""Audit of Spark ML directories: stages on our list, files where Spark writes them, trees that end; or code.

What Spark would build is named in the metadata of each stage: a class, its params, the ids of a pipeline's stages. A
class that is not on the list makes the payload `code`. The layout is that of Spark 3 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from modelpack.audits import Audit
from modelpack.audits.skops_archive import malformed, parse_json
from modelpack.audits.spark_ml_data import Row, rows
from modelpack.audits.spark_ml_trees import Trees, trees

__all__ = ["Files", "Stage", "audit", "inspect"]

_HOME = "org.apache.spark.ml."
_PIPELINE = f"{_HOME}PipelineModel"


def _names(package: str, names: str) -> set[str]:
    return {f"{_HOME}{package}.{name}" for name in names.split()}


# Stages without data of their own.
_BARE = _names(
    "feature",
    "Binarizer Bucketizer DCT ElementwiseProduct FeatureHasher HashingTF IndexToString Interaction NGram Normalizer "
    "PolynomialExpansion RegexTokenizer StopWordsRemover Tokenizer VectorAssembler VectorSizeHint VectorSlicer",
)
# Models whose data are tables of numbers and texts.
_TABLES = (
    _names(
        "feature",
        "ChiSqSelectorModel CountVectorizerModel IDFModel ImputerModel MaxAbsScalerModel MinMaxScalerModel "
        "OneHotEncoderModel PCAModel RobustScalerModel StandardScalerModel StringIndexerModel TargetEncoderModel "
        "UnivariateFeatureSelectorModel VarianceThresholdSelectorModel VectorIndexerModel Word2VecModel",
    )
    | _names(
        "classification",
        "FMClassificationModel LinearSVCModel LogisticRegressionModel MultilayerPerceptronClassificationModel "
        "NaiveBayesModel",
    )
    | _names(
        "regression",
        "AFTSurvivalRegressionModel FMRegressionModel GeneralizedLinearRegressionModel IsotonicRegressionModel "
        "LinearRegressionModel",
    )
    | _names("clustering", "BisectingKMeansModel GaussianMixtureModel KMeansModel")
)
_TREES = _names("classification", "DecisionTreeClassificationModel") | _names(
    "regression", "DecisionTreeRegressionModel"
)
_FORESTS = _names("classification", "GBTClassificationModel RandomForestClassificationModel") | _names(
    "regression", "GBTRegressionModel RandomForestRegressionModel"
)
LISTED = _BARE | _TABLES | _TREES | _FORESTS | {_PIPELINE}

_MAX_METADATA = 16 * 2**20
_MAX_STAGES = 1000
_MAX_DEPTH = 8
_UID = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_PART = re.compile(r"part-[0-9]{5}(-[0-9a-f-]{36})?(-c[0-9]{3,6})?(\.[a-z0-9]{1,8})?(\.txt|\.parquet)?\Z")


class Files(Protocol):
    """The files of a payload, as an audit reads them."""

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""

    def paths(self) -> Sequence[str]:
        """Return the paths of all files."""


# Compared by identity: its arrays have no one answer to "equal".
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stage:
    """One stage: its class, what its metadata say, and its data, read and checked.

    ``params`` are the defaults with what was set over them; ``chosen`` only what was set. ``listed`` says whether the
    class is on the list; nothing further has been read of one that is not.
    """

    name: str
    uid: str
    params: Mapping[str, Any]
    chosen: Mapping[str, Any]
    metadata: Mapping[str, Any]
    listed: bool = True
    stages: tuple[Stage, ...] = ()
    data: tuple[Row, ...] = field(default=(), repr=False)
    trees: Trees | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """The class's own name."""
        return self.name.rpartition(".")[2]

    def flat(self) -> tuple[Stage, ...]:
        """Return the stages that rows go through, in order: itself, or those of the pipeline and its pipelines."""
        if self.name != _PIPELINE or not self.listed:
            return (self,)
        return tuple(inner for stage in self.stages for inner in stage.flat())


def audit(files: Files, entry: str | None) -> Audit:
    """Return class ``graph`` for a model whose stages are all on the list, otherwise ``code``.

    Raises:
        PackageError: it is not what Spark writes (``payload-invalid``).
    """
    model = inspect(files, entry or "")
    stages = model.flat()
    types = tuple(sorted({stage.name for stage in stages}))
    unlisted = tuple(sorted({stage.name for stage in stages if not stage.listed}))
    if not unlisted:
        return Audit(trust="graph", types=types)
    reasons = tuple(f"a stage of the class {name}, which Spark builds by its name" for name in unlisted)
    return Audit(trust="code", types=types, unlisted=unlisted, reasons=reasons)


def inspect(files: Files, entry: str) -> Stage:
    """Return what the directory with the metadata file ``entry`` holds.

    Raises:
        PackageError: it is not what Spark writes (``payload-invalid``).
    """
    return _Reader(files, entry).model()


class _Reader:
    def __init__(self, files: Files, entry: str) -> None:
        self._files, self._entry = files, entry
        self._left = set(files.paths())
        self._count = 0

    def model(self) -> Stage:
        root, found, name = self._entry.rpartition("metadata/")
        if not found or "/" in name:
            self._refuse("its entry is not the file with its metadata")
        model = self._stage(root, 0)
        if self._left:
            self._refuse(f"it has a file where Spark writes none: {min(self._left)}")
        return model

    def _refuse(self, message: str) -> NoReturn:
        malformed(f"a Spark ML model that cannot be used: {message}", self._entry)

    def _parts(self, folder: str, *, needed: bool = True) -> list[str]:
        """Return the part files directly in a folder, in order; Spark's marks and checksums beside them are taken."""
        inside = {path for path in self._left if path.startswith(folder) and "/" not in path[len(folder) :]}
        parts = sorted(path for path in inside if _PART.match(path[len(folder) :]))
        marks = {f"{folder}_SUCCESS", f"{folder}._SUCCESS.crc"}
        marks |= {f"{folder}.{path[len(folder) :]}.crc" for path in parts}
        if needed and not parts:
            self._refuse(f"there is no part file in {folder}")
        self._left -= marks | set(parts)
        return parts

    def _stage(self, home: str, depth: int) -> Stage:
        self._count += 1
        if depth > _MAX_DEPTH or self._count > _MAX_STAGES:
            self._refuse("it has too many stages")
        metadata = self._metadata(f"{home}metadata/")
        name, uid = metadata["class"], metadata["uid"]
        params = {**metadata.get("defaultParamMap", {}), **metadata["paramMap"]}
        found: dict[str, Any] = {"name": name, "uid": uid, "metadata": metadata}
        found |= {"params": params, "chosen": metadata["paramMap"]}
        if name not in LISTED or "language" in params:
            # Whatever lies below is the class's own affair, and needs a grant.
            self._left -= {path for path in self._left if path.startswith(home)}
            return Stage(**found, listed=False)
        if name == _PIPELINE:
            return Stage(**found, stages=self._stages(home, metadata["paramMap"].get("stageUids"), depth))
        if name in _BARE:
            return Stage(**found)
        if name in _TABLES:
            return Stage(**found, data=rows(self._read(self._parts(f"{home}data/")), self._entry))
        return Stage(**found, trees=self._trees(home, metadata))

    def _metadata(self, folder: str) -> Mapping[str, Any]:
        parts = self._parts(folder)
        if len(parts) != 1:
            self._refuse(f"there is more than one part file in {folder}")
        raw = self._files.read(parts[0])
        line = raw.removesuffix(b"\n")
        if len(raw) > _MAX_METADATA or b"\n" in line or b"\r" in line:
            self._refuse(f"the metadata in {folder} are not one line")
        metadata: dict[str, Any] = parse_json(line, self._entry)
        maps = [metadata.get(key, {}) for key in ("paramMap", "defaultParamMap")] if isinstance(metadata, dict) else []
        if not maps or not all(isinstance(one, dict) for one in maps) or "paramMap" not in metadata:
            self._refuse(f"the metadata in {folder} have no params")
        if not isinstance(metadata.get("class"), str):
            self._refuse(f"the metadata in {folder} name no class")
        if not isinstance(metadata.get("uid"), str) or not _UID.match(metadata["uid"]):
            self._refuse(f"the metadata in {folder} have no proper uid")
        self._columns({**maps[1], **maps[0]}, folder)
        return metadata

    def _columns(self, params: Mapping[str, Any], folder: str) -> None:
        """Check that params that name columns are texts."""
        for name, value in params.items():
            if name.endswith("Col") and not isinstance(value, str):
                self._refuse(f"the param {name} in {folder} is not a text")
            many = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if name.endswith("Cols") and not many:
                self._refuse(f"the param {name} in {folder} is not a list of texts")

    def _stages(self, home: str, uids: Any, depth: int) -> tuple[Stage, ...]:
        if not isinstance(uids, list) or not all(isinstance(uid, str) and _UID.match(uid) for uid in uids):
            self._refuse("the pipeline does not name its stages")
        # As Spark pads them, so that the names sort in order.
        width = len(str(len(uids)))
        stages = []
        for position, uid in enumerate(uids):
            stage = self._stage(f"{home}stages/{position:0{width}d}_{uid}/", depth + 1)
            if stage.uid != uid:
                self._refuse(f"stage {position} has another uid than its pipeline says")
            stages.append(stage)
        return tuple(stages)

    def _read(self, paths: Sequence[str]) -> list[bytes]:
        if not all(path.endswith(".parquet") for path in paths):
            self._refuse("its data are not parquet files")
        return [self._files.read(path) for path in paths]

    def _trees(self, home: str, metadata: Mapping[str, Any]) -> Trees:
        forest = metadata["class"] in _FORESTS
        classifier = ".classification." in metadata["class"] and "GBT" not in metadata["class"]
        described = rows(self._read(self._parts(f"{home}treesMetadata/")), self._entry) if forest else None
        return trees(
            self._read(self._parts(f"{home}data/")),
            described,
            self._size(metadata, "numFeatures"),
            self._size(metadata, "numClasses") if classifier else 0,
            self._entry,
        )

    def _size(self, metadata: Mapping[str, Any], field_name: str) -> int:
        value = metadata.get(field_name)
        if type(value) is not int or not 0 < value < 2**31:
            self._refuse(f"{field_name} is not a size")
        return value
