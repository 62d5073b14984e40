"""A model and its tokenizer, built from what the audit has read: no directory, no name, no file is looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from modelpack.audits.transformers_dir import TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, Contents
from modelpack.errors import PackageError
from modelpack.panics import is_failure
from modelpack_flavors._torch import modules

__all__ = ["build", "quiet", "tokenizer_of"]

_HANDLED = frozenset({"backend", "tokenizer_class"})


def build(contents: Contents, weights: bytes | memoryview, tokenizer: bytes, device: Any) -> tuple[Any, Any]:
    """Return the model, in evaluation mode on the device, and its tokenizer.

    Raises:
        PackageError: configuration, weights and tokenizer do not belong together (``payload-invalid``).
    """
    model = _model(contents, modules.tensors(weights, WEIGHTS)).to(device).eval()
    made = tokenizer_of(tokenizer, contents.tokenizer)
    rows = model.get_input_embeddings().num_embeddings
    if max(made.get_vocab().values(), default=-1) >= rows:
        raise PackageError("it has tokens that the model does not have", code="payload-invalid", path=TOKENIZER)
    return model, made


def _model(contents: Contents, state: Mapping[str, Any]) -> Any:
    import transformers

    given = {key: value for key, value in contents.config.items() if key not in ("model_type", "transformers_version")}
    generation = {key: value for key, value in contents.generation.items() if key != "transformers_version"}
    model_class = getattr(transformers, contents.architecture)
    settings: Any = transformers.GenerationConfig
    try:
        config = getattr(transformers, contents.family.config)(**given)
        with quiet():
            # Without a name nothing is read or fetched: the configuration and the tensors are all there is.
            model, facts = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(state),
                generation_config=settings(**generation),
                local_files_only=True,
                output_loading_info=True,
            )
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as exc:
        raise _differs(f"{type(exc).__name__}: {exc}") from exc
    wrong = sorted(map(str, (*facts["missing_keys"], *facts["unexpected_keys"], *facts["mismatched_keys"])))
    if wrong:
        raise _differs(f"{len(wrong)} tensors are missing or too many, such as {wrong[0][:80]}")
    return model


def _differs(what: str) -> PackageError:
    return PackageError(
        f"the configuration does not make the model that the weights are for: {what[:300]}",
        code="payload-invalid",
        path=WEIGHTS,
    )


def tokenizer_of(raw: bytes, settings: Mapping[str, Any]) -> Any:
    """Return the tokenizer that is exactly what ``tokenizer.json`` says, with these settings.

    Raises:
        PackageError: it is none (``payload-invalid``).
    """
    import tokenizers
    import transformers

    try:
        backend = tokenizers.Tokenizer.from_buffer(raw)
    except BaseException as exc:
        if not is_failure(exc):
            raise
        raise PackageError(f"is no tokenizer: {exc}"[:300], code="payload-invalid", path=TOKENIZER) from exc
    given = {key: value for key, value in settings.items() if key not in _HANDLED}
    before = backend.get_vocab_size()
    kind: Any = transformers.PreTrainedTokenizerFast
    made = kind(tokenizer_object=backend, **given)
    if len(made) != before:
        raise PackageError("it names tokens that the tokenizer has not", code="payload-invalid", path=TOKENIZER_CONFIG)
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """Show no bars of progress while this lasts."""
    from transformers import utils

    logging: Any = utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
