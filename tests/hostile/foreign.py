"""Hostile directories as MLflow would have written them; each would leave the mark if anything of it ran."""

from __future__ import annotations

from collections.abc import Mapping

MARK = "modelpack-was-here"
OPENS = f"cbuiltins\nopen\n(V{MARK}\nVw\ntR.".encode()
SOURCE = f"open({MARK!r}, 'w').close()\n\n\ndef _load_pyfunc(path):\n    return None\n".encode()
DENIED = ("code-not-allowed", "flavors[0]")
INVALID = ("mlmodel-invalid", "MLmodel")


def pyfunc(*lines: str) -> str:
    return "flavors:\n  python_function:\n" + "".join(f"    {line}\n" for line in lines)


def sklearn(*lines: str) -> str:
    return "flavors:\n  sklearn:\n" + "".join(f"    {line}\n" for line in lines)


# Name -> MLmodel, the other files, and where and with which code it is refused.
CASES: Mapping[str, tuple[str | bytes, Mapping[str, bytes], str, tuple[str, str]]] = {
    "a pickled model": (sklearn("pickled_model: model.pkl"), {"model.pkl": OPENS}, "load", DENIED),
    "a pickle called skops": (
        sklearn("pickled_model: model.pkl", "serialization_format: skops"),
        {"model.pkl": OPENS},
        "load",
        ("payload-invalid", "model.pkl"),
    ),
    "a pickle that it says is trusted": (
        sklearn("pickled_model: model.pkl", "skops_trusted_types: [builtins.open]", "trust: data"),
        {"model.pkl": OPENS},
        "load",
        DENIED,
    ),
    "a loader module of its own": (
        pyfunc("loader_module: loader", "code: code", "data: data"),
        {"code/loader.py": SOURCE, "data": b""},
        "load",
        DENIED,
    ),
    "an installed loader module": (pyfunc("loader_module: os"), {}, "load", DENIED),
    "a cloudpickle": (
        pyfunc("loader_module: mlflow.pyfunc.model", "python_model: python_model.pkl"),
        {"python_model.pkl": OPENS},
        "load",
        DENIED,
    ),
    "artifacts above it": (
        pyfunc(
            "loader_module: mlflow.pyfunc.model",
            "python_model: python_model.pkl",
            "artifacts: {a: {path: ../../../etc/hostname}}",
        ),
        {"python_model.pkl": OPENS},
        "load",
        DENIED,
    ),
    "a model above it": (
        sklearn("pickled_model: ../model.pkl"),
        {},
        "open",
        ("mlmodel-file-missing", "MLmodel.flavors.sklearn.pickled_model"),
    ),
    "a model at an absolute path": (
        sklearn("pickled_model: /etc/hostname"),
        {},
        "open",
        ("mlmodel-file-missing", "MLmodel.flavors.sklearn.pickled_model"),
    ),
    "boosters that are a pickle": (
        "flavors:\n  xgboost:\n    data: model.ubj\n    model_class: xgboost.core.Booster\n",
        {"model.ubj": OPENS},
        "load",
        ("payload-invalid", "model.ubj"),
    ),
    "a graph that is a pickle": (
        "flavors:\n  onnx:\n    data: model.onnx\n",
        {"model.onnx": OPENS},
        "load",
        ("payload-invalid", "model.onnx"),
    ),
    "options in its requirements": (
        sklearn("pickled_model: model.pkl"),
        {"model.pkl": OPENS, "requirements.txt": b"--index-url http://example.invalid\n-e .\nx @ file:///etc\n"},
        "load",
        DENIED,
    ),
    "a tag that builds an object": (
        f"flavors: !!python/object/apply:builtins.open [{MARK}, w]\n",
        {},
        "open",
        ("mlmodel-invalid", "MLmodel.flavors"),
    ),
    "an alias": ("a: &a [x]\nflavors: *a\n", {}, "open", INVALID),
    "a key twice": ("flavors: {}\nflavors: {}\n", {}, "open", INVALID),
    "nesting without end": ("flavors: " + "[" * 20_000 + "\n", {}, "open", INVALID),
    "no UTF-8": (b"flavors: \xff\n", {}, "open", INVALID),
    "no mapping": ("- flavors\n", {}, "open", INVALID),
    "no flavor that is known": (
        "flavors:\n  plugin:\n    code: evil\n",
        {},
        "open",
        ("mlmodel-unsupported", "MLmodel.flavors"),
    ),
    "a version that is an option": (
        sklearn("pickled_model: model.pkl", "sklearn_version: '--pre'"),
        {"model.pkl": OPENS},
        "load",
        ("environment-mismatch", "environment"),
    ),
}
