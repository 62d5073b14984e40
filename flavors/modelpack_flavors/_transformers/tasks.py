"""What each task answers: columns, and the params that a call may set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelpack.dtypes import Element, ListType, StructField, StructType
from modelpack.errors import InputError
from modelpack.flavor import Form
from modelpack.frame import Frame
from modelpack.signature import IO, Column, Constraints, Param, Signature, Table, Tensor, Tensors
from modelpack_flavors._transformers import generating, lengths

__all__ = ["Scorer", "scorer", "task_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """Scores texts, in inference mode, one call at a time: tokenizers keep state while they work."""

    task: str
    model: Any
    tokenizer: Any
    config: Mapping[str, Any]
    pipeline: Any = None
    form: Form = "frame"
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def predict(self, data: Frame, params: Mapping[str, Any]) -> Any:
        """Return the answer's columns, one entry for each text."""
        import torch

        texts = self.texts(data)
        with self.lock, torch.inference_mode():
            room = params.get("max_new_tokens", 0)
            if not self.config.get("truncation", False):
                lengths.check(self.tokenizer, self.model, texts, room, self.config.get("column"))
            return _ANSWERS[self.task](self, texts, params)

    def signature(self) -> Signature:
        """Return what the model takes, as far as no example says more."""
        column = Column(name=self.config.get("column") or "text", type="utf8")
        return Signature(inputs=Table(columns=(column,)), outputs=self.outputs(), params=self.params())

    def inputs(self) -> Table | None:
        """Return the one column that is taken, if the example was a table with it."""
        name = self.config.get("column")
        return None if name is None else Table(columns=(Column(name=name, type="utf8"),))

    def outputs(self) -> IO:
        """Return what is answered."""
        return _OUTPUTS[self.task](self)

    def params(self) -> tuple[Param, ...]:
        """Return what a call may set."""
        return _PARAMS.get(self.task, ())

    def texts(self, data: Frame) -> list[str]:
        """Return the texts of a table's column, or of a vector."""
        if data.tensors is not None:
            found = [array for array in data.tensors.values() if array.dtype.kind in "OUT" and array.ndim == 1]
        else:
            columns, named = data.columns or {}, self.config.get("column")
            texts = {name: one for name, one in columns.items() if one.type == "utf8"}
            found = [one.data for name, one in texts.items() if named in (None, name)]
        if len(found) != 1:
            raise InputError(
                "a text is taken: one column of utf8, or a tensor of utf8 with one dimension",
                code="value-refused",
                path=str(self.config.get("column") or "text"),
            )
        return [str(text) for text in found[0]]

    def run(self, texts: Sequence[str], **more: Any) -> Any:
        """Return what the pipeline answers to each text."""
        return self.pipeline(list(texts), batch_size=self.config.get("batch_size", 1), **more)


class StreamingScorer(Scorer):
    """Generates text, whole or piece by piece."""

    __slots__ = ()

    def predict_stream(self, data: Frame, params: Mapping[str, Any]) -> Iterator[str]:
        """Yield the text as it is generated."""
        texts = self.texts(data)
        if len(texts) != 1:
            raise InputError(
                "a stream answers one text", code="value-refused", path=self.config.get("column") or "text"
            )
        with self.lock:
            if not self.config.get("truncation", False):
                lengths.check(self.tokenizer, self.model, texts, params["max_new_tokens"], self.config.get("column"))
            yield from generating.stream(self.model, self.tokenizer, texts[0], params)


def scorer(model: Any, tokenizer: Any, config: Mapping[str, Any]) -> Scorer:
    """Return the model and its tokenizer behind one call."""
    task = str(config["task"])
    if task == "text-generation":
        return StreamingScorer(task=task, model=model, tokenizer=tokenizer, config=config)
    made = None
    if task != "feature-extraction":
        import transformers

        kind: Any = getattr(transformers, _PIPELINES[task])
        made = kind(model=model, tokenizer=tokenizer, device=model.device)
    return Scorer(task=task, model=model, tokenizer=tokenizer, config=config, pipeline=made)


_PIPELINES: Mapping[str, str] = {
    "fill-mask": "FillMaskPipeline",
    "text-classification": "TextClassificationPipeline",
    "token-classification": "TokenClassificationPipeline",
    "zero-shot-classification": "ZeroShotClassificationPipeline",
}
_HEADS: Mapping[str, str] = {
    "ForCausalLM": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "LMHeadModel": "text-generation",
    "Model": "feature-extraction",
}


def task_of(pipeline: Any, architecture: str) -> str:
    """Return the task of a pipeline, or what the model's head is for."""
    named = {kind: task for task, kind in _PIPELINES.items()}
    by_class = {**named, "FeatureExtractionPipeline": "feature-extraction", "TextGenerationPipeline": "text-generation"}
    task = by_class.get(type(pipeline).__name__)
    return task or next(task for head, task in _HEADS.items() if architecture.endswith(head))


def _classified(scorer: Scorer, texts: Sequence[str], params: Mapping[str, Any]) -> dict[str, Any]:
    everything = scorer.config.get("scores", "best") == "all"
    cut = {"truncation": True} if scorer.config.get("truncation", False) else {}
    found = scorer.run(texts, top_k=None, function_to_apply=params["function_to_apply"], **cut)
    answer = {"label": [one[0]["label"] for one in found], "score": _floats(one[0]["score"] for one in found)}
    if everything:
        by_label = [{part["label"]: part["score"] for part in one} for one in found]
        answer |= {f"score_{name}": _floats(one[name] for one in by_label) for name in _labels(scorer)}
    return answer


def _tokens(scorer: Scorer, texts: Sequence[str], params: Mapping[str, Any]) -> dict[str, Any]:
    found = scorer.run(texts, aggregation_strategy=params["aggregation_strategy"])
    return {"entities": [[_entity(part) for part in one] for one in found]}


def _entity(part: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "entity": part.get("entity_group", part.get("entity")),
        "word": part["word"],
        "score": float(part["score"]),
        "start": part["start"],
        "end": part["end"],
    }


def _filled(scorer: Scorer, texts: Sequence[str], params: Mapping[str, Any]) -> dict[str, Any]:
    mask = scorer.tokenizer.mask_token_id
    for row, ids in enumerate(scorer.tokenizer(list(texts))["input_ids"]):
        if ids.count(mask) != 1:
            raise InputError(
                f"the text has not exactly one {scorer.tokenizer.mask_token}", code="value-refused",
                path=lengths.place(scorer.config.get("column"), row),
            )  # fmt: skip
    found = scorer.run(texts, top_k=min(params["top_k"], scorer.model.config.vocab_size))
    found = [found] if len(texts) == 1 and found and isinstance(found[0], dict) else found
    return {
        "candidates": [
            [
                {"token": one["token_str"], "id": one["token"], "score": one["score"], "text": one["sequence"]}
                for one in row
            ]
            for row in found
        ]
    }


def _chosen(scorer: Scorer, texts: Sequence[str], params: Mapping[str, Any]) -> dict[str, Any]:
    more = (
        {"hypothesis_template": scorer.config["hypothesis_template"]} if "hypothesis_template" in scorer.config else {}
    )
    names = list(scorer.config["candidate_labels"])
    found = scorer.run(texts, candidate_labels=names, multi_label=params["multi_label"], **more)
    by_label = [dict(zip(one["labels"], one["scores"], strict=True)) for one in found]
    return {
        "label": [one["labels"][0] for one in found],
        "score": _floats(one["scores"][0] for one in found),
        **{f"score_{name}": _floats(one[name] for one in by_label) for name in names},
    }


def _features(scorer: Scorer, texts: Sequence[str], params: Mapping[str, Any]) -> Any:
    size, pooling = scorer.config.get("batch_size", 1), scorer.config.get("pooling", "mean")
    rows: list[Any] = []
    for start in range(0, len(texts), size):
        part = list(texts[start : start + size])
        given = scorer.tokenizer(
            part, return_tensors="pt", padding=len(part) > 1, truncation=bool(scorer.config.get("truncation", False))
        ).to(scorer.model.device)
        hidden = scorer.model(**given)[0].float()
        mask = given["attention_mask"].unsqueeze(-1)
        if pooling == "none":
            rows += [one[keep.bool()].tolist() for one, keep in zip(hidden, given["attention_mask"], strict=True)]
        elif pooling == "first":
            rows.append(hidden[:, 0].cpu().numpy())
        else:
            rows.append(((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu().numpy())
    if pooling == "none":
        return {"features": rows}
    width = scorer.model.config.hidden_size
    return np.concatenate(rows) if rows else np.zeros((0, width), np.float32)


def _generated(scorer: Scorer, texts: Sequence[str], params: Mapping[str, Any]) -> dict[str, Any]:
    return {"generated_text": [generating.generate(scorer.model, scorer.tokenizer, one, params) for one in texts]}


def _floats(values: Any) -> Any:
    return np.array(list(values), dtype=np.float32)


def _labels(scorer: Scorer) -> list[str]:
    return [str(name) for _, name in sorted(scorer.model.config.id2label.items())]


def _table(*columns: tuple[str, Any]) -> Table:
    return Table(columns=tuple(Column(name=name, type=kind) for name, kind in columns))


def _records(*fields: tuple[str, Any]) -> ListType:
    struct = StructType(fields=tuple(StructField(name=name, type=kind) for name, kind in fields))
    return ListType(items=Element(type=struct))


def _scored(names: Sequence[str]) -> Table:
    return _table(("label", "utf8"), ("score", "float32"), *((f"score_{name}", "float32") for name in names))


def _feature_outputs(scorer: Scorer) -> IO:
    if scorer.config.get("pooling", "mean") == "none":
        return _table(("features", ListType(items=Element(type=ListType(items=Element(type="float32"))))))
    width = scorer.model.config.hidden_size
    return Tensors(tensors=(Tensor(name="embedding", dtype="float32", shape=("batch", width), nullable=True),))


_Answer = Callable[[Scorer, Sequence[str], Mapping[str, Any]], Any]
_ANSWERS: Mapping[str, _Answer] = {
    "feature-extraction": _features,
    "fill-mask": _filled,
    "text-classification": _classified,
    "text-generation": _generated,
    "token-classification": _tokens,
    "zero-shot-classification": _chosen,
}
_OUTPUTS: Mapping[str, Callable[[Scorer], IO]] = {
    "feature-extraction": _feature_outputs,
    "fill-mask": lambda scorer: _table(
        ("candidates", _records(("token", "utf8"), ("id", "int64"), ("score", "float32"), ("text", "utf8")))
    ),
    "text-classification": lambda scorer: _scored(
        _labels(scorer) if scorer.config.get("scores", "best") == "all" else ()
    ),
    "text-generation": lambda scorer: _table(("generated_text", "utf8")),
    "token-classification": lambda scorer: _table(
        (
            "entities",
            _records(("entity", "utf8"), ("word", "utf8"), ("score", "float32"), ("start", "int64"), ("end", "int64")),
        )
    ),
    "zero-shot-classification": lambda scorer: _scored(scorer.config["candidate_labels"]),
}
_PARAMS: Mapping[str, tuple[Param, ...]] = {
    "fill-mask": (Param(name="top_k", type="int64", default=5, constraints=Constraints(minimum=1, maximum=1000)),),
    "text-classification": (
        Param(
            name="function_to_apply",
            type="utf8",
            nullable=True,
            constraints=Constraints(enum=("sigmoid", "softmax", "none")),
        ),
    ),
    "text-generation": generating.PARAMS,
    "token-classification": (
        Param(
            name="aggregation_strategy",
            type="utf8",
            default="simple",
            constraints=Constraints(enum=("none", "simple", "first", "average", "max")),
        ),
    ),
    "zero-shot-classification": (Param(name="multi_label", type="bool", default=False),),
}
