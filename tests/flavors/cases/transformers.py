"""Small models of transformers, built here from nothing: every task, tables and vectors of text."""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np
import pandas as pd
import torch

torch.set_num_threads(1)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "a", "good", "bad", "film", "was", "plot", "not", "very", "it", "in", "paris", "lives", "anna", "."]
TEXTS = ["A good film.", "The plot was not very good", "It was bad", "Anna lives in Paris."]
LABELS = {0: "bad", 1: "fair", 2: "good"}


@functools.cache
def tokenizer() -> Any:
    """Return a WordPiece tokenizer over a handful of words."""
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = dict.fromkeys([*SPECIAL, *WORDS, "##s", *"abcdefghijklmnopqrstuvwxyz"])
    made = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokens = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **tokens,
    )


@functools.cache
def byte_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer, as GPT-2 has one, without merges."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: i for i, name in enumerate(["<end>", *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<end>", eos_token="<end>")


def bert(name: str, **more: Any) -> Any:
    """Return a BERT of two layers with this head."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        **more,
    )
    return getattr(transformers, name)(config).eval()


@functools.cache
def gpt2() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(byte_tokenizer()), n_embd=32, n_layer=2, n_head=2, n_positions=96, initializer_range=0.5,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def case(model: Any, example: Any, answer: Any, **options: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        model=model,
        example=example,
        answer=answer,
        options=options,
        code=[],
        bad_example=pd.DataFrame({"nothing": [1.0]}),
        reproducible=True,
    )


def table() -> pd.DataFrame:
    return pd.DataFrame({"text": TEXTS, "id": range(4)})


def scores(found: Any) -> Any:
    return np.array(list(found), dtype=np.float32)


@functools.cache
def classification() -> types.SimpleNamespace:
    """A pipeline; the table has a column that is not the model's."""
    import transformers

    model = bert("BertForSequenceClassification", id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    pipeline = transformers.TextClassificationPipeline(model=model, tokenizer=tokenizer(), device="cpu")
    found = pipeline(TEXTS)
    return case(
        pipeline, table(), {"label": [one["label"] for one in found], "score": scores(o["score"] for o in found)}
    )


@functools.cache
def all_scores() -> types.SimpleNamespace:
    """A bare model, a vector of text, a score for each label."""
    import transformers

    model = bert("BertForSequenceClassification", id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    pipeline = transformers.TextClassificationPipeline(model=model, tokenizer=tokenizer(), device="cpu")
    rows = [{one["label"]: one["score"] for one in row} for row in pipeline(TEXTS, top_k=None)]
    best = [max(row, key=lambda name: row[name]) for row in rows]
    answer = {"label": best, "score": scores(row[name] for row, name in zip(rows, best, strict=True))}
    answer |= {f"score_{name}": scores(row[name] for row in rows) for name in LABELS.values()}
    return case(model, np.array(TEXTS, dtype=object), answer, tokenizer=tokenizer(), scores="all")


@functools.cache
def tokens() -> types.SimpleNamespace:
    import transformers

    names = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}
    model = bert("BertForTokenClassification", id2label=names, label2id={v: k for k, v in names.items()})
    pipeline = transformers.TokenClassificationPipeline(model=model, tokenizer=tokenizer(), device="cpu")
    found = pipeline(TEXTS, aggregation_strategy="simple")
    rename = {"entity_group": "entity"}
    rows = [[{rename.get(k, k): float(v) if k == "score" else v for k, v in one.items()} for one in r] for r in found]
    order = ("entity", "word", "score", "start", "end")
    return case(pipeline, table(), {"entities": [[{k: one[k] for k in order} for one in row] for row in rows]})


@functools.cache
def features() -> types.SimpleNamespace:
    model = bert("BertModel")
    with torch.inference_mode():
        rows = [model(**tokenizer()(text, return_tensors="pt"))[0].mean(1).numpy() for text in TEXTS]
    return case(model, table(), np.concatenate(rows), tokenizer=tokenizer())


@functools.cache
def masks() -> types.SimpleNamespace:
    import transformers

    model = bert("BertForMaskedLM")
    texts = ["the [MASK] was good", "it was [MASK]"]
    pipeline = transformers.FillMaskPipeline(model=model, tokenizer=tokenizer(), device="cpu")
    rows = [
        [{"token": o["token_str"], "id": o["token"], "score": o["score"], "text": o["sequence"]} for o in row]
        for row in pipeline(texts)
    ]
    return case(pipeline, pd.DataFrame({"text": texts}), {"candidates": rows})


@functools.cache
def generation() -> types.SimpleNamespace:
    model, words = gpt2(), byte_tokenizer()
    texts = ["Once upon", "A"]
    rows = []
    for text in texts:
        given = words(text, return_tensors="pt")
        found = model.generate(**given, max_new_tokens=32, do_sample=False, pad_token_id=0)
        rows.append(words.decode(found[0][given["input_ids"].shape[1] :], skip_special_tokens=True))
    return case(model, pd.DataFrame({"text": texts}), {"generated_text": rows}, tokenizer=words)


@functools.cache
def zero_shot() -> types.SimpleNamespace:
    import transformers

    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    model = bert("BertForSequenceClassification", id2label=names, label2id={v: k for k, v in names.items()})
    pipeline = transformers.ZeroShotClassificationPipeline(model=model, tokenizer=tokenizer(), device="cpu")
    labels = ["film", "paris"]
    found = pipeline(TEXTS, candidate_labels=labels)
    by_label = [dict(zip(one["labels"], one["scores"], strict=True)) for one in found]
    answer = {"label": [one["labels"][0] for one in found], "score": scores(one["scores"][0] for one in found)}
    answer |= {f"score_{name}": scores(one[name] for one in by_label) for name in labels}
    return case(pipeline, table(), answer, candidate_labels=labels)


CASES = {
    "classification": classification,
    "all-scores": all_scores,
    "tokens": tokens,
    "features": features,
    "masks": masks,
    "generation": generation,
    "zero-shot": zero_shot,
}
