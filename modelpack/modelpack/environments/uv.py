"""Running uv: with lists of arguments only, and its failures in our words."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.errors import EnvironmentMismatch, SaveError, UsageError

__all__ = ["Indexes", "failure", "interpreter", "room", "run", "withdrawn"]

# What uv says -> our code, what it means, and what to do. The first that occurs is taken.
_FAILURES = (
    ("No space left on device", "disk-full", "the disk is full", "Make room; `modelpack env prune` removes old ones."),
    ("Disk quota exceeded", "disk-full", "the disk is full", "Make room; `modelpack env prune` removes old ones."),
    ("Hash mismatch", "hash-mismatch", "a file is not the one that was locked", "The index serves other bytes."),
    ("No interpreter found", "python-unavailable", "that Python is not installed here", "Install it, then try again."),
    ("Failed to inspect Python interpreter", "python-unavailable", "what bears that Python's name does not start",
     "Install it, or tell the shim that stands for it which one is meant: pyenv global, asdf set."),
    ("401 Unauthorized", "index-refused", "the package index refuses you", "Give uv your name and key for it."),
    ("403 Forbidden", "index-refused", "the package index refuses you", "Give uv your name and key for it."),
    ("Network connectivity is disabled", "index-unreachable", "there is no network", "Vendor it first."),
    ("Failed to fetch", "index-unreachable", "the package index cannot be reached",
     "Without network: --find-links DIRECTORY with the wheels, or `modelpack env lock --partial`."),
    ("error sending request", "index-unreachable", "the package index cannot be reached",
     "Without network: --find-links DIRECTORY with the wheels, or `modelpack env lock --partial`."),
    ("must not use the reserved name", "wheel-refused", "a wheel writes over the environment's own Python",
     "No honest wheel does; do not trust the package. Nothing of it was run."),
    ("has no usable wheels", "wheel-missing", "a distribution has no wheel for this platform and Python",
     "Wheels only are used unless building is allowed."),
    ("no wheels with a matching", "wheel-missing", "a distribution has no wheel for this platform and Python",
     "Wheels only are used unless building is allowed."),
    ("was yanked", "version-yanked", "the index has withdrawn what is asked for", "Ask for a version that it has."),
    ("there is no version of", "version-missing", "a version is not to be had", "It was withdrawn, or lies elsewhere."),
    ("was not found in the", "version-missing", "a distribution is not to be had", "Name its index to uv."),
    ("No solution found", "unsolvable", "no set of versions meets all requirements", "See what uv says."),
)  # fmt: skip
# What may be a secret in an address: who asks, with which password; and the query, which may be a signature.
_ASKING = re.compile(r"//[^\s/@]+@")
_QUERY = re.compile(r"\?[^\s`'\"<>]+")
# Nobody may write there, or what is there is no directory.
_UNWRITABLE = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP,
    errno.ENAMETOOLONG,
)  # fmt: skip
# What uv gets of the caller's environment, which is where its indexes are and how they are reached. Other variables
# would change what is installed and where, or have uv run what it installs (UV_COMPILE_BYTECODE).
_PASSED = re.compile(
    r"""
    HOME | USER | LOGNAME | PATH | LANG | LANGUAGE | LC_[A-Z]+ | TZ | TMPDIR | TEMP | TMP | (DY)?LD_LIBRARY_PATH
    | XDG_(CACHE_HOME | CONFIG_HOME | CONFIG_DIRS | DATA_HOME | RUNTIME_DIR) | DBUS_SESSION_BUS_ADDRESS
    | (http|https|all|no)_proxy | (HTTP|HTTPS|ALL|NO)_PROXY | SSL_(CERT_FILE | CERT_DIR | CLIENT_CERT) | NETRC
    | UV_(INDEX | DEFAULT_INDEX | INDEX_URL | EXTRA_INDEX_URL | FIND_LINKS | NO_INDEX | INDEX_STRATEGY | OFFLINE)
    | UV_INDEX_[A-Z0-9_]+_(USERNAME | PASSWORD) | UV_(KEYRING_PROVIDER | CREDENTIALS_DIR | INSECURE_HOST)
    | UV_(TORCH_BACKEND | EXCLUDE_NEWER | NATIVE_TLS | SYSTEM_CERTS | CONFIG_FILE | NO_CONFIG)
    | UV_(CACHE_DIR | NO_CACHE | LINK_MODE | PYTHON_INSTALL_DIR | CONCURRENT_(BUILDS | DOWNLOADS | INSTALLS))
    | UV_(HTTP_TIMEOUT | HTTP_CONNECT_TIMEOUT | HTTP_RETRIES | REQUEST_TIMEOUT | S3_ENDPOINT_URL | GCS_ENDPOINT_URL)
    | AWS_[A-Z0-9_]+ | GOOGLE_APPLICATION_CREDENTIALS
    # What builds need, where they are allowed.
    | AR | CC | CXX | CPP | CFLAGS | CPPFLAGS | CXXFLAGS | FFLAGS | LDFLAGS | MAKEFLAGS | PKG_CONFIG_PATH
    | CMAKE_PREFIX_PATH | CARGO_HOME | RUSTUP_HOME | CUDA_HOME | MACOSX_DEPLOYMENT_TARGET
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Indexes:
    """Where distributions are looked for, beside uv's own settings (``UV_INDEX``, ``uv.toml``): the user's word."""

    find_links: Sequence[str] = ()
    no_index: bool = False

    def arguments(self) -> list[str]:
        """Return them as uv takes them."""
        links = [part for place in self.find_links for part in ("--find-links", str(Path(place).absolute()))]
        return links + (["--no-index"] if self.no_index else [])


def run(arguments: Sequence[str], *, keep: int | None = None) -> str:
    """Run uv, with absolute paths, and return what it told about it. It inherits the descriptor ``keep``.

    Raises:
        UsageError: uv is not installed (``extra-missing``).
        EnvironmentMismatch: it failed; the code says how, the message ends with uv's own words.
    """
    done = _call(arguments, keep)
    if done.returncode:
        raise failure(done.stderr)
    return done.stderr


def interpreter(series: str) -> str | None:
    """Return the path of a Python of this series (``3.12``) that uv finds on this machine, or None."""
    # Where the first one of that name is a shim that stands for nothing, uv looks no further.
    named = (Path(place, f"python{series}") for place in os.get_exec_path() if Path(place).is_absolute())
    for asked in (series, *(str(path) for path in named if path.is_file())):
        done = _call(["python", "find", "--no-project", "--system", asked])
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return None


def _call(arguments: Sequence[str], keep: int | None = None) -> subprocess.CompletedProcess[str]:
    passed = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
    environment = {**passed, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    # uv reads the settings that lie where it runs or above: those of a project, or in /tmp those of anybody.
    return subprocess.run(  # noqa: S603 - a list of arguments, none of which is an option of the package's
        [_program(), *arguments], cwd="/", env=environment, pass_fds=[] if keep is None else [keep],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def withdrawn(said: str) -> list[str]:
    """Return the distributions that have been withdrawn, with the reasons their index gives, out of what uv told."""
    found = re.findall(r"warning: `([^`]+)` is yanked(?: \(reason: \"(.*)\"\))?", said)
    return [f"{name} ({why})" if why else name for name, why in found]


@contextlib.contextmanager
def room(target: Path | None = None) -> Iterator[None]:
    """Say of what is written meanwhile, if it cannot be, why: what is said when uv runs out of room, or who may not.

    Raises:
        EnvironmentMismatch: ``disk-full``, ``cache-unwritable``.
        SaveError: ``target-unwritable``, if the user named the ``target``.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise failure(os.strerror(errno.ENOSPC)) from exc
        if exc.errno not in _UNWRITABLE:
            raise
        if target is not None:
            raise SaveError(f"{target} cannot be written: {exc.strerror}", code="target-unwritable") from exc
        raise EnvironmentMismatch(
            f"{exc.filename} cannot be written: {exc.strerror}",
            code="cache-unwritable",
            path="environment",
            hint="Run `modelpack env create` where it can be, or set MODELPACK_ENVIRONMENTS to another place.",
        ) from exc


def _program() -> str:
    """Return the path of uv: that of the wheel `uv`, or one on the PATH."""
    try:
        return str(importlib.import_module("uv").find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise UsageError(
            "environments are locked and built with uv, which is not installed",
            code="extra-missing",
            hint="pip install 'modelpack[env]'",
        )
    return found


def failure(
    said: str,
    known: Sequence[tuple[str, str, str, str]] = _FAILURES,
    *,
    otherwise: str = "uv-failed",
    program: str = "uv",
) -> EnvironmentMismatch:
    """Return the error for what an installer said: the first of those ``known`` whose sign is in it.

    The message ends with its words; of addresses in them only what is no secret.
    """
    text = " ".join(said.split())
    words = _QUERY.sub("?***", _ASKING.sub("//***@", text))[-600:]
    for sign, code, meaning, hint in known:
        if sign.casefold() in text.casefold():
            return EnvironmentMismatch(f"{meaning}: {words}", code=code, path="environment", hint=hint)
    return EnvironmentMismatch(f"{program} failed: {words}", code=otherwise, path="environment")
