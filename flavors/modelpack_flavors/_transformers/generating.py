"""Generating text: the same every time unless sampling is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelpack.errors import InputError
from modelpack.signature import Constraints, Param

__all__ = ["PARAMS", "generate", "stream"]

MAX_NEW_TOKENS = 4096
PARAMS = (
    Param(
        name="max_new_tokens",
        type="int64",
        default=32,
        constraints=Constraints(minimum=1, maximum=MAX_NEW_TOKENS),
        description="How many tokens are generated at most.",
    ),
    Param(name="do_sample", type="bool", default=False, description="Draw tokens by chance; else take the likeliest."),
    Param(name="temperature", type="float64", default=1.0, constraints=Constraints(minimum=0.01, maximum=100.0)),
    Param(name="top_k", type="int64", default=50, constraints=Constraints(minimum=0, maximum=1_000_000)),
    Param(name="top_p", type="float64", default=1.0, constraints=Constraints(minimum=0.01, maximum=1.0)),
    Param(
        name="seed",
        type="int64",
        nullable=True,
        constraints=Constraints(minimum=0),
        description="Makes sampling repeatable.",
    ),
    Param(name="return_full_text", type="bool", default=False, description="Answer with the prompt in front."),
)


def generate(model: Any, tokenizer: Any, text: str, params: Mapping[str, Any]) -> str:
    """Return the text that the model goes on with."""
    given = _given(model, tokenizer, text)
    found = _run(model, given, params)
    new = tokenizer.decode(found[0][given["input_ids"].shape[1] :], skip_special_tokens=True)
    return text + new if params["return_full_text"] else str(new)


def stream(model: Any, tokenizer: Any, text: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text piece by piece, from a thread that ends with its reader."""
    import torch
    import transformers

    given = _given(model, tokenizer, text)
    streamer = transformers.TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    finish: Callable[[], None] = streamer.end
    left, failed = threading.Event(), list[BaseException]()

    class Left(transformers.StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **more: Any) -> Any:
            return torch.full((len(input_ids),), left.is_set(), device=input_ids.device)

    def work() -> None:
        try:
            with torch.inference_mode():
                _run(model, given, params, streamer=streamer, stopping_criteria=[Left()])
        except BaseException as exc:
            failed.append(exc)
            finish()

    worker = threading.Thread(target=work, name="generate", daemon=True)
    worker.start()
    try:
        if params["return_full_text"]:
            yield text
        yield from (piece for piece in streamer if piece)
    finally:
        left.set()
        worker.join()
    if failed:
        raise failed[0]


def _given(model: Any, tokenizer: Any, text: str) -> Any:
    given = tokenizer(text, return_tensors="pt").to(model.device)
    if given["input_ids"].shape[1] == 0:
        raise InputError("the text has no token to go on from", code="value-refused", path="text")
    given.pop("token_type_ids", None)
    return given


def _run(model: Any, given: Any, params: Mapping[str, Any], **more: Any) -> Any:
    import torch

    chance = {key: params[key] for key in ("temperature", "top_k", "top_p")} if params["do_sample"] else {}
    with torch.random.fork_rng(enabled=params["seed"] is not None):
        if params["seed"] is not None:
            torch.manual_seed(params["seed"])
        return model.generate(
            **given,
            max_new_tokens=params["max_new_tokens"],
            do_sample=params["do_sample"],
            pad_token_id=_pad(model),
            **chance,
            **more,
        )


def _pad(model: Any) -> int:
    """Return a token to fill with; generating one text never fills, but transformers asks for one."""
    config = model.generation_config
    end = config.eos_token_id
    first = end[0] if isinstance(end, list) else end
    return int(next((one for one in (config.pad_token_id, first) if one is not None), 0))
