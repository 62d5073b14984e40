"""Transformers: models of the library and their tokenizers as data; nothing is fetched (docs/flavors)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelpack.audits import transformers_dir
from modelpack.flavor import LoadContext, Predictor, SaveContext, Saved
from modelpack.optional import require
from modelpack_flavors._torch import scoring as devices
from modelpack_flavors._transformers import building, options, saving, tasks

__all__ = ["FLAVOR"]


@dataclass(frozen=True, slots=True)
class TransformersFlavor:
    """Saves and loads pipelines of transformers, and models with a tokenizer.

    Options of save: ``tokenizer`` (for a bare model), ``task``, ``batch_size``, ``truncation``, ``device``,
    ``threads``, and those of one task: ``scores``, ``pooling``, ``candidate_labels``, ``hypothesis_template``.
    """

    name: str = "transformers"
    version: str = "1"
    formats: Sequence[str] = ("transformers",)
    extra: str = "transformers"

    def matches(self, model: object) -> int:
        """Return 60 for pipelines and models of transformers: the models are torch modules too."""
        bases = {(base.__module__, base.__name__) for base in type(model).__mro__}
        known = {("transformers.pipelines.base", "Pipeline"), ("transformers.modeling_utils", "PreTrainedModel")}
        return 60 if bases & known else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Write configuration, tokenizer and weights, and look whether they make the same model again.

        Raises:
            UsageError: an unknown option, or one with an unknown value (``option-unknown``, ``option-invalid``).
            SaveError: the model is of no kind that can be written so (``model-unsupported``).
        """
        options.check(context.options)
        require("transformers", what="Saving a transformers model", extra=self.extra)
        return saving.save(model, context)

    def load(self, context: LoadContext) -> Predictor:
        """Build the model and its tokenizer from verified bytes; no file and no address is looked for.

        Raises:
            UsageError: transformers is not installed (``extra-missing``).
            FlavorError: the config is not one for this model (``config-invalid``), or there is no such device
                (``device-unavailable``).
            PackageError: the files do not make one model (``payload-invalid``).
        """
        require("transformers", what="Loading a transformers model", extra=self.extra)
        config = options.configured(context.config)
        device = devices.device_of(config)
        devices.set_threads(config)
        contents = transformers_dir.inspect(context.files, context.entry)
        model, tokenizer = building.build(
            contents,
            context.files.view(transformers_dir.WEIGHTS),
            context.files.read(transformers_dir.TOKENIZER),
            device,
        )
        return tasks.scorer(model, tokenizer, config)


FLAVOR = TransformersFlavor()
