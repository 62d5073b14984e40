"""Models of listed types only, put together so that a listed part does what it is not for. All markers are benign."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

from modelpack.errors import PackageError
from modelpack.flavor import LoadContext
from modelpack_flavors._sklearn import loading
from modelpack_flavors._sklearn.canonical import archive
from modelpack_flavors._sklearn.describing import Description

RANDOM = np.random.RandomState(0)
X = RANDOM.rand(60, 4)
Y = X @ [1.0, 2.0, 0.0, 1.0]
MEAN = Y.mean()
LABELS = (Y > MEAN).astype(int)


def archived(model: Any) -> bytes:
    """Write a model without looking at it."""
    description = Description()
    return archive(description.node(model), description.members)


def read(data: bytes) -> Any:
    """Load as a stranger's, without a grant."""

    class Files:
        def read(self, path: str) -> bytes:
            return data

        def paths(self) -> list[str]:
            return ["model.skops"]

        def directory(self) -> Path:
            raise AssertionError("nothing here needs files")

    return loading.read(
        LoadContext(
            format="skops",
            entry="model.skops",
            files=Files(),
            config={},
            entrypoint=None,
            code_allowed=False,
            namespace=None,
            signature=None,
        )
    )


def having(model: Any, **attributes: Any) -> Any:
    """Return a model with attributes put where its class would not."""
    model.__dict__.update(attributes)
    return model


# What no library writes is refused.
IMPOSSIBLE: dict[str, tuple[Callable[[], Any], str]] = {
    "a method that is an object": (lambda: having(DecisionTreeRegressor(), _validate_X_predict=RBF()), "hides its"),
    "a method that is a text": (lambda: having(LinearRegression(), predict="marker"), "hides its predict"),
    "a method of a helper": (lambda: having(RBF(), diag=RBF()), "hides its diag"),
    "a property": (lambda: having(Pipeline([("a", StandardScaler())]), named_steps={}), "hides its named_steps"),
    "a method that is there at times": (
        lambda: having(Pipeline([("a", StandardScaler())]), transform=RBF()),
        "hides its transform",
    ),
    "a table of the class": (
        lambda: having(SVC().fit(sp.csr_matrix(X), LABELS), _sparse_kernels=["linear", "poly", "a", "b", "rbf"]),
        "hides its _sparse_kernels",
    ),
}


@pytest.mark.parametrize(("made", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_part_that_no_library_writes_is_refused(made: Callable[[], Any], message: str) -> None:
    with pytest.raises(PackageError, match=message) as info:
        read(archived(made()))
    assert (info.value.code, info.value.path) == ("payload-invalid", "model.skops")
