"""Writing a model of transformers with its tokenizer, and making sure that what was written is that model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack.audits import transformers_dir, transformers_models, transformers_tokenizer
from modelpack.audits.transformers_dir import CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS
from modelpack.errors import PackageError, SaveError, UsageError
from modelpack.flavor import SaveContext, Saved
from modelpack.signature import Table
from modelpack_flavors._torch import scoring as devices
from modelpack_flavors._transformers import building, tasks

__all__ = ["save"]

# What configurations say of training, of where a model came from or of how it is run; none of it changes answers.
_LEFT_OUT = frozenset(
    {"_attn_implementation", "_name_or_path", "attn_implementation", "deterministic_flash_attn", "legacy",
     "output_hidden_states", "return_dict", "task_specific_params"}
)  # fmt: skip
# Texts on which the written tokenizer must do what the given one does.
_PROBES = (
    "", " ", "Hello, world!", "  two  spaces\tand\nlines ", "Grüße, ÆON — naïve café ﬁ", "数字 漢字 ひらがな 한국어",
    "emoji 👩‍🚀🇩🇪 x\u200by", "don't 1,234.5e-6 $ A.B.C.", "العربية עברית", "UPPER lower CamelCase snake_case",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Written:
    """The files of a directory that was just written."""

    root: Path

    def paths(self) -> Sequence[str]:
        return sorted(path.name for path in self.root.iterdir())

    def view(self, path: str) -> bytes:
        return (self.root / path).read_bytes()


def save(given: Any, context: SaveContext) -> Saved:
    """Write the model and build it again from what was written; the built one is what answers from here on."""
    model, tokenizer, task = _parts(given, context.options)
    directory = context.directory
    _write_json(directory / CONFIG, _config(model))
    generation = _generation(model)
    if generation:
        _write_json(directory / GENERATION, generation)
    settings = _write_tokenizer(directory, tokenizer)
    _write_weights(model, directory / WEIGHTS)
    try:
        contents = transformers_dir.inspect(_Written(directory), CONFIG)
        # Live or loaded, a model is where its device option says.
        config = _recorded(context.options, task, context.example)
        device = devices.device_of(config)
        raw = (directory / TOKENIZER).read_bytes()
        built, made = building.build(contents, (directory / WEIGHTS).read_bytes(), raw, device)
    except PackageError as exc:
        raise SaveError(
            f"a {type(model).__name__} like this cannot be saved: {exc.message}",
            code="model-unsupported",
            path=exc.path or "",
            hint="docs/flavors/transformers.md says what can; others can be saved as torch modules: flavor='torch'.",
        ) from exc
    _compare(model, built)
    _compare_tokenizers(tokenizer, made)
    scorer = tasks.scorer(built, made, config)
    return Saved(
        format="transformers",
        entry=CONFIG,
        predictor=scorer,
        config=config,
        packages=("transformers", "tokenizers", "torch"),
        declares={"architecture": contents.architecture, "task": task, "settings": sorted(settings)},
        signature=scorer.signature(),
        params=scorer.params(),
        nulls=False,
        inputs=scorer.inputs(),
        outputs=scorer.outputs(),
        needs_code=False,
    )


def _parts(given: Any, options: Mapping[str, Any]) -> tuple[Any, Any, str]:
    """Return the model, its tokenizer and the task."""
    model = getattr(given, "model", given) if _is_pipeline(given) else given
    tokenizer = options.get("tokenizer") or (given.tokenizer if _is_pipeline(given) else None)
    if tokenizer is None:
        raise UsageError(
            "a bare model needs its tokenizer",
            code="option-invalid",
            path="options.tokenizer",
            hint="Give a pipeline, or options={'tokenizer': …}; as a torch module: flavor='torch'.",
        )
    family = transformers_models.listed().families.get(getattr(model.config, "model_type", ""))
    kind = type(model)
    if family is None or kind.__name__ not in family.models or not kind.__module__.startswith("transformers.models."):
        raise SaveError(
            f"a {kind.__module__}.{kind.__qualname__} is none of the models that can be saved",
            code="model-unsupported",
            hint="docs/flavors/transformers.md lists them; others can be saved as torch modules: flavor='torch'.",
        )
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise SaveError(
            "its tokenizer has no form in JSON",
            code="model-unsupported",
            path="options.tokenizer",
            hint="Give a fast tokenizer, one of the tokenizers library.",
        )
    task = options.get("task") or tasks.task_of(given if _is_pipeline(given) else None, kind.__name__)
    return model, tokenizer, task


def _is_pipeline(given: Any) -> bool:
    return any(base.__name__ == "Pipeline" for base in type(given).__mro__)


def _config(model: Any) -> dict[str, Any]:
    known = transformers_models.listed().keys
    full = model.config.to_diff_dict()
    kept = {}
    for key, value in full.items():
        if key in known or key in ("id2label", "label2id", "rope_parameters", "transformers_version"):
            kept[key] = value
        elif value and key not in _LEFT_OUT and key not in ("architectures", "dtype", "model_type"):
            raise SaveError(f"its configuration has {key[:40]!r}, which is not taken", code="model-unsupported")
    kept["architectures"] = [type(model).__name__]
    kept["dtype"] = str(model.dtype).removeprefix("torch.")
    kept["model_type"] = model.config.model_type
    return kept


def _generation(model: Any) -> dict[str, Any]:
    found = getattr(model, "generation_config", None)
    if found is None or not model.can_generate():
        return {}
    return {key: value for key, value in found.to_diff_dict().items() if key in transformers_dir.GENERATION_KEYS}


def _write_tokenizer(directory: Path, tokenizer: Any) -> dict[str, Any]:
    """Write tokenizer.json and its settings, which are returned; cutting and filling are set at each call."""
    parsed = json.loads(tokenizer.backend_tokenizer.to_str())
    parsed["truncation"] = parsed["padding"] = None
    (directory / TOKENIZER).write_text(json.dumps(parsed, ensure_ascii=False, separators=(",", ":")), "utf-8")
    settings: dict[str, Any] = {"backend": "tokenizers", "tokenizer_class": "PreTrainedTokenizerFast"}
    for key in sorted(transformers_tokenizer.SETTINGS - set(settings)):
        value = getattr(tokenizer, key, None)
        if key == "model_max_length":
            # Transformers says "no limit" by a number of thirty digits.
            value = int(value) if value and value < transformers_dir.MAX_INTEGER else None
        if value is not None:
            settings[key] = list(value) if isinstance(value, list | tuple) else value
    _write_json(directory / TOKENIZER_CONFIG, settings)
    return settings


def _write_weights(model: Any, path: Path) -> None:
    """Write one file in the layout of transformers, in which shared tensors stand once."""
    with tempfile.TemporaryDirectory() as folder, building.quiet():
        try:
            model.save_pretrained(folder, max_shard_size="1000TB")
            written = (Path(folder) / WEIGHTS).read_bytes()
        except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as exc:
            raise SaveError(
                f"transformers cannot write the weights: {type(exc).__name__}: {exc}", code="model-unsupported"
            ) from exc
    path.write_bytes(written)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _recorded(options: Mapping[str, Any], task: str, example: Any) -> dict[str, Any]:
    config = {key: value for key, value in options.items() if key not in ("tokenizer", "task")}
    if "candidate_labels" in config:
        config["candidate_labels"] = list(config["candidate_labels"])
    elif task == "zero-shot-classification":
        raise UsageError(
            "zero-shot classification needs the labels to choose from",
            code="option-invalid",
            path="options.candidate_labels",
        )
    column = _column(example)
    return {**config, "task": task, **({"column": column} if column is not None else {})}


def _column(example: Any) -> str | None:
    """Return the column that holds the text: the one called so, or the only one."""
    if example is None:
        return None
    from modelpack import infer

    io = infer.io(example)
    if not isinstance(io, Table):
        return None
    texts = [column.name for column in io.columns if column.type == "utf8"]
    if "text" in texts:
        return "text"
    return texts[0] if len(texts) == 1 else None


def _compare(live: Any, built: Any) -> None:
    import torch

    before, after = live.state_dict(), built.state_dict()
    for name, tensor in before.items():
        same = name in after and tensor.dtype == after[name].dtype and torch.equal(tensor.cpu(), after[name].cpu())
        if not same:
            raise SaveError(f"its weights {name[:80]!r} come back as others", code="model-unsupported")


def _compare_tokenizers(live: Any, made: Any) -> None:
    for text in _PROBES:
        if live(text)["input_ids"] != made(text)["input_ids"]:
            raise SaveError(
                f"its tokenizer {type(live).__name__} does more than its JSON says", code="model-unsupported"
            )
