"""Checks of transformers that build sparse matrices from stored indices, or open files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["CHECKS"]

_MAX_HASHED = 2**31 - 1


def one_hot(encoder: Any) -> Iterator[str]:
    """Check that no category is encoded outside of the encoder's columns."""
    if not hasattr(encoder, "categories_"):
        return
    sizes = [len(categories) for categories in encoder.categories_]
    if len(sizes) != encoder.n_features_in_:
        yield "it has another number of lists of categories than of columns"
    if encoder._infrequent_enabled:
        for size, mapping in zip(sizes, encoder._default_to_infrequent_mappings, strict=True):
            if mapping is not None and (len(mapping) != size or not ((mapping >= 0) & (mapping < size)).all()):
                yield "an infrequent category is encoded as one that does not exist"
        for size, infrequent in zip(sizes, encoder._infrequent_indices, strict=True):
            if infrequent is not None and not ((infrequent >= 0) & (infrequent < size)).all():
                yield "an infrequent category does not exist"
    if type(encoder).__name__ != "OneHotEncoder":
        return
    if encoder._infrequent_enabled:
        grouped = [
            size if mapping is None else int(mapping.max()) + 1
            for size, mapping in zip(sizes, encoder._default_to_infrequent_mappings, strict=True)
        ]
    else:
        grouped = sizes
    dropped = encoder._drop_idx_after_grouping
    if dropped is not None:
        if len(dropped) != len(sizes) or any(
            one is not None and not 0 <= one < size for one, size in zip(dropped, grouped, strict=True)
        ):
            yield "a dropped category does not exist"
        grouped = [size - (one is not None) for one, size in zip(dropped, grouped, strict=True)]
    if list(encoder._n_features_outs) != grouped:
        yield "its number of output columns does not follow from its categories"


def vocabulary(vectorizer: Any) -> Iterator[str]:
    """Check that the terms of a vocabulary are numbered from 0 without a gap; texts come from the request only."""
    if getattr(vectorizer, "input", "content") != "content":
        yield "it reads files that a request names"
    found = getattr(vectorizer, "vocabulary_", None)
    if found is not None and sorted(found.values()) != list(range(len(found))):
        yield "its vocabulary is not numbered from 0 without a gap"


def label_sets(binarizer: Any) -> Iterator[str]:
    """Check that the labels a binarizer has met are numbered like its classes."""
    cached = getattr(binarizer, "_cached_dict", None)
    if cached is not None and sorted(cached.values()) != list(range(len(binarizer.classes_))):
        yield "its labels are not numbered like its classes"


def hasher(vectorizer: Any) -> Iterator[str]:
    """Check the number of columns that features are hashed into."""
    if getattr(vectorizer, "input", "content") != "content":
        yield "it reads files that a request names"
    if not isinstance(vectorizer.n_features, int) or not 1 <= vectorizer.n_features <= _MAX_HASHED:
        yield "its number of columns is out of range"


CHECKS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "sklearn.feature_extraction._dict_vectorizer.DictVectorizer": vocabulary,
    "sklearn.feature_extraction._hash.FeatureHasher": hasher,
    "sklearn.feature_extraction.text.CountVectorizer": vocabulary,
    "sklearn.feature_extraction.text.HashingVectorizer": hasher,
    "sklearn.preprocessing._encoders.OneHotEncoder": one_hot,
    "sklearn.preprocessing._label.MultiLabelBinarizer": label_sets,
    "sklearn.preprocessing._encoders.OrdinalEncoder": one_hot,
}
