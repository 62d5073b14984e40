"""The tokenizer of a transformers model: ``tokenizer.json``, made of known parts, and a few plain settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from modelpack.errors import PackageError

__all__ = ["SETTINGS", "check", "check_config"]

# Settings that the tokenizer's class is made with.
_TOKENS = frozenset({"bos_token", "cls_token", "eos_token", "mask_token", "pad_token", "sep_token", "unk_token"})
_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "backend": ("tokenizers",),
    "clean_up_tokenization_spaces": (True, False, None),
    "padding_side": ("left", "right"),
    "tokenizer_class": ("PreTrainedTokenizerFast",),
    "truncation_side": ("left", "right"),
}
_INPUTS = frozenset({"attention_mask", "input_ids", "token_type_ids"})
SETTINGS = _TOKENS | set(_CHOICES) | {"model_input_names", "model_max_length"}

_PARTS: Mapping[str, frozenset[str]] = {
    "model": frozenset({"BPE", "Unigram", "WordLevel", "WordPiece"}),
    "normalizer": frozenset(
        {"BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend",
         "Replace", "Sequence", "Strip", "StripAccents"}
    ),
    "pre_tokenizer": frozenset(
        {"BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Sequence",
         "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"}
    ),
    "post_processor": frozenset(
        {"BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"}
    ),
    "decoder": frozenset(
        {"BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "Strip", "WordPiece"}
    ),
}  # fmt: skip
_LISTS: Mapping[str, str] = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
_ROOT = frozenset({"version", "truncation", "padding", "added_tokens", *_PARTS})
_MAX_ID = 2**31 - 1
_MAX_DEPTH = 8


def check_config(config: Mapping[str, Any], file: str) -> None:
    """Check the settings in ``tokenizer_config.json``.

    Raises:
        PackageError: there are others than plain ones (``payload-invalid``).
    """
    for key, value in config.items():
        if key in _TOKENS:
            fits = value is None or (isinstance(value, str) and len(value) <= 1024)
        elif key in _CHOICES:
            fits = value in _CHOICES[key]
        elif key == "model_input_names":
            fits = isinstance(value, list) and "input_ids" in value and all(one in _INPUTS for one in value)
        else:
            fits = key == "model_max_length" and type(value) is int and value > 0
        if not fits:
            _refuse("a setting that is not taken", file, key[:40])


def check(tokenizer: Mapping[str, Any], file: str) -> None:
    """Check what is in ``tokenizer.json``.

    Raises:
        PackageError: it has parts of other kinds, cuts or fills texts by itself, or numbers tokens beyond all bounds
            (``payload-invalid``).
    """
    for key in tokenizer:
        if key not in _ROOT:
            _refuse("a key that no tokenizer has", file, key[:40])
    for key in ("truncation", "padding"):
        if tokenizer.get(key) is not None:
            _refuse("is set by the caller, not by the file", file, key)
    for key in _PARTS:
        _check_part(tokenizer.get(key), key, file, 0)
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens", [])
    if not isinstance(model, dict):
        _refuse("there is none", file, "model")
    vocabulary = model.get("vocab")
    numbers = vocabulary.values() if isinstance(vocabulary, dict) else ()
    if not isinstance(vocabulary, dict | list) or not all(_is_id(one) for one in numbers):
        _refuse("is no vocabulary", file, "model.vocab")
    if not isinstance(added, list) or not all(isinstance(one, dict) and _is_id(one.get("id")) for one in added):
        _refuse("are no tokens with their numbers", file, "added_tokens")


def _check_part(part: Any, key: str, file: str, depth: int) -> None:
    if part is None and key != "model":
        return
    if not isinstance(part, dict) or part.get("type") not in _PARTS[key] or depth > _MAX_DEPTH:
        _refuse("is of a kind that is not taken", file, key)
    if part["type"] == "Sequence":
        members = part.get(_LISTS[key])
        if not isinstance(members, list):
            _refuse("is no sequence", file, key)
        for one in members:
            _check_part(one, key, file, depth + 1)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_ID


def _refuse(message: str, file: str, key: str) -> NoReturn:
    raise PackageError(message, code="payload-invalid", path=f"{file}#{key}")
