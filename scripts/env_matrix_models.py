"""The models of scripts/env-matrix, each with how modelpack and MLflow are told to save it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# A user's module: its transformer needs what no pickle of a fitted pipeline names, and imports it where it is used.
AGES = '''
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Ages(TransformerMixin, BaseEstimator):
    """Turns dates in any spelling into days."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        from dateutil import parser

        return np.array([[parser.parse(text).toordinal() for text in row] for row in X.to_numpy()], dtype=float)
'''
# A user's function with a table and a file of rules, in a module of its own.
RULES = """
import pandas as pd
import yaml

RULES = yaml.safe_load("{low: 1, high: 3}")


def score(rows):
    frame = pd.DataFrame(rows)
    return ((frame["x"] - RULES["low"]) / (RULES["high"] - RULES["low"])).to_numpy()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A model with an example; ``more`` is what ``modelpack.save`` is told, ``mlflow`` how MLflow is called."""

    model: Any
    example: Any
    mlflow: Callable[[Path], None]
    more: Mapping[str, Any] = field(default_factory=dict)


def sklearn_pipeline(folder: Path) -> Subject:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = _cancer()
    return _sklearn(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), x.head())


def sklearn_transformer(folder: Path) -> Subject:
    import pandas as pd
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    module = _module(folder, "ages", AGES)
    x = pd.DataFrame({"born": ["1990-05-01", "3 June 1985", "May 2, 2001"]})
    model = make_pipeline(importlib.import_module("ages").Ages(), LinearRegression()).fit(x, [3.0, 5.0, 1.0])
    more = {"serialization_format": "cloudpickle", "code_paths": [str(module)]}
    return _sklearn(model, x, {"code": module}, more)


def torch_module(folder: Path) -> Subject:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    example = np.ones((2, 4), np.float32)

    def save(place: Path) -> None:
        import mlflow.pytorch

        mlflow.pytorch.save_model(model, place, input_example=example)

    return Subject(model=model, example=example, mlflow=save)


def xgboost_classifier(folder: Path) -> Subject:
    import xgboost

    x, y = _cancer()
    model = xgboost.XGBClassifier(n_estimators=5).fit(x, y)

    def save(place: Path) -> None:
        import mlflow.xgboost

        mlflow.xgboost.save_model(model, place, input_example=x.head())

    return Subject(model=model, example=x.head(), mlflow=save)


def lightgbm_booster(folder: Path) -> Subject:
    import lightgbm

    x, y = _cancer()
    model = lightgbm.train({"verbose": -1, "objective": "binary"}, lightgbm.Dataset(x, y), 5)

    def save(place: Path) -> None:
        import mlflow.lightgbm

        mlflow.lightgbm.save_model(model, place, input_example=x.head())

    return Subject(model=model, example=x.head(), mlflow=save)


def python_function(folder: Path) -> Subject:
    module = _module(folder, "rules", RULES)
    return _function(importlib.import_module("rules").score, {"code": module}, {"code_paths": [str(module)]})


def transformers_text(folder: Path) -> Subject:
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    )
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    network = transformers.BertForSequenceClassification(config).eval()
    model = transformers.pipeline("text-classification", model=network, tokenizer=tokenizer)
    example = ["a good film", "a bad film"]

    def save(place: Path) -> None:
        import mlflow.transformers

        mlflow.transformers.save_model(model, place, input_example=example)

    return Subject(model=model, example=np.array(example), mlflow=save)


def onnx_graph(folder: Path) -> Subject:
    import skl2onnx
    from sklearn.linear_model import LinearRegression

    x = np.random.default_rng(0).random((20, 4), np.float32)
    model = skl2onnx.to_onnx(LinearRegression().fit(x, x.sum(axis=1)), x[:1], target_opset=18)

    def save(place: Path) -> None:
        import mlflow.onnx

        mlflow.onnx.save_model(model, place, input_example=x[:2])

    return Subject(model=model, example=x[:2], mlflow=save)


CASES: Mapping[str, tuple[str, Callable[[Path], Subject]]] = {
    "sklearn": ("scikit-learn pipeline", sklearn_pipeline),
    "transformer": ("scikit-learn pipeline with a transformer of the user's own", sklearn_transformer),
    "xgboost": ("XGBoost classifier", xgboost_classifier),
    "lightgbm": ("LightGBM booster", lightgbm_booster),
    "torch": ("torch module", torch_module),
    "transformers": ("transformers text pipeline", transformers_text),
    "onnx": ("ONNX graph", onnx_graph),
    "python": ("function in a module, with pandas and PyYAML", python_function),
}


def _cancer() -> tuple[Any, Any]:
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(return_X_y=True, as_frame=True)


def _module(folder: Path, name: str, source: str) -> Path:
    place = folder / f"{name}.py"
    place.write_text(source)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return place


def _sklearn(
    model: Any, example: Any, more: Mapping[str, Any] | None = None, told: Mapping[str, Any] | None = None
) -> Subject:
    def save(place: Path) -> None:
        import mlflow.sklearn

        mlflow.sklearn.save_model(model, place, input_example=example, **(told or {}))

    return Subject(model=model, example=example, mlflow=save, more=more or {})


def _function(function: Callable[[Any], Any], more: Mapping[str, Any], told: Mapping[str, Any]) -> Subject:
    import pandas as pd

    example = pd.DataFrame({"x": [1.0, 2.5]})

    def save(place: Path) -> None:
        import mlflow.pyfunc

        class Scorer(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
            def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
                return function(model_input)

        mlflow.pyfunc.save_model(place, python_model=Scorer(), input_example=example, **told)

    return Subject(model=function, example=example, mlflow=save, more=more)
