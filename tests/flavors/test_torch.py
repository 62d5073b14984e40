"""The torch flavor: what becomes of data on its way in and out, what is written, and what is refused."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import modelpack
from modelpack import coerce, files, flavor, forms
from modelpack.audits.pt2 import inspect
from modelpack.errors import (
    FlavorError,
    IntegrityError,
    ModelpackError,
    PackageError,
    SaveError,
    TrustError,
    UsageError,
)
from modelpack.flavor import LoadContext
from modelpack.sources import Namespace

ROWS = np.random.default_rng(0).normal(size=(4, 3))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def saved(model: Any, path: Path, example: Any = None, **more: Any) -> modelpack.Package:
    return modelpack.save(model, path / "pkg", example=example, **more)


def loaded(model: Any, path: Path, example: Any = None, **more: Any) -> Any:
    return modelpack.load(saved(model, path, example, **more).path)


def live(model: Any, *args: Any) -> Any:
    with torch.inference_mode():
        return model.eval()(*[torch.as_tensor(arg) for arg in args]).numpy()


class Files:
    """One payload file in memory."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def read(self, path: str) -> bytes:
        return self.raw

    view = read


def context(raw: bytes, *, form: str = "pt2", config: Mapping[str, Any] | None = None, code: bool = False) -> Any:
    return LoadContext(
        format=form,
        entry="model",
        files=Files(raw),  # type: ignore[arg-type]
        config=config or {},
        entrypoint=None,
        code_allowed=code,
        namespace=Namespace("sha256:" + "0" * 64, {}),
        signature=None,
    )


def exported(model: Any, *args: Any) -> bytes:
    """Return the bytes that torch itself writes."""
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model.eval(), args), buffer)
    return buffer.getvalue()


def score(predictor: Any, data: Any) -> Any:
    return predictor.predict(coerce.inputs(data, modelpack.infer_signature(data)), {})


# What is written.


def test_a_graph_is_loaded_by_nothing_that_unpickles_or_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = saved(nn.Linear(3, 2), tmp_path, ROWS)

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it was called")

    for module, name in ((torch, "load"), (torch.export, "load"), (torch.jit, "load"), (pickle, "loads")):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr("sympy.sympify", never)
    model = modelpack.load(package.path)
    assert (model.candidate.trust, model.predict(ROWS).shape) == ("graph", (4, 2))


def test_torch_itself_opens_what_is_written(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 2))
    package = saved(model, tmp_path, ROWS)
    program = torch.export.load(package.path / "payloads/native/model.pt2")
    given = torch.tensor(ROWS).float()
    np.testing.assert_array_equal(program.module()(given).detach().numpy(), live(model, given))


def test_the_file_says_nothing_of_where_and_when_it_was_written(tmp_path: Path) -> None:
    package = saved(nn.Linear(3, 2), tmp_path, ROWS)
    raw = (package.path / "payloads/native/model.pt2").read_bytes()
    assert b"site-packages" not in raw and __file__.encode() not in raw
    with zipfile.ZipFile(io.BytesIO(raw)) as opened:
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert opened.read("model/data/sample_inputs/model.pt") == b""


def test_weights_lie_at_multiples_of_64_bytes(tmp_path: Path) -> None:
    package = saved(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), tmp_path, ROWS)
    raw = (package.path / "payloads/native/model.pt2").read_bytes()
    found = inspect(raw, "m")
    starts = [raw.index(bytes(one.data)) % 64 for one in found.weights.values()]
    assert starts == [0] * 4


SCRIPT = """
import sys, numpy as np, torch, modelpack
from torch import nn
torch.manual_seed(0)
rows = np.random.default_rng(0).normal(size=(4, 3))
print(modelpack.save(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), sys.argv[1], example=rows).digest)
"""


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "m")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    ).stdout
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    assert modelpack.save(module, tmp_path / "here" / "m", example=ROWS).digest == other.strip()


def test_code_that_a_graph_does_not_need_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it was run')")
    model = loaded(nn.Linear(3, 2), tmp_path, ROWS, code=tmp_path / "mine.py")
    assert (model.candidate.trust, model.manifest.flavors[0].code) == ("graph", ())


def test_saving_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    package = saved(model, tmp_path, ROWS)
    assert [module.training for module in model] == [True, True, False]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(modelpack.load(package.path).predict(ROWS), live(model, ROWS.astype(np.float32)))


def test_loading_reads_a_payload_once_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(nn.Linear(3, 2), tmp_path, ROWS).path
    opened: list[str] = []
    enter = files._open_regular.__enter__
    monkeypatch.setattr(
        files._open_regular, "__enter__", lambda self: (opened.append(self.path.name), enter(self))[1], raising=True
    )
    model = modelpack.load(path)
    assert opened.count("model.pt2") == 1
    held = model.package.payload_files(model.manifest.payloads["native"])
    (path / "payloads/native/model.pt2").write_bytes(b"something else")
    with pytest.raises(IntegrityError):
        held.read("model.pt2")


# Many kinds of models.

ENCODER = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
MODELS = {
    "transformer": (nn.TransformerEncoder(ENCODER, 2, enable_nested_tensor=False), np.ones((2, 5, 8), np.float32)),
    "embedding": (nn.Embedding(10, 3), np.array([[1, 2], [3, 4]])),
    "convolutions": (
        nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.LayerNorm(8)
        ),
        np.random.default_rng(1).normal(size=(3, 2, 9)),
    ),
    "upsampling": (
        nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.PReLU()),
        np.random.default_rng(1).normal(size=(2, 1, 4, 4)),
    ),
    "in place": (nn.Sequential(nn.ReLU6(inplace=True), nn.Hardswish(inplace=True), nn.ELU(inplace=True)), ROWS),
    "tied": (nn.Sequential(nn.Linear(3, 3), nn.Tanh()), ROWS),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_answers_as_its_module(name: str, tmp_path: Path) -> None:
    model, example = MODELS[name]
    if name == "tied":
        model.append(model[0])
    floats = example.dtype.kind == "f"
    wanted = live(model, example.astype(np.float32) if floats and name != "in place" else example.copy())
    found = loaded(model.train(), tmp_path, example)
    assert found.candidate.trust == "graph"
    np.testing.assert_allclose(found.predict(example), wanted, rtol=1e-5, atol=1e-6)


def test_any_number_of_rows_is_scored(tmp_path: Path) -> None:
    model = loaded(nn.Linear(3, 2), tmp_path, ROWS[:1])
    assert [model.predict(np.ones((n, 3))).shape for n in (0, 1, 2, 100)] == [(n, 2) for n in (0, 1, 2, 100)]


def test_other_dimensions_are_free_where_they_are_named(tmp_path: Path) -> None:
    options = {"dynamic": {"input": {1: "time"}}}
    model = loaded(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), tmp_path, np.ones((2, 5, 3)), options=options)
    assert [tensor.shape for tensor in model.signature.inputs.tensors] == [("batch", "time", 3)]
    assert [tensor.shape for tensor in model.signature.outputs.tensors] == [("batch", "time", 2)]
    assert model.predict(np.ones((3, 9, 3))).shape == (3, 9, 2)


def test_a_fixed_number_of_rows_is_kept(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 3) * torch.ones(2, 3)

    with pytest.raises(SaveError, match="batch") as info:
        saved(Fixed(), tmp_path, np.ones((2, 3), np.float32))
    assert info.value.code == "model-unsupported"
    model = loaded(Fixed(), tmp_path, np.ones((2, 3), np.float32), options={"batch": "fixed"})
    assert model.signature.inputs.tensors[0].shape == (2, 3)
    with pytest.raises(modelpack.InputError):
        model.predict(np.ones((3, 3), np.float32))


# Data on its way in.


@pytest.mark.parametrize(
    ("model", "example", "dtype"),
    [
        (nn.Linear(3, 2), ROWS, "float32"),
        (nn.Linear(3, 2), ROWS.astype(np.float16), "float32"),
        (nn.Linear(3, 2), ROWS.tolist(), "float32"),
        (nn.Linear(3, 2), [[1, 2, 3], [4, 5, 6]], "float32"),
        (nn.Linear(3, 2), torch.ones(2, 3), "float32"),
        (nn.Linear(3, 2).double(), ROWS.astype(np.float32), "float64"),
        (nn.Linear(3, 2).half(), ROWS, "float16"),
        (nn.Linear(3, 2).bfloat16(), ROWS, "float32"),
        (nn.Flatten(), ROWS, "float64"),
    ],
)
def test_floats_are_those_of_the_model(model: Any, example: Any, dtype: str, tmp_path: Path) -> None:
    found = loaded(model, tmp_path, example)
    assert [tensor.dtype for tensor in found.signature.inputs.tensors] == [dtype]
    assert found.predict(example).dtype == np.dtype(dtype)


def test_json_numbers_are_rounded_to_the_model_s_floats(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    model = loaded(module, tmp_path, ROWS)
    parsed = forms.parse({"instances": ROWS.tolist()}, signature=model.signature)
    frame = coerce.inputs(parsed.data, model.signature, wire="json", at=parsed.at)
    answer = model.score(frame, {})
    np.testing.assert_array_equal(next(iter(answer.tensors.values())), live(module, ROWS.astype(np.float32)))
    with pytest.raises(modelpack.InputError):
        model.predict(np.array([[1e300, 0.0, 0.0]]))


def test_missing_values_are_refused_unless_the_example_has_them(tmp_path: Path) -> None:
    holes = np.array([[np.nan, 1.0, 2.0]])
    with pytest.raises(modelpack.InputError):
        loaded(nn.Linear(3, 2), tmp_path, ROWS).predict(holes)
    assert np.isnan(loaded(nn.Linear(3, 2), tmp_path / "nulls", holes, overwrite=True).predict(holes)).all()


def test_a_table_is_one_matrix_by_name_or_by_position(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    wanted = live(module, np.ascontiguousarray(frame.to_numpy(np.float32)))
    by_name = loaded(module, tmp_path, frame)
    assert [(column.name, column.type) for column in by_name.signature.inputs.columns] == [
        (name, "float32") for name in "abc"
    ]
    np.testing.assert_array_equal(by_name.predict(frame[["c", "a", "b"]]), wanted)
    by_position = loaded(module, tmp_path / "position", ROWS)
    np.testing.assert_array_equal(by_position.predict(frame), wanted)


class Columns(nn.Module):
    def forward(self, age: torch.Tensor, code: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        return age * code if shift is None else age * code + shift


def test_columns_called_like_the_inputs_are_the_inputs(tmp_path: Path) -> None:
    frame = pd.DataFrame({"code": [1, 2, 3], "age": [0.5, 1.5, 2.5]})
    model = loaded(Columns(), tmp_path, frame)
    assert [(column.name, column.type) for column in model.signature.inputs.columns] == [
        ("code", "int64"),
        ("age", "float64"),
    ]
    assert model.predict(frame).tolist() == [0.5, 3.0, 7.5]


def test_an_optional_input_is_taken_when_the_example_has_it(tmp_path: Path) -> None:
    example = {name: np.ones((2, 2)) for name in ("shift", "age", "code")}
    assert loaded(Columns(), tmp_path, example).predict(example).tolist() == [[2.0, 2.0]] * 2


def test_one_dict_of_tensors_is_an_input(tmp_path: Path) -> None:
    class Both(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return batch["a"] - batch["b"]

    example = {"b": np.ones((2, 2)), "a": np.full((2, 2), 3.0)}
    assert loaded(Both(), tmp_path, example).predict(example).tolist() == [[2.0, 2.0]] * 2


def test_an_example_with_other_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="forward takes age, code, shift") as info:
        saved(Columns(), tmp_path, {"age": np.ones((2, 2)), "size": np.ones((2, 2))})
    assert info.value.code == "example-failed"


def test_the_caller_s_array_is_never_written_to(tmp_path: Path) -> None:
    rows = ROWS.copy()
    model = loaded(nn.Sequential(nn.ReLU(inplace=True)), tmp_path, rows)
    frozen = rows.copy()
    frozen.flags.writeable = False
    assert (model.predict(rows) >= 0).all() and (model.predict(frozen) >= 0).all()
    np.testing.assert_array_equal(rows, ROWS)


# Answers.


class Nested(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"a": x + 1, "b": (x.sum(1), None, [x > 0]), "half": x.bfloat16()}


def test_nested_answers_have_names_by_key_and_place(tmp_path: Path) -> None:
    model = loaded(Nested(), tmp_path, ROWS)
    answer = model.predict(ROWS)
    assert {name: str(array.dtype) for name, array in answer.items()} == {
        "a": "float64",
        "b.0": "float64",
        "b.2.0": "bool",
        "half": "float32",
    }
    np.testing.assert_array_equal(answer["b.0"], ROWS.sum(1))


def test_answers_are_named_and_left_out_as_asked(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="Leave it out") as info:
        saved(nn.GRU(3, 4, batch_first=True), tmp_path, np.ones((2, 5, 3)))
    assert info.value.path == "options.outputs"
    options = {"outputs": ["seen", None]}
    model = loaded(nn.GRU(3, 4, batch_first=True), tmp_path, np.ones((2, 5, 3)), options=options)
    assert {name: array.shape for name, array in model.predict(np.ones((3, 5, 3))).items()} == {"seen": (3, 5, 4)}
    with pytest.raises(UsageError, match="2 tensors where 1") as wrong:
        saved(nn.GRU(3, 4), tmp_path / "x", np.ones((2, 5, 3)), options={"outputs": ["one"]})
    assert wrong.value.code == "option-invalid"


def test_a_model_that_counts_its_calls_starts_from_what_was_saved(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x + self.calls

    module = Counts()
    model = loaded(module, tmp_path, np.zeros((2, 1), np.float32))
    assert [model.predict(np.zeros((1, 1))).tolist() for _ in range(3)] == [[[1.0]]] * 3
    assert module.calls.tolist() == [0.0]


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda self, x: x + torch.rand_like(x), "does not answer as the model does"),
        (lambda self, x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)), "higher_order.cond"),
        (lambda self, x: torch.empty_like(x).zero_(), "aten.empty_like"),
        (lambda self, x: x if float(x.sum()) > 0 else -x, "torch.export cannot write"),
    ],
)
def test_what_no_graph_holds_says_why(forward: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=message) as info:
        saved(type("Odd", (nn.Module,), {"forward": forward})(), tmp_path, ROWS)
    assert info.value.code == "model-unsupported"
    assert list(tmp_path.iterdir()) == []


def test_without_example_and_code_it_says_what_is_missing(tmp_path: Path) -> None:
    for options in ({}, {"format": "pt2"}, {"format": "safetensors"}):
        with pytest.raises(SaveError, match="needs an example") as info:
            saved(nn.Linear(3, 2), tmp_path, options=options)
        assert info.value.code == "example-needed"


# Weights with code, TorchScript.

SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.layer = nn.Linear(width, 2)
        self.same = self.layer

    def forward(self, x):
        return self.same(x)

def make(width):
    return Net(width)
"""


@pytest.fixture
def net(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """Give a module of its own with the class Net."""
    path = tmp_path / "own_net.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("own_net", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["own_net"] = module
    request.addfinalizer(lambda: sys.modules.pop("own_net"))
    spec.loader.exec_module(module)
    return module


def test_weights_are_a_safetensors_file_and_the_class_is_made_again(net: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    module = net.Net(5).half()
    options = {"format": "safetensors", "kwargs": {"width": 5}}
    package = saved(module, tmp_path, np.ones((2, 5)), code=tmp_path / "own_net.py", options=options)
    weights = load_file(package.path / "payloads/native/model.safetensors")
    assert sorted(weights) == ["layer.bias", "layer.weight", "same.bias", "same.weight"]
    model = modelpack.load(package.path)
    assert (model.candidate.trust, package.manifest.flavors[0].entrypoint) == ("code", "own_net:Net")
    np.testing.assert_array_equal(model.predict(np.ones((2, 5))), live(module, np.ones((2, 5), np.float16)))


def test_a_function_can_make_the_model(net: Any, tmp_path: Path) -> None:
    options = {"format": "safetensors", "entrypoint": "own_net:make", "kwargs": {"width": 4}}
    model = loaded(net.Net(4), tmp_path, code=tmp_path / "own_net.py", options=options)
    assert model.predict(np.ones((2, 4))).shape == (2, 2)


def test_a_class_that_makes_another_model_is_refused(net: Any, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="does not make this model again") as info:
        saved(net.Net(7), tmp_path, code=tmp_path / "own_net.py")
    assert info.value.path == "options.kwargs"


def test_code_that_makes_another_model_is_refused_at_load(net: Any, tmp_path: Path) -> None:
    options = {"format": "safetensors", "entrypoint": "own_net:make", "kwargs": {"width": 5}}
    package = saved(net.Net(4), tmp_path, code=tmp_path / "own_net.py", options=options)
    with pytest.raises(PackageError, match="does not make the model") as info:
        modelpack.load(package.path)
    assert info.value.code == "payload-invalid"


def test_a_scripted_module_is_read_with_a_grant(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        script = torch.jit.trace(nn.Linear(3, 2), torch.ones(2, 3))
    package = saved(script, tmp_path, ROWS, options={"format": "torchscript"})
    model = modelpack.load(package.path)
    assert model.candidate.trust == "code"
    np.testing.assert_array_equal(model.predict(ROWS), live(script, ROWS.astype(np.float32)))
    with pytest.raises(SaveError, match="ScriptModule"):
        saved(nn.Linear(3, 2), tmp_path / "x", ROWS, options={"format": "torchscript"})


def test_what_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    module.extra = lambda: None  # type: ignore[assignment]
    with pytest.raises(SaveError) as info:
        saved(module, tmp_path, ROWS, options={"format": "torch-pickle"})
    assert info.value.code == "model-unpicklable"


def test_a_pickle_of_something_else_is_refused() -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(1)}, buffer)
    with pytest.raises(PackageError) as info:
        flavor.get("torch").load(context(buffer.getvalue(), form="torch-pickle", code=True))
    assert info.value.code == "payload-invalid"


# Exported programs, and files that others wrote.


def program(free: bool = True) -> Any:
    shapes = ({0: torch.export.Dim("rows")},) if free else None
    return torch.export.export(nn.Linear(3, 2).eval(), (torch.ones(4, 3),), dynamic_shapes=shapes)


def test_an_exported_program_knows_its_inputs_without_an_example(tmp_path: Path) -> None:
    package = saved(program(), tmp_path)
    (tensor,) = package.manifest.signature.inputs.tensors  # type: ignore[union-attr]
    assert (tensor.name, tensor.dtype, tensor.shape) == ("input", "float32", ("batch", 3))
    assert modelpack.load(package.path).predict(ROWS).shape == (4, 2)


@pytest.mark.parametrize("example", [ROWS, pd.DataFrame(ROWS, columns=["a", "b", "c"])])
def test_an_exported_program_takes_an_example(example: Any, tmp_path: Path) -> None:
    model = loaded(program(), tmp_path, example)
    assert model.candidate.trust == "graph"
    assert model.predict(example[:2]).shape == (2, 2)


def test_an_exported_program_is_written_as_such(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        saved(program(free=False), tmp_path, options={"format": "safetensors"})
    assert info.value.code == "option-invalid"


def test_a_file_that_torch_wrote_is_loaded_without_its_sample_inputs() -> None:
    module = Nested().eval()
    raw = exported(module, torch.tensor(ROWS))
    answer = score(flavor.get("torch").load(context(raw)), ROWS)
    assert list(answer) == ["a", "b.0", "b.2.0", "half"] or list(answer) == [f"output_{i}" for i in range(4)]
    np.testing.assert_array_equal(next(iter(answer.values())), ROWS + 1)


def test_a_program_of_class_code_needs_a_grant_from_the_loader_too() -> None:
    class Cond(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))

    raw = exported(Cond(), torch.ones(4, 3))
    with pytest.raises(TrustError) as info:
        flavor.get("torch").load(context(raw))
    assert info.value.code == "code-not-allowed"
    granted = flavor.get("torch").load(context(raw, code=True))
    np.testing.assert_array_equal(score(granted, np.ones((4, 3), np.float32)), np.full((4, 3), 2.0))


def edited(raw: bytes, before: str, after: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("models/model.json"):
                assert before.encode() in content
                content = content.replace(before.encode(), after.encode())
            new.writestr(zipfile.ZipInfo(info.filename), content)
    return buffer.getvalue()


def test_an_operator_that_this_torch_does_not_have_is_named() -> None:
    raw = edited(exported(nn.ReLU(), torch.ones(2, 2)), "aten.relu.default", "aten.relu.newer")
    with pytest.raises(FlavorError, match=r"torch.ops.aten.relu.newer") as info:
        flavor.get("torch").load(context(raw))
    assert info.value.code == "operator-missing"


def test_an_argument_that_the_operator_does_not_take_is_refused() -> None:
    raw = edited(exported(nn.ReLU(), torch.ones(2, 2)), '"name": "self"', '"name": "other"')
    with pytest.raises(PackageError, match="does not take 'other'") as info:
        flavor.get("torch").load(context(raw))
    assert info.value.code == "payload-invalid"


# Options, config, devices.


@pytest.mark.parametrize(
    "options",
    [
        {"format": "pickle"},
        {"batch": "some"},
        {"dynamic": {"x": 1}},
        {"dynamic": {"x": {0: "batch"}}},
        {"dynamic": {"x": {1: "not a name"}}},
        {"entrypoint": "module"},
        {"outputs": []},
        {"outputs": "a"},
        {"outputs": ["a", "a"]},
        {"outputs": [None]},
        {"threads": 0},
        {"threads": True},
        {"device": 1},
        {"device": "meta"},
        {"kwargs": [1]},
        {"kwargs": {1: 2}},
    ],
)
def test_an_option_with_a_wrong_value_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        saved(nn.Linear(3, 2), tmp_path, ROWS, options=options)
    assert (info.value.code, info.value.path) == ("option-invalid", f"options.{next(iter(options))}")


def test_an_axis_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        saved(nn.Linear(3, 2), tmp_path, ROWS, options={"dynamic": {"input": {2: "time"}}})
    assert info.value.code == "option-invalid"


@pytest.mark.parametrize(
    "config",
    [
        {"marker": 1},
        {"device": "privateuseone"},
        {"threads": "2"},
        {"outputs": [1]},
        {"inputs": [{"name": "input", "dtype": "complex32"}], "call": "one", "columns": False},
        {"inputs": [{"name": "input", "dtype": None}], "call": "eval", "columns": False},
        {"inputs": [{"name": "input", "dtype": None}], "call": "one"},
        {"inputs": 7},
        {"inputs": [{"name": n, "dtype": None} for n in "ab"], "call": "names", "columns": False},
    ],
)
def test_a_config_that_is_none_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(FlavorError) as info:
        flavor.get("torch").load(context(exported(nn.ReLU(), torch.ones(2, 2)), config=config))
    assert info.value.code == "config-invalid"


@pytest.mark.parametrize("device", ["cuda:99", "xpu"])
def test_a_device_that_is_not_there_is_told(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = saved(nn.Linear(3, 2), tmp_path, ROWS, options={"device": device})
    with pytest.raises(FlavorError) as info:
        modelpack.load(package.path)
    assert info.value.code == "device-unavailable"
    monkeypatch.setenv("MODELPACK_TORCH_DEVICE", "meta")
    with pytest.raises(FlavorError, match="'meta'"):
        modelpack.load(package.path)
    monkeypatch.setenv("MODELPACK_TORCH_DEVICE", "auto")
    assert modelpack.load(package.path).predict(ROWS).shape == (4, 2)


def test_devices_in_a_program_are_those_it_is_loaded_on(tmp_path: Path) -> None:
    class Makes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(3, device=x.device)

    raw = edited(exported(Makes(), torch.tensor(ROWS)), '"type": "cpu"', '"type": "xpu"')
    np.testing.assert_array_equal(score(flavor.get("torch").load(context(raw)), ROWS), ROWS + np.arange(3))


def test_the_number_of_threads_is_set_at_load(tmp_path: Path) -> None:
    package = saved(nn.Linear(3, 2), tmp_path, ROWS, options={"threads": 2})
    assert torch.get_num_threads() == 1
    modelpack.load(package.path)
    assert torch.get_num_threads() == 2


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = exported(nn.ReLU(), torch.ones(2, 2))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelpackError, match=r"modelpack\[torch\]") as info:
        flavor.get("torch").load(context(raw))
    assert info.value.code == "extra-missing"


def test_the_manifest_says_what_the_graph_is_made_of(tmp_path: Path) -> None:
    package = saved(nn.Linear(3, 2), tmp_path, ROWS)
    payload = package.manifest.payloads["native"]
    assert payload.declares["operators"] == ["torch.ops.aten.linear.default"]
    assert list(payload.made_with) == ["torch"]
    json.dumps(payload.declares)
