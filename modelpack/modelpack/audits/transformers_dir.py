"""Audit of the directory of a transformers model: configuration, tokenizer and weights, as data.

What passes is of class ``objects``: a configuration, a tokenizer and one model class of transformers that is on our
list, filled with the tensors of a safetensors file. Everything else is refused, whatever is granted: such a directory
has no part that could be run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from modelpack.audits import Audit, safetensors_file, transformers_tokenizer
from modelpack.audits.transformers_models import Family, listed
from modelpack.errors import PackageError

__all__ = [
    "CONFIG",
    "DTYPES",
    "GENERATION",
    "GENERATION_KEYS",
    "TOKENIZER",
    "TOKENIZER_CONFIG",
    "WEIGHTS",
    "audit",
    "inspect",
]

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
WEIGHTS = "model.safetensors"
_NEEDED = frozenset({CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS})
_TAKEN = _NEEDED | {GENERATION}
MAX_CONFIG = 16 * 1024 * 1024
MAX_TOKENIZER = 256 * 1024 * 1024
MAX_INTEGER = 2**31 - 1
MAX_LAYERS = 1024
MAX_DEPTH = 4

DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
GENERATION_KEYS = frozenset(
    {"begin_suppress_tokens", "bos_token_id", "eos_token_id", "no_repeat_ngram_size", "pad_token_id",
     "repetition_penalty", "suppress_tokens", "transformers_version"}
)  # fmt: skip
_LAYERS = frozenset({"num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_hidden_groups", "inner_group_num"})
_HEAD = frozenset(
    {"architectures", "dtype", "id2label", "label2id", "model_type", "rope_parameters", "transformers_version"}
)
# No slash: no text in a configuration names anything that could be looked for elsewhere.
_WORD = re.compile(r"[A-Za-z0-9_.|-]{0,64}\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")


class Files(Protocol):
    """The files of the payload."""

    def view(self, path: str) -> bytes | memoryview:
        """Return the bytes of a file."""

    def paths(self) -> Sequence[str]:
        """Return the paths of all files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a directory holds: the parsed configurations, the family, the model's class and the tensors by name."""

    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    family: Family
    architecture: str
    tensors: Mapping[str, safetensors_file.Slice]


def audit(files: Files, entry: str | None) -> Audit:
    """Audit the directory whose configuration is the file ``entry``.

    Raises:
        PackageError: it holds more than a configuration, a tokenizer and weights, or a model that is not on the list
            (``payload-invalid``).
    """
    found = inspect(files, entry)
    names = (found.family.config, found.architecture, "PreTrainedTokenizerFast")
    return Audit(trust="objects", types=tuple(sorted(f"transformers.{name}" for name in names)))


def inspect(files: Files, entry: str | None) -> Contents:
    """Return what the directory holds.

    Raises:
        PackageError: as :func:`audit`.
    """
    if entry != CONFIG:
        _refuse(f"its entry is not {CONFIG}", entry or "")
    present = set(files.paths())
    for name in sorted(present - _TAKEN):
        _refuse(_unwanted(name), name)
    for name in sorted(_NEEDED - present):
        _refuse("is not there", name)
    config = _parsed(files, CONFIG, MAX_CONFIG)
    family, architecture = _check_config(config)
    generation = _parsed(files, GENERATION, MAX_CONFIG) if GENERATION in present else {}
    _check_generation(generation)
    tokenizer = _parsed(files, TOKENIZER_CONFIG, MAX_CONFIG)
    transformers_tokenizer.check_config(tokenizer, TOKENIZER_CONFIG)
    transformers_tokenizer.check(_parsed(files, TOKENIZER, MAX_TOKENIZER), TOKENIZER)
    return Contents(
        config=config,
        generation=generation,
        tokenizer=tokenizer,
        family=family,
        architecture=architecture,
        tensors=safetensors_file.inspect(files.view(WEIGHTS), WEIGHTS),
    )


def _unwanted(name: str) -> str:
    ending = name.rpartition(".")[2]
    if ending == "py":
        return "Python code is no part of such a directory"
    if ending in ("bin", "pt", "pth", "pkl", "pickle", "ckpt", "model", "h5", "msgpack"):
        return "weights and tokenizers are taken as safetensors and JSON only"
    if ending == "jinja":
        return "templates are no part of such a directory"
    return "is no file of such a directory"


def _parsed(files: Files, name: str, limit: int) -> dict[str, Any]:
    raw = files.view(name)
    if len(raw) > limit:
        _refuse(f"is larger than {limit} bytes", name)
    return safetensors_file.strict_json(bytes(raw), "the file", name)


def _check_config(config: Mapping[str, Any]) -> tuple[Family, str]:
    """Check config.json, and return the family and the class that it names."""
    known = listed()
    kind, architectures = config.get("model_type"), config.get("architectures")
    family = known.families.get(kind) if isinstance(kind, str) else None
    if family is None:
        _refuse("its model_type is none that may be built", CONFIG, "model_type")
    if not isinstance(architectures, list) or len(architectures) != 1 or architectures[0] not in family.models:
        _refuse("its architectures are not one class of that model_type that may be built", CONFIG, "architectures")
    if config.get("dtype", "float32") not in DTYPES:
        _refuse("its dtype is none that is taken", CONFIG, "dtype")
    for key, value in config.items():
        if key in ("id2label", "label2id"):
            _check_labels(key, value)
        elif key == "rope_parameters":
            if value is not None and not _is_plain(value, mappings=True):
                _refuse("is more than numbers and words", CONFIG, key)
        elif key not in _HEAD and key not in known.keys:
            _refuse("a key that no such model's configuration has", CONFIG, key[:40])
        elif not _is_plain(value, mappings=False):
            _refuse("is more than numbers and words", CONFIG, key)
        elif key in _LAYERS and type(value) is int and not 0 <= value <= MAX_LAYERS:
            _refuse(f"is not from 0 to {MAX_LAYERS}", CONFIG, key)
    return family, architectures[0]


def _check_labels(key: str, value: Any) -> None:
    """Check labels by number, or numbers by label."""
    fits = isinstance(value, dict) and all(
        (_NUMBER.match(name) and isinstance(one, str)) if key == "id2label" else type(one) is int
        for name, one in value.items()
    )
    if not fits:
        _refuse("is no mapping between numbers and labels", CONFIG, key)


def _check_generation(config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if key not in GENERATION_KEYS:
            _refuse("a key that is not taken", GENERATION, key[:40])
        if not _is_plain(value, mappings=False):
            _refuse("is more than numbers and words", GENERATION, key)


def _is_plain(value: Any, *, mappings: bool, depth: int = 0) -> bool:
    if value is None or isinstance(value, bool | float):
        return True
    if isinstance(value, int):
        return abs(value) <= MAX_INTEGER
    if isinstance(value, str):
        return _WORD.match(value) is not None
    if depth >= MAX_DEPTH:
        return False
    if isinstance(value, list):
        return all(_is_plain(one, mappings=mappings, depth=depth + 1) for one in value)
    return mappings and all(
        _WORD.match(name) is not None and _is_plain(one, mappings=True, depth=depth + 1) for name, one in value.items()
    )


def _refuse(message: str, file: str, key: str | None = None) -> NoReturn:
    raise PackageError(message, code="payload-invalid", path=f"{file}#{key}" if key else file)
