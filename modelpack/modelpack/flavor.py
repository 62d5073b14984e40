"""What a flavor must offer, and how flavors are found: by name, importing nothing (spec/08-flavors.md).

A flavor is one file, ``modelpack_flavors/<name>.py``, with an object ``FLAVOR``; third parties register
``<name> = "their.module:FLAVOR"`` under the entry-point group ``modelpack.flavors``. Listing reads directory and
entry-point names only; a module is imported when its name has been chosen, at load never before the trust gate.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

from modelpack import installed
from modelpack.errors import FlavorError, UsageError
from modelpack.signature import IO, Signature, Table, Tensors

__all__ = [
    "Converter",
    "Flavor",
    "Form",
    "LoadContext",
    "PayloadFiles",
    "Policy",
    "Predictor",
    "SaveContext",
    "Saved",
    "available",
    "builtin",
    "get",
    "only_options",
]

GROUP = "modelpack.flavors"
BUILTIN = "modelpack_flavors"

# The form in which a predictor takes its data; Frame renders itself into each (modelpack.render).
Form = Literal["frame", "pandas", "numpy", "arrow", "columns", "records"]

# Whether versions that differ from those a model was saved with keep it from being loaded (modelpack.load).
Policy = Literal["strict", "warn", "ignore"]


@runtime_checkable
class Predictor(Protocol):
    """A loaded model behind one call.

    One that needs a driver of a cluster to score says so by an attribute ``driver_only`` that is true.
    """

    @property
    def form(self) -> Form:
        """The form ``predict`` takes its data in."""

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        """Score ``data`` (in :attr:`form`) and return the model's own answer, in the model's own type.

        ``params`` holds every param of the signature, coerced, defaults filled in.
        """


@runtime_checkable
class StreamingPredictor(Predictor, Protocol):
    """A predictor whose answers come piece by piece."""

    def predict_stream(self, data: Any, params: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the pieces of the answer as the model makes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveContext:
    """What a flavor is given when it saves: an empty directory of its own and the caller's wishes.

    ``directory`` will be the payload's directory; ``options`` are the flavor's own options from ``save(...,
    options={...})``; ``code`` are the source files and directories given with ``code=``; ``example`` is the example
    as the caller gave it (None without one).
    """

    directory: Path
    options: Mapping[str, Any]
    code: Sequence[Path] = ()
    example: Any = None


def only_options(flavor: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse options of ``save(..., options={...})`` that the flavor does not have.

    Raises:
        UsageError: there is one (``option-unknown``).
    """
    known = sorted(known)
    for key in sorted(set(given).difference(known)):
        raise UsageError(
            f"the {flavor} flavor has no option {key!r}",
            code="option-unknown",
            path=f"options.{key}",
            hint=f"It has: {', '.join(known)}." if known else "It has none.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """What a flavor wrote, for the manifest.

    ``format``: id of the payload format. ``entry``: path of the main file below the payload's directory (None: no
    payload at all, as for a Python function that is only source code). ``config``: the flavor's own options as JSON,
    handed back at load. ``packages``: names of the distributions whose version decides what the payload means.
    ``requires``: requirements (PEP 508) of what loads the payload whatever its version, from the one named on.
    ``imports``: modules that code in the payload imports when it runs, which no reader of pickles sees.
    ``declares``: facts about the payload for people (types, opsets); never read for trust. ``predictor``: the live
    model behind the same call as a loaded one, so that expected outputs need no reload. ``signature``: what the
    flavor knows of the model's signature by itself (column names of a fitted pipeline); used for the parts that no
    example gives. ``params``: params the flavor adds. ``nulls``: whether the
    model takes missing values: True (every column is made nullable), False (none is), a mapping by column, None (the
    example decides). ``entrypoint``: ``module:name`` inside ``code=`` for flavors that run package code.
    ``inputs``: what the example is to this model, where the flavor knows it better than the example's own types show
    (a float64 array for a float32 model); ``outputs`` likewise, what the answer is. ``needs_code``: whether loading
    needs the files of ``code=``; without it the flavor is recorded as running none of them.
    ``python``: the range of Python versions the payload loads on. ``thresholds``: for a twin, values of columns (or of
    positions in the one tensor) at which the model's answer may jump; the check looks closely around them. ``twins``:
    names of flavors whose twin is written without being asked for, before this flavor, where it can be and agrees.
    """

    format: str
    entry: str | None
    predictor: Predictor
    config: Mapping[str, Any] = field(default_factory=dict)
    packages: Sequence[str] = ()
    requires: Sequence[str] = ()
    imports: Sequence[str] = ()
    declares: Mapping[str, Any] = field(default_factory=dict)
    signature: Signature | None = None
    params: Sequence[Any] = ()
    nulls: bool | Mapping[str, bool] | None = None
    entrypoint: str | None = None
    inputs: Table | Tensors | None = None
    outputs: IO | None = None
    needs_code: bool = True
    python: str = ">=3.11"
    thresholds: Mapping[str | int, Sequence[float]] = field(default_factory=dict)
    twins: Sequence[str] = ()


class PayloadFiles(Protocol):
    """The verified files of one payload."""

    def read(self, path: str) -> bytes:
        """Return the bytes of the file at ``path`` below the payload's directory, whose digest is right."""

    def view(self, path: str) -> bytes | memoryview:
        """Return what :meth:`read` does; a large file as a read-only view of memory, without a copy of it."""

    def paths(self) -> Sequence[str]:
        """Return the paths below the payload's directory, sorted."""

    def directory(self) -> Path:
        """Return a private directory that holds verified copies, for loaders that need real paths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadContext:
    """What a flavor is given when it loads; the gate has passed, everything here is verified.

    ``format``, ``entry``, ``config``, ``entrypoint`` as saved. ``code_allowed`` says that a grant for class ``code``
    covers this package's digest; a flavor must still never fall back from a safer parser to a less safe one.
    ``namespace`` imports the package's own modules (``namespace.import_module("churn.features")``) and says which
    top-level names are its (``namespace.modules``). ``environment_policy`` is what the caller said of versions that
    differ: "strict" refuses what the payload itself says was made with another release series.
    """

    format: str
    entry: str | None
    files: PayloadFiles
    config: Mapping[str, Any]
    entrypoint: str | None
    code_allowed: bool
    namespace: Any
    signature: Signature | None
    environment_policy: Policy = "strict"


@runtime_checkable
class Flavor(Protocol):
    """Saves and loads the models of one framework."""

    @property
    def name(self) -> str:
        """The name in the manifest, equal to the module's."""

    @property
    def version(self) -> str:
        """Version of the flavor's config; a loader refuses a newer one."""

    @property
    def formats(self) -> Sequence[str]:
        """Ids of the payload formats it loads."""

    @property
    def extra(self) -> str:
        """The extra that installs its framework."""

    def matches(self, model: object) -> int:
        """Say how well the flavor fits the model: 0 not at all, 10 as a last resort, 50 its own framework's.

        Must not import the framework: look at the modules of ``type(model).__mro__``.
        """

    def save(self, model: object, context: SaveContext) -> Saved:
        """Write the payload into ``context.directory``."""

    def load(self, context: LoadContext) -> Predictor:
        """Build the predictor from verified files."""


@runtime_checkable
class Converter(Flavor, Protocol):
    """A flavor that can write models of other flavors in its own format.

    It is given a live model when one is saved, and the attribute ``model`` of a loaded predictor, if that has one, when
    a package gets a twin later (``modelpack optimize``).
    """

    def convert(self, model: object, source: Saved, context: SaveContext) -> Saved:
        """Write the model, which another flavor saved as ``source``, into ``context.directory``.

        Raises:
            FlavorError: it has no such conversion (``conversion-unsupported``).
        """


def builtin() -> Mapping[str, str]:
    """Return the names of the flavors that come with modelpack and where each is; all others are plug-ins."""
    found: dict[str, str] = {}
    spec = importlib.util.find_spec(BUILTIN)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place).glob("*.py")):
            if not file.stem.startswith("_"):
                found[file.stem] = f"{BUILTIN}.{file.stem}:FLAVOR"
    return MappingProxyType(found)


def available() -> Mapping[str, str]:
    """Return the names of all installed flavors and the ``module:object`` each is at; imports none of them.

    Raises:
        FlavorError: two distributions offer the same name (``flavor-duplicate``).
    """
    found = dict(builtin())
    for point in installed.offered(GROUP):
        if found.get(point.name, point.value) != point.value:
            raise FlavorError(
                f"two installed distributions offer the flavor {point.name!r}: {found[point.name]} and {point.value}",
                code="flavor-duplicate",
                hint="Uninstall one of them.",
            )
        found[point.name] = point.value
    return MappingProxyType(found)


def get(name: str) -> Flavor:
    """Import and return the installed flavor called ``name``.

    Raises:
        FlavorError: there is none (``flavor-unknown``), or it is none or cannot be imported (``flavor-invalid``).
    """
    places = available()
    if name not in places:
        raise FlavorError(
            f"no installed flavor is called {name!r}",
            code="flavor-unknown",
            hint=f"Installed: {', '.join(sorted(places)) or 'none'}.",
        )
    module, _, attribute = places[name].partition(":")
    try:
        flavor = getattr(importlib.import_module(module), attribute or "FLAVOR", None)
    except (Exception, SystemExit) as exc:
        raise FlavorError(
            f"the flavor {name!r} at {places[name]} cannot be imported: {type(exc).__name__}: {exc}",
            code="flavor-invalid",
            hint="Mend or uninstall the distribution that offers it.",
        ) from exc
    if not isinstance(flavor, Flavor) or flavor.name != name:
        raise FlavorError(f"{places[name]} is not a flavor called {name!r}", code="flavor-invalid")
    return flavor
