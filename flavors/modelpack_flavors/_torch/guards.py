"""What some of torch's operators take on trust and end the process over; checked here before each call of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["guarded"]

_Given = Mapping[str, Any]


def guarded(function: Any) -> Callable[..., Any]:
    """Return an operator of torch so that it raises ValueError for arguments that it would not survive."""
    name = function._schema.name.removeprefix("aten::")
    check = _scales if "upsample_" in name else _CHECKS.get(name.rstrip("_"))
    if check is None:
        known: Callable[..., Any] = function
        return known
    names = [one.name for one in function._schema.arguments]

    @functools.wraps(function, updated=())
    def call(*positional: Any, **keywords: Any) -> Any:
        fault = check({**dict(zip(names, positional, strict=False)), **keywords})
        if fault is not None:
            raise ValueError(f"{name}: {fault}")
        return function(*positional, **keywords)

    return call


def _division(given: _Given) -> str | None:
    """The least integer divided by -1 is none; processors trap on it."""
    import torch

    if given.get("rounding_mode") != "trunc":
        return None
    dtype = torch.result_type(given["self"], given["other"])
    if dtype not in (torch.int32, torch.int64):
        return None
    whole, divisor = (torch.as_tensor(given[name]).to(dtype) for name in ("self", "other"))
    if ((whole == torch.iinfo(dtype).min) & (divisor == -1)).any():
        return f"the least integer of {dtype} divided by -1 does not fit"
    return None


def _normalization(given: _Given) -> str | None:
    """Statistics, weight and bias have a number for each channel; without training the statistics are there."""
    if given["input"].dim() < 2:
        return "the input has no channels"
    channels = (given["input"].shape[1],)
    statistics = ("running_mean", "running_var")
    if not given.get("training", False) and any(given[one] is None for one in statistics):
        return "there are no statistics"
    for one in ("weight", "bias", *statistics):
        if given.get(one) is not None and tuple(given[one].shape) != channels:
            return f"{one} has the shape {list(given[one].shape)} for {channels[0]} channels"
    return None


def _attention(given: _Given) -> str | None:
    query, key, value = given["query"], given["key"], given["value"]
    if {query.dim(), key.dim(), value.dim()} != {4}:
        return "query, key and value have four dimensions"
    batch, heads, rows, width = query.shape
    if key.shape != value.shape or key.shape[:2] != query.shape[:2] or key.shape[3] != width:
        return "query, key and value do not belong together"
    mask = given.get("attn_mask")
    wanted = (batch, heads, rows, key.shape[2])
    if mask is not None and (mask.dim() not in (2, 4) or not _spreads(mask.shape, wanted)):
        return f"a mask of the shape {list(mask.shape)} for {list(wanted)}"
    return None


def _spreads(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(have in (1, want) for have, want in zip(reversed(shape), reversed(wanted), strict=False))


def _weights(given: _Given) -> str | None:
    vectors, lengths, dim = given["v"], given["g"], given.get("dim", 0)
    if vectors.dim() and dim in (0, vectors.dim() - 1):
        wanted = [size if at == dim else 1 for at, size in enumerate(vectors.shape)]
        if list(lengths.shape) != wanted:
            return f"lengths of the shape {list(lengths.shape)}, not {wanted}"
    return None


def _scales(given: _Given) -> str | None:
    """A scale that is said beside the sizes says the same as they do."""
    sizes = given.get("output_size")
    if sizes is None:
        return None
    named = ("scales",) if len(sizes) == 1 else ("scales_d", "scales_h", "scales_w")[-len(sizes) :]
    for name, before, after in zip(named, given["self" if "self" in given else "input"].shape[2:], sizes, strict=False):
        scale = given.get(name)
        if scale is not None and not (math.isfinite(scale) and scale > 0 and abs(before * scale - after) <= 1):
            return f"a scale of {scale:.6g} from {before} to {after}"
    return None


def _lstm(given: _Given) -> str | None:
    """Its weights and states have the shapes that torch.nn.LSTM gives them, and one type."""
    inputs, hx, weights = given["input"], given["hx"], given["params"]
    if len(hx) != 2 or {inputs.dim(), hx[0].dim(), hx[1].dim()} != {3}:
        return "the input and both states have three dimensions"
    ways = 2 if given["bidirectional"] else 1
    batch = inputs.shape[0 if given["batch_first"] else 1]
    shown, hidden = hx[0].shape[2], hx[1].shape[2]
    for state in hx:
        if tuple(state.shape[:2]) != (given["num_layers"] * ways, batch):
            return f"a state of the shape {list(state.shape)} for {given['num_layers'] * ways} layers and {batch} rows"
    wanted: list[tuple[int, ...]] = []
    for layer in range(given["num_layers"]):
        width = inputs.shape[2] if layer == 0 else shown * ways
        one: list[tuple[int, ...]] = [(4 * hidden, width), (4 * hidden, shown)]
        one += [(4 * hidden,), (4 * hidden,)] if given["has_biases"] else []
        one += [(shown, hidden)] if shown != hidden else []
        wanted += one * ways
    if [tuple(weight.shape) for weight in weights] != wanted:
        return "the weights do not have the shapes that its input and states ask for"
    if any(part.dtype != inputs.dtype for part in (*hx, *weights)):
        return "input, states and weights are not of one type"
    return None


_CHECKS: Mapping[str, Callable[[_Given], str | None]] = {
    "_native_batch_norm_legit_no_training": _normalization,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_weight_norm": _weights,
    "div": _division,
    "divide": _division,
    "lstm": _lstm,
    "native_batch_norm": _normalization,
}
