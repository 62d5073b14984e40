"""Operators of torch that end the process for some arguments are refused before, and do what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modelpack
from modelpack.errors import ModelError
from modelpack_flavors._torch.guards import guarded

ATEN = torch.ops.aten
LOWEST = torch.iinfo(torch.int32).min
zeros = torch.zeros


def lstm(rows: int, width: int, states: int, *weights: tuple[int, ...], **more: Any) -> Any:
    given = {"has_biases": True, "num_layers": 1, "dropout": 0.0, "train": False, "bidirectional": False,
             "batch_first": False, **more}  # fmt: skip
    state = [zeros(1, states, 4), zeros(1, states, 4)]
    return guarded(ATEN.lstm.input)(zeros(5, rows, width), state, [zeros(one) for one in weights], *given.values())


def normalized(*statistics: Any, training: bool = False) -> Any:
    return guarded(ATEN.native_batch_norm.default)(zeros(2, 3, 1), None, None, *statistics, training, 0.1, 1e-5)


def flash(*shapes: tuple[int, ...], mask: Any = None) -> Any:
    return guarded(ATEN._scaled_dot_product_flash_attention_for_cpu.default)(*map(zeros, shapes), attn_mask=mask)


HEADS = (2, 4, 8, 16)
NEAREST = guarded(ATEN.upsample_nearest2d.default)
SMOOTH = guarded(ATEN._upsample_bilinear2d_aa.default)
NO_TRAINING = guarded(ATEN._native_batch_norm_legit_no_training.default)
WEIGHT_NORM = guarded(ATEN._weight_norm.default)
DIVIDED = guarded(ATEN.div.Tensor_mode)
DIVIDED_BY = guarded(ATEN.div_.Scalar_mode)
PIXELS = zeros(1, 1, 10, 10, dtype=torch.uint8)
FITTING = ((16, 3), (16, 4), (16,), (16,))


@pytest.mark.parametrize(
    "call",
    [
        lambda: DIVIDED(
            torch.tensor([5, LOWEST], dtype=torch.int32), torch.tensor([2, -1]).int(), rounding_mode="trunc"
        ),
        lambda: DIVIDED_BY(torch.tensor([torch.iinfo(torch.int64).min]), -1, rounding_mode="trunc"),
        lambda: lstm(2000, 3, 2, *FITTING),
        lambda: lstm(2, 300_000, 2, *FITTING),
        lambda: lstm(2, 3, 2, (16, 3), (16, 1), (16,), (16,)),
        lambda: lstm(2, 3, 2, (16, 3), (16, 4), (16,), (1,)),
        lambda: lstm(2, 3, 2, *FITTING, num_layers=2),
        lambda: lstm(2, 3, 2, *FITTING, bidirectional=True),
        lambda: normalized(None, None),
        lambda: normalized(zeros(1), zeros(3)),
        lambda: NO_TRAINING(zeros(2, 3), zeros(1), None, zeros(3), zeros(3), 0.1, 1e-5),
        lambda: NO_TRAINING(zeros(3), None, None, zeros(3), zeros(3), 0.1, 1e-5),
        lambda: flash((2000, 4, 8, 16), HEADS, HEADS),
        lambda: flash(HEADS, HEADS, (2, 4, 8, 1)),
        lambda: flash(HEADS, HEADS, HEADS, mask=zeros(2, 3)),
        lambda: flash((8, 16), (8, 16), (8, 16)),
        lambda: WEIGHT_NORM(zeros(1000, 1), zeros(1, 1), 0),
        lambda: SMOOTH(zeros(1, 1, 10, 10), [5, 5], False, 1e-12, 1e-12),
        lambda: NEAREST(PIXELS, [100, 100], None, 1e-30),
        lambda: NEAREST(PIXELS, [100, 100], float("nan"), None),
        lambda: NEAREST(PIXELS, [100, 100], scales_w=-10.0),
    ],
)
def test_what_ends_the_process_is_refused_before(call: Any) -> None:
    with pytest.raises(ValueError, match=r"^(_native|_scaled|_upsample|_weight|aten|div|lstm|native|upsample)"):
        call()


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda: DIVIDED(torch.tensor([LOWEST]).int(), torch.tensor([-2]).int(), rounding_mode="trunc"), (1,)),
        (lambda: DIVIDED(torch.tensor([LOWEST]).int(), torch.tensor([-1]).int(), rounding_mode="floor"), (1,)),
        (lambda: lstm(2, 3, 2, *FITTING)[0], (5, 2, 4)),
        (lambda: lstm(2, 3, 2, *FITTING[:2], has_biases=False)[0], (5, 2, 4)),
        (lambda: normalized(zeros(3), zeros(3))[0], (2, 3, 1)),
        (lambda: normalized(None, None, training=True)[0], (2, 3, 1)),
        (lambda: flash(HEADS, (2, 4, 5, 16), (2, 4, 5, 16), mask=zeros(8, 1))[0], HEADS),
        (lambda: WEIGHT_NORM(zeros(10, 3), zeros(10, 1), 0), (10, 3)),
        (lambda: WEIGHT_NORM(zeros(10, 3), zeros(1, 3), 1), (10, 3)),
        (lambda: SMOOTH(zeros(1, 1, 10, 10), [5, 5], False, 0.5, 0.55), (1, 1, 5, 5)),
        (lambda: NEAREST(PIXELS, [25, 100], 2.5, None), (1, 1, 25, 100)),
    ],
)
def test_what_is_right_is_done(call: Any, shape: tuple[int, ...]) -> None:
    assert tuple(call().shape) == shape


class Halves(torch.nn.Module):
    """Divides whole numbers by a whole number, towards zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.div(x, -1, rounding_mode="trunc")


def test_a_request_does_not_end_the_process_of_a_model_that_divides(tmp_path: Path) -> None:
    example = np.array([[1, 2], [3, 4]], np.int32)
    modelpack.save(Halves(), tmp_path / "pkg", example=example)
    model = modelpack.load(tmp_path / "pkg")

    assert np.asarray(model.predict(np.array([[5, 7]], np.int32))).tolist() == [[-5, -7]]
    with pytest.raises(ModelError) as caught:
        model.predict(np.array([[5, LOWEST]], np.int32))
    assert caught.value.code == "model-raised"
