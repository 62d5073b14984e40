"""The param ``method`` of scikit-learn models: only methods that score rows, whatever a package's signature allows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from modelpack.errors import InputError
from modelpack_flavors._sklearn.predictor import Scorer


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    model = LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])
    return Scorer(model=model, method="predict", form="numpy")


def test_a_method_that_scores_can_be_named(scorer: Scorer) -> None:
    assert scorer.predict(np.array([[1.0]]), {"method": "predict_proba"}).shape == (1, 2)


@pytest.mark.parametrize("name", ["fit", "set_params", "__class__", "no_such_method", ["predict"]])
def test_anything_else_is_refused(scorer: Scorer, name: Any) -> None:
    with pytest.raises(InputError, match="no method that scores") as caught:
        scorer.predict(np.array([[1.0]]), {"method": name})
    assert (caught.value.code, caught.value.path) == ("param-constraint", "params.method")
