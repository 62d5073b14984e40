"""The audit of LightGBM models: what LightGBM writes is taken, whatever points nowhere is refused, nothing crashes."""

from __future__ import annotations

import functools
import itertools
import random
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.audits.lightgbm_text import audit, check
from modelpack.errors import PackageError

PARAMS = {"verbose": -1, "num_leaves": 6, "min_data_in_leaf": 5, "min_data_per_group": 5, "num_threads": 1}
KINDS = (
    "average",
    "binary",
    "categories",
    "custom",
    "dropped",
    "linear",
    "multiclass",
    "one_leaf",
    "one_versus_all",
    "ranking",
    "regression",
    "root",
)


@functools.cache
def booster(kind: str) -> lightgbm.Booster:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    X[::9, 1] = np.nan
    y = X[:, 0] + np.nan_to_num(X[:, 1]) ** 2
    classes = (y > 0).astype(int) + (y > 1)
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame["k"] = pd.Categorical(rng.integers(0, 40, 300) * 10)
    frame["s"] = pd.Categorical(rng.choice(["x", "y", "zü"], 300))

    def train(labels: object = y, rows: object = X, rounds: int = 3, **params: object) -> lightgbm.Booster:
        groups = [150, 150] if params.get("objective") == "lambdarank" else None
        return lightgbm.train({**PARAMS, **params}, lightgbm.Dataset(rows, labels, group=groups), rounds)

    match kind:
        case "average":
            return train(boosting="rf", bagging_freq=1, bagging_fraction=0.5)
        case "binary":
            return train(y > 0, objective="binary", monotone_constraints=[1, 0, -1, 0])
        case "categories":
            return train(y + 5 * np.sin(frame["k"].astype(float)), frame, cat_smooth=1, max_cat_to_onehot=2)
        case "custom":
            return train(objective=lambda scores, data: (scores - data.get_label(), np.ones_like(scores)))
        case "dropped":
            return train(boosting="dart")
        case "linear":
            return train(rows=np.nan_to_num(X), linear_tree=True)
        case "multiclass":
            return train(classes, objective="multiclass", num_class=3)
        case "one_leaf":
            return train(y[:5], X[:5])
        case "one_versus_all":
            return train(classes, objective="multiclassova", num_class=3)
        case "ranking":
            return train(classes, objective="lambdarank")
        case "root":
            return train(np.abs(y), reg_sqrt=True)
        case _:
            return train()


@functools.cache
def written(kind: str) -> bytes:
    return booster(kind).model_to_string(num_iteration=-1).encode()


class Files:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, path: str) -> bytes:
        assert path == "model.txt"
        return self.data


def measured(text: bytes) -> bytes:
    """Return the model with the sizes of its trees as they are."""
    lines = text.split(b"\n")
    starts = [i for i, line in enumerate(lines) if line.startswith(b"Tree=")]
    ends = [i for i, line in enumerate(lines) if line == b"end of trees"]
    marks = [*starts, *ends[:1]]
    sizes = [len(b"\n".join(lines[a:b])) + 1 for a, b in itertools.pairwise(marks)]
    says = b"tree_sizes=" + b" ".join(b"%d" % size for size in sizes)
    return b"\n".join(says if line.startswith(b"tree_sizes=") else line for line in lines)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lightgbm_writes_is_a_graph(kind: str) -> None:
    found = audit(Files(written(kind)), "model.txt")  # type: ignore[arg-type]
    assert (found.trust, found.types, found.reasons) == ("graph", (), ())


def test_the_model_says_what_it_is() -> None:
    facts = check(written("categories"), "model.txt")
    assert facts.features == ("a", "b", "c", "d", "k", "s")
    assert (facts.objective, facts.outputs, facts.iterations) == ("regression", 1, 3)
    assert facts.categorical == (4, 5)
    assert facts.pandas_categorical == [[10 * i for i in range(40)], ["x", "y", "zü"]]


def test_a_model_without_an_objective_is_taken() -> None:
    assert check(written("custom"), "model.txt").objective is None


def test_a_model_without_parameters_is_taken() -> None:
    text = written("regression")
    short = text[: text.index(b"parameters:")]
    facts = check(short, "model.txt")
    assert (facts.categorical, facts.pandas_categorical) == ((), None)


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("regression", b"tree\n", b"trees\n", "not where LightGBM writes them"),
        ("regression", b"version=v4", b"version=v9", "version that this reader"),
        ("regression", b"version=v4\n", b"", "header is incomplete"),
        ("regression", b"num_class=1\n", b"num_class=1\nnum_class=1\n", "does not belong there"),
        ("regression", b"num_class=1\n", b"num_class=1\nlinear=1\n", "does not belong there"),
        ("regression", b"num_class=1\n", b"num_class=x\n", "num_class is not a number"),
        ("regression", b"num_class=1\n", b"num_class=0\n", "another number of trees in an iteration"),
        ("regression", b"num_class=1\n", b"num_class=3\n", "another number of trees in an iteration"),
        ("average", b"average_output\n", b"average_output=1\n", "does not belong there"),
        ("regression", b"label_index=0", b"label_index=-1", "label_index is not a number"),
        ("regression", b"max_feature_idx=3", b"max_feature_idx=999999999", "another number of features"),
        ("regression", b"max_feature_idx=3", b"max_feature_idx=2", "another number of features"),
        ("regression", b"=Column_0", b"=Column_0\r", "character that is none"),
        ("regression", b"=Column_0 ", b"=\xff ", "not UTF-8"),
        ("regression", b"feature_infos=[", b"feature_infos=<", "range cannot be read"),
        ("regression", b"objective=regression\n", b"objective=mine\n", "objective is none"),
        ("regression", b"objective=regression\n", b"objective=re gr?\n", "objective cannot be read"),
        ("regression", b"objective=regression\n", b"objective=regression num_class:1\n", "number of classes"),
        ("binary", b"sigmoid:1\n", b"sigmoid:1 sigmoid:2\n", "says something twice"),
        ("multiclass", b"num_class:3", b"num_class:2", "number of classes"),
        ("multiclass", b"objective=multiclass num_class:3", b"objective=regression", "number of classes"),
        ("binary", b"monotone_constraints=1 0", b"monotone_constraints=1 2", "constraints"),
        ("binary", b"monotone_constraints=1 0", b"monotone_constraints=1", "constraints"),
        ("regression", b"tree_sizes=", b"tree_sizes=-", "sizes of its trees"),
        ("regression", b"tree_sizes=", b"tree_sizes=9999999 ", "ends after the model"),
        ("regression", b"tree_sizes=", b"tree_sizes=5 ", "not where the header says"),
        ("regression", b"\nend of trees\n", b"\nend of tree\n", "not where LightGBM"),
        ("regression", b"feature_importances:\n", b"feature_importances:\n\xff\n", "importance cannot be read"),
        ("regression", b"[boosting: gbdt]", b"boosting: gbdt", "parameter cannot be read"),
        ("regression", b"[boosting: gbdt]\n", b"[boosting: gbdt]\n[boosting: gbdt]\n", "given twice"),
        ("regression", b"end of parameters\n", b"end\n", "parameter cannot be read|not where"),
        ("regression", b"pandas_categorical:null\n", b"pandas_categorical:{\n", "not JSON"),
        ("regression", b"pandas_categorical:null\n", b"pandas_categorical:{}\n", "not lists of values"),
        ("regression", b"pandas_categorical:null\n", b"pandas_categorical:[[[]]]\n", "not lists of values"),
        ("regression", b"pandas_categorical:null\n", b"pandas_categorical:null\nmore\n", "something follows"),
        ("regression", b"pandas_categorical:null\n", b"pandas_categorical:null", "ends too early"),
    ],
)
def test_a_header_that_is_not_lightgbms_is_refused(kind: str, old: bytes, new: bytes, message: str) -> None:
    text = written(kind)
    assert old in text
    with pytest.raises(PackageError, match=message) as info:
        check(text.replace(old, new, 1), "model.txt")
    assert (info.value.code, info.value.path) == ("payload-invalid", "model.txt")


def with_line(kind: str, key: bytes, place: int | None, value: bytes) -> bytes:
    """Return a model with one value of a line of its last tree changed; place None changes the whole line."""
    lines = written(kind).split(b"\n")
    at = max(i for i, line in enumerate(lines) if line.startswith(key + b"="))
    words = [word for word in lines[at].partition(b"=")[2].split(b" ") if word]
    if place is None:
        words = [value]
    else:
        words[place] = value
    lines[at] = key + b"=" + b" ".join(words)
    return measured(b"\n".join(lines))


@pytest.mark.parametrize(
    ("kind", "key", "place", "value", "message"),
    [
        ("regression", b"num_leaves", None, b"0", "no leaves"),
        ("regression", b"num_leaves", None, b"7", "another number of values"),
        ("regression", b"num_leaves", None, b"999999999", "another number of values"),
        ("regression", b"num_leaves", None, b"-6", "size is not a number"),
        ("regression", b"num_cat", None, b"1", "other lines than it should"),
        ("regression", b"split_feature", 0, b"4", "feature that does not exist"),
        ("regression", b"split_feature", 0, b"-1", "feature that does not exist"),
        ("regression", b"split_feature", 0, b"1.5", "not of numbers"),
        ("regression", b"split_feature", 0, b"99999999999", "not of numbers"),
        ("regression", b"threshold", 0, b"1_0", "not of numbers"),
        ("regression", b"threshold", 0, b"", "not of numbers"),
        ("regression", b"decision_type", 0, b"16", "unknown way"),
        ("regression", b"decision_type", 0, b"12", "unknown way"),
        ("regression", b"decision_type", 0, b"-2", "unknown way"),
        ("regression", b"decision_type", 0, b"1", "other sets of categories"),
        ("regression", b"left_child", 0, b"5", "does not come after its parent"),
        ("regression", b"left_child", 0, b"0", "does not come after its parent"),
        ("regression", b"left_child", 0, b"-100", "one parent"),
        ("regression", b"right_child", -1, b"-1", "one parent"),
        ("regression", b"leaf_value", 0, b"0 0", "another number of values"),
        ("regression", b"leaf_count", None, b"1", "another number of values"),
        ("regression", b"leaf_value", 0, b"zero", "not of numbers"),
        ("regression", b"is_linear", None, b"1", "other lines than it should"),
        ("regression", b"is_linear", None, b"2", "other lines than it should"),
        ("regression", b"Tree", None, b"0", "not where the header says"),
        ("categories", b"cat_boundaries", 0, b"1", "do not follow each other"),
        ("categories", b"cat_boundaries", -1, b"999999", "do not follow each other"),
        ("categories", b"cat_threshold", 0, b"4294967296", "not one of bits"),
        ("categories", b"cat_threshold", 0, b"-1", "not one of bits"),
        ("categories", b"cat_threshold", None, b"1", "do not follow each other|another number of values"),
        ("linear", b"num_features", 0, b"-1", "more features than there are"),
        ("linear", b"num_features", 0, b"2147483647", "more features than there are"),
        ("linear", b"leaf_features", 0, b"4", "feature that does not exist"),
        ("linear", b"leaf_features", None, b"1", "more features than there are"),
        ("linear", b"leaf_coeff", None, b"1", "another number of values"),
        ("linear", b"leaf_coeff", 0, b"1e400", "too large"),
        ("linear", b"leaf_const", 0, b"1e-320", "too small"),
        ("linear", b"leaf_const", 0, b"1e-400", "too small"),
    ],
)
def test_what_points_nowhere_is_refused(kind: str, key: bytes, place: int | None, value: bytes, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        check(with_line(kind, key, place, value), "model.txt")


def test_a_line_twice_is_refused() -> None:
    text = written("regression").replace(b"\nshrinkage=1\n", b"\nshrinkage=1\nshrinkage=1\n", 1)
    with pytest.raises(PackageError, match="a line twice"):
        check(measured(text), "model.txt")


def test_a_tree_is_only_so_deep() -> None:
    leaves = 5000
    inner = range(leaves - 1)
    chain = {
        b"split_feature": b"0",
        b"split_gain": b"1",
        b"threshold": b"0.5",
        b"decision_type": b"2",
        b"internal_value": b"0",
        b"internal_weight": b"1",
        b"internal_count": b"1",
    }
    lines = {
        **{key: b" ".join([value] * (leaves - 1)) for key, value in chain.items()},
        b"num_leaves": b"%d" % leaves,
        b"left_child": b" ".join(b"%d" % ~i for i in inner),
        b"right_child": b" ".join(b"%d" % (i + 1 if i < leaves - 2 else ~(leaves - 1)) for i in inner),
        b"leaf_value": b" ".join([b"0.5"] * leaves),
        b"leaf_weight": b" ".join([b"1"] * leaves),
        b"leaf_count": b" ".join([b"1"] * leaves),
    }
    text = written("regression").split(b"\n")
    first, last = (text.index(line) for line in (b"Tree=0", b"Tree=1"))
    for i in range(first, last):
        key = text[i].partition(b"=")[0]
        if key in lines:
            text[i] = key + b"=" + lines[key]
    with pytest.raises(PackageError, match="deeper than 4096"):
        check(measured(b"\n".join(text)), "model.txt")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_any_change_of_bytes_is_taken_or_refused(kind: str, data: st.DataObject) -> None:
    raw = bytearray(written(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        check(bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) // 2]))]), "model.txt")
    except PackageError as error:
        assert error.code == "payload-invalid"


ODD = b"-1|0|1|2|7|-2|100|2147483647|-2147483648|4294967295|1e308|1e400|1e-320|nan|inf||1.5|9|13|abc|regression".split(
    b"|"
)


def mutant(chance: random.Random) -> bytes:
    """Return a model with a few values changed, moved or left out."""
    lines = written(chance.choice(KINDS)).split(b"\n")
    for _ in range(chance.choice([1, 1, 2, 3])):
        at = chance.randrange(lines.index(b"end of trees") if b"end of trees" in lines else len(lines))
        key, sign, value = lines[at].partition(b"=")
        words = value.split(b" ")
        if not sign or chance.random() < 0.1:
            lines[at] = chance.choice(lines)
            continue
        match chance.randrange(4):
            case 0:
                chance.shuffle(words)
            case 1:
                words.append(chance.choice(ODD))
            case _:
                words[chance.randrange(len(words))] = chance.choice(ODD)
        lines[at] = key + sign + b" ".join(words)
    return measured(b"\n".join(lines))


SCORE = """
import sys, pathlib, lightgbm, numpy
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(file.name, flush=True)
    try:
        model = lightgbm.Booster(model_str=file.read_text("utf-8"))
        width = model.num_feature()
        for value in (0.0, numpy.nan, 1e300, -5.0, 4e9):
            for raw in (True, False):
                model.predict(numpy.full((2, width), value), raw_score=raw, num_threads=1)
        model.predict(numpy.zeros((2, width)), pred_leaf=True, num_threads=1)
    except (lightgbm.basic.LightGBMError, ValueError):
        pass
print("done")
"""


def test_no_model_that_passes_ends_the_process(tmp_path: Path) -> None:
    """Hostile models that the audit takes may give any answer or an error, but the library must survive them."""
    chance = random.Random(0)
    passed = 0
    for number in range(1500):
        data = mutant(chance)
        try:
            check(data, "model.txt")
        except PackageError:
            continue
        passed += 1
        (tmp_path / f"{number:05}").write_bytes(data)
    assert passed > 100
    run = subprocess.run([sys.executable, "-c", SCORE, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout.split()[-1:]) == (0, ["done"])
