"""What loading a package could run, decided by the reader; and who has allowed it (spec/09-trust.md).

The class of a payload follows from its format and from a static audit of its bytes. Nothing the package says of
itself is read here. Class ``code`` needs a grant bound to the package's digest.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from modelpack import installed
from modelpack.audits import Audit, Class, skops
from modelpack.errors import FlavorError, ModelpackError, PackageError, TrustError, UsageError
from modelpack.files import VerifiedFiles

__all__ = ["FORMATS", "Grant", "Store", "assess", "default_store", "parse_digest"]

# Entry points of other distributions: name of a payload format -> its audit.
GROUP = "modelpack.audits"

Auditor = Callable[[VerifiedFiles, str | None], Audit]


def _code(reason: str) -> Auditor:
    audit = Audit(trust="code", types=(), unlisted=(), reasons=(reason,))
    return lambda files, entry: audit


def _module(name: str) -> Auditor:
    """Return the audit of ``modelpack/audits/<name>.py``, imported when a payload of its format is met."""

    def audit(files: VerifiedFiles, entry: str | None) -> Audit:
        found: Audit = importlib.import_module(f"modelpack.audits.{name}").audit(files, entry)
        return found

    return audit


# Payload format -> the audit that gives its class. For other formats see assess.
FORMATS: Mapping[str, Auditor] = MappingProxyType(
    {
        "cloudpickle": _code("a cloudpickle: loading it runs whatever it says"),
        "lightgbm-text": _module("lightgbm_text"),
        "mlflow-pyfunc": _code("an MLflow python_function: loading it runs its loader module and unpickles its model"),
        "onnx": _module("onnx_graph"),
        "pickle": _code("a pickle: loading it runs whatever it says"),
        "pt2": _module("pt2"),
        "python-source": _code("Python source: loading it imports and runs it"),
        "safetensors": _module("safetensors_file"),
        "skops": lambda files, entry: skops.audit(files.read, entry or ""),
        "spark-ml": _module("spark_ml"),
        "torch-pickle": _code("a torch file with pickles inside: loading it can run whatever it says"),
        "torchscript": _code("TorchScript: loading it builds a program that can reach more than arithmetic"),
        "transformers": _module("transformers_dir"),
        "xgboost-json": _module("xgboost_json"),
        "xgboost-ubj": _module("xgboost_json"),
    }
)


def assess(format_id: str, files: VerifiedFiles, entry: str | None, *, plugin: str | None = None) -> Audit | None:
    """Return the audit of a payload, or None if its format is unknown to this reader.

    ``plugin`` is the name of the flavor that would load it, if that flavor comes from an entry point.

    Raises:
        PackageError: the payload is not what its format says, or an installed audit fails on it (``payload-invalid``).
        FlavorError: two audits are installed for the format (``audit-duplicate``), or none that can be called
            (``audit-invalid``).
    """
    # spec/08-flavors.md#payload-formats
    # 1. Our own formats: whatever is installed, nobody else is asked.
    own = FORMATS.get(format_id)
    if own is not None:
        return _answer(own, format_id, files, entry)
    # 2. The audit that an installed distribution offers under the format's name.
    offered = _offered(format_id)
    if offered is not None:
        return _answer(offered, format_id, files, entry)
    # 3. Nobody says what the plug-in does with it.
    if plugin is not None:
        reason = f"the format {format_id}: no audit says what the flavor {plugin} can run when it loads it"
        return Audit(trust="code", reasons=(reason,))
    # 4. A format that only disables the entry.
    return None


def _offered(format_id: str) -> Auditor | None:
    """Return the audit that is installed for a format; the name is compared with those found, and nothing else."""
    points = {point.value: point for point in installed.offered(GROUP) if point.name == format_id}
    if not points:
        return None
    if len(points) > 1:
        raise FlavorError(
            f"several installed audits are for the payload format {format_id!r}: {', '.join(sorted(points))}",
            code="audit-duplicate",
            hint="Uninstall all but one of the distributions that offer them.",
        )
    (point,) = points.values()
    try:
        audit: Auditor = point.load()
    except (Exception, SystemExit) as exc:
        raise FlavorError(
            f"the audit {point.value} of the payload format {format_id!r} cannot be imported: "
            f"{type(exc).__name__}: {exc}",
            code="audit-invalid",
            hint="Mend or uninstall the distribution that offers it.",
        ) from exc
    if not callable(audit):
        raise FlavorError(
            f"the audit {point.value} of the payload format {format_id!r} is no function",
            code="audit-invalid",
            hint="Mend or uninstall the distribution that offers it.",
        )
    return audit


def _answer(audit: Auditor, format_id: str, files: VerifiedFiles, entry: str | None) -> Audit:
    """Return what an audit says of a payload; a failure is a refusal, never a lower class."""
    try:
        found: object = audit(files, entry)
    except ModelpackError:
        raise
    except (Exception, SystemExit) as exc:
        raise PackageError(
            f"the audit of the payload format {format_id!r} fails on it: {type(exc).__name__}",
            code="payload-invalid",
            path=entry or "",
        ) from exc
    if not isinstance(found, Audit) or not _well_formed(found):
        raise PackageError(
            f"the audit of the payload format {format_id!r} gives no verdict on it: its answer is no Audit",
            code="payload-invalid",
            path=entry or "",
            hint="The installed audit is at fault: it must return a modelpack.audits.Audit.",
        )
    return found


def _well_formed(audit: Audit) -> bool:
    texts: tuple[object, ...] = (audit.types, audit.unlisted, audit.reasons)
    return audit.trust in get_args(Class) and all(
        isinstance(names, tuple) and all(isinstance(name, str) for name in names) for names in texts
    )


# A grant is a few lines; what is longer is none.
_MAX_GRANT = 65536
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> str:
    """Return ``text`` if it is a full digest ``sha256:<64 hex>``.

    Raises:
        UsageError: ``digest-invalid``. Abbreviations are refused: a grant is for exactly one package.
    """
    if not _DIGEST.fullmatch(text):
        raise UsageError(
            "not a package digest",
            code="digest-invalid",
            hint="Give the whole digest, sha256: and 64 hex digits, as `modelpack inspect` prints it.",
        )
    return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """Permission, of this user on this machine, to run the code of the package with this digest."""

    digest: str
    name: str
    version: str
    source: Literal["saved", "user"]
    granted: str


class Store:
    """The user's own grants: a private directory with one small file for each digest.

    A store that another user could write to is not read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, digest: str, *, name: str, version: str, source: Literal["saved", "user"] = "user") -> Grant:
        """Grant the digest; granting it again changes nothing but the date."""
        grant = Grant(
            digest=parse_digest(digest),
            name=name,
            version=version,
            source=source,
            granted=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._check()
        file = self._file(digest)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as stream:
            json.dump({f: getattr(grant, f) for f in Grant.__slots__}, stream)
        temporary.replace(file)
        return grant

    def remove(self, digest: str) -> bool:
        """Withdraw a grant; say whether there was one."""
        self._check()
        try:
            self._file(parse_digest(digest)).unlink()
        except FileNotFoundError:
            return False
        return True

    def grants(self) -> list[Grant]:
        """Return all grants, oldest first."""
        self._check()
        found = []
        for file in self.root.glob("*.json") if self.root.is_dir() else ():
            found += self._read(f"sha256:{file.stem}")
        return sorted(found, key=lambda grant: (grant.granted, grant.digest))

    def allows(self, digest: str) -> bool:
        """Say whether the digest has been granted."""
        self._check()
        return any(grant.digest == digest for grant in self._read(digest))

    def _read(self, digest: str) -> list[Grant]:
        """Return the grant in the digest's file, if it is a file of this user's that nobody else can write."""
        try:
            fd = os.open(self._file(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return []
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
                return []
            return [Grant(**json.loads(os.read(fd, _MAX_GRANT)))]
        except (ValueError, TypeError):
            return []
        finally:
            os.close(fd)

    def _file(self, digest: str) -> Path:
        return self.root / f"{digest.removeprefix('sha256:')}.json"

    def _check(self) -> None:
        try:
            state = self.root.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
            raise TrustError(
                f"the trust store {self.root} could be written by others, so it is not used",
                code="trust-store-unsafe",
                hint=f"Make it yours alone: chmod 700 {self.root}",
            )


def default_store() -> Store:
    """Return this user's store: ``$MODELPACK_TRUST_STORE``, or ``modelpack/trust`` in the user's config directory."""
    chosen = os.environ.get("MODELPACK_TRUST_STORE")
    if chosen:
        return Store(Path(chosen))
    config = os.environ.get("XDG_CONFIG_HOME")
    try:
        home = Path(config) if config else Path.home() / ".config"
    except RuntimeError:
        # No HOME, and a user that the system does not know, as in many containers: nothing is granted there.
        home = Path("/nonexistent")
    return Store(home / "modelpack" / "trust")
