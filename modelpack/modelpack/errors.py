"""Every error modelpack raises.

::

    ModelpackError
    ├── PackageError        the directory is not a valid package
    │   ├── ManifestError       modelpack.json: not JSON, not the schema, not our version
    │   └── IntegrityError      files: closed world, paths, sizes, digests
    ├── TrustError          the package would run code that nobody has allowed
    ├── FlavorError         no installed flavor can save or load this
    ├── EnvironmentMismatch this environment cannot run the model as saved
    ├── SignatureError      a signature that cannot be written, read or inferred
    ├── InputError          data or params that do not fit the signature
    ├── OutputError         the model's answer does not fit the signature
    ├── ModelError          the model itself raised
    ├── SaveError           a package could not be written
    └── UsageError          the call itself is wrong (an option, a format, a missing extra)

Every error carries a stable ``code`` (listed in spec/errors.md), the ``path`` of the field that is wrong
(``files[2].path``, ``dataframe_records[3].age``) where there is one, and a ``hint`` that says what to do.
This module knows no HTTP; the server maps classes to statuses. ``EnvironmentWarning`` is what an EnvironmentMismatch
becomes where the user prefers to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

__all__ = [
    "EnvironmentMismatch",
    "EnvironmentWarning",
    "Fault",
    "FlavorError",
    "InputError",
    "IntegrityError",
    "ManifestError",
    "ModelError",
    "ModelpackError",
    "OutputError",
    "PackageError",
    "SaveError",
    "SignatureError",
    "TrustError",
    "UsageError",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, and where.

    ``row`` and ``column`` are set when the fault belongs to one row of a table (0-based row within the data
    that was coerced).
    """

    code: str
    path: str
    message: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ModelpackError(Exception):
    """Base of all errors raised on purpose by modelpack.

    ``faults`` lists everything found wrong, at least one; ``code``, ``path`` and ``message`` are the first's.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        path: str = "",
        hint: str = "",
        faults: Sequence[Fault] = (),
    ) -> None:
        self.message = message
        self.code = code
        self.path = path
        self.hint = hint
        self.faults: tuple[Fault, ...] = tuple(faults) or (Fault(code, path, message),)
        super().__init__(str(self))

    @classmethod
    def from_faults(cls, faults: Sequence[Fault], *, hint: str = "") -> Self:
        """Build the error that reports ``faults``, headed by the first."""
        first = faults[0]
        return cls(first.message, code=first.code, path=first.path, hint=hint, faults=faults)

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        if len(self.faults) > 1:
            text += f" (and {len(self.faults) - 1} more)"
        return f"{text}. {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.code, self.path, self.hint, self.faults)

    def to_json(self) -> dict[str, Any]:
        """Return the error as plain JSON data: ``{"code", "message", "path"?, "hint"?, "faults"?}``."""
        out: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.path:
            out["path"] = self.path
        if self.hint:
            out["hint"] = self.hint
        if len(self.faults) > 1:
            out["faults"] = [{"code": f.code, "path": f.path, "message": f.message} for f in self.faults]
        return out


def _rebuild(
    cls: type[ModelpackError], message: str, code: str, path: str, hint: str, faults: tuple[Fault, ...]
) -> ModelpackError:
    return cls(message, code=code, path=path, hint=hint, faults=faults)


class PackageError(ModelpackError):
    """The directory is not a valid package."""


class ManifestError(PackageError):
    """modelpack.json cannot be read, or says something the format forbids."""


class IntegrityError(PackageError):
    """The files are not the ones the manifest lists: missing, extra, changed, or badly named."""


class TrustError(ModelpackError):
    """Loading would run code from the package, and nobody has allowed that for this digest."""


class FlavorError(ModelpackError):
    """No installed and allowed flavor can save or load this model."""


class EnvironmentMismatch(ModelpackError):
    """A package that decides what the payload means is missing here, or outside its range."""


class EnvironmentWarning(UserWarning):
    """This environment is not the one the model needs, and it was loaded all the same, as its user wished."""


class SignatureError(ModelpackError):
    """A signature that cannot be written, read, or inferred from the data given."""


class InputError(ModelpackError):
    """Data or params that do not fit the signature; nothing was scored."""


class OutputError(ModelpackError):
    """The model answered with something its signature does not allow."""


class ModelError(ModelpackError):
    """The model itself raised; the original exception is ``__cause__``."""


class SaveError(ModelpackError):
    """The package could not be written; nothing was left behind."""


class UsageError(ModelpackError):
    """The call itself is wrong: an unknown option, an unsupported format, a missing extra."""
