"""A package on disk: open it, verify it, see what loading it would do; nothing of it is run here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack import document, environment, files, flavor, foreign, trust
from modelpack.audits import Class
from modelpack.environment import Difference
from modelpack.errors import IntegrityError, TrustError
from modelpack.files import VerifiedFiles
from modelpack.manifest import CODE, Environment, FlavorEntry, Manifest, Payload, digest_of
from modelpack.pathrules import MANIFEST
from modelpack.sources import Namespace

__all__ = ["Candidate", "Package", "Plan"]

RANK: Mapping[str | None, int] = {"data": 0, "graph": 1, "objects": 2, "code": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One flavor of the package, and what loading it here would mean.

    ``trust`` is the class this reader gives it (None: a format it does not know); ``runs`` says in words what would
    run; ``unlisted`` are the types that make it ``code``. ``problem`` is why it cannot be loaded here, or None.
    """

    index: int
    name: str
    formats: tuple[str, ...]
    trust: Class | None
    runs: tuple[str, ...]
    unlisted: tuple[str, ...]
    installed: bool
    problem: str | None

    @property
    def ready(self) -> bool:
        """Whether it can be loaded here and now."""
        return self.problem is None

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as plain JSON data."""
        return {
            "flavor": self.name,
            "formats": list(self.formats),
            "class": self.trust,
            "would_run": list(self.runs),
            "unlisted_types": list(self.unlisted),
            "installed": self.installed,
            "problem": self.problem,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What ``load`` would do: the candidates in the package's order, whether code is granted, the environment."""

    digest: str
    candidates: tuple[Candidate, ...]
    granted: bool
    differences: tuple[environment.Difference, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The first candidate that is ready, or None."""
        return next((candidate for candidate in self.candidates if candidate.ready), None)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON data."""
        return {
            "chosen": self.chosen.name if self.chosen else None,
            "code_granted": self.granted,
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "environment": [str(difference) for difference in self.differences],
        }


class Package:
    """A package that has been opened: its manifest is valid and its files are exactly the ones it lists.

    Nothing from the package has been imported or run.
    """

    def __init__(self, path: Path, raw: bytes) -> None:
        self.path = path
        self.manifest = Manifest.parse(raw)
        self.digest = digest_of(raw)
        self._kept: dict[str, bytes | memoryview] | None = None

    def __repr__(self) -> str:
        return f"<Package {self.manifest.name} {self.manifest.version} {self.digest[:19]}… at {str(self.path)!r}>"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Package:
        """Parse the manifest and verify the files; import and run nothing from the package.

        Raises:
            ManifestError: the manifest is not valid.
            IntegrityError: the files are not the ones it lists; all differences are in ``faults``.
        """
        package = cls.peek(path)
        package.verify()
        return package

    @classmethod
    def peek(cls, path: str | os.PathLike[str]) -> Package:
        """Parse the manifest only; the files have not been looked at. For tools that report what is wrong."""
        root = Path(path)
        if not os.path.lexists(root / MANIFEST):
            raw = foreign.read(root)
            if raw is not None:
                return cls(root, raw)
        return cls(root, files.read_manifest(root, max_bytes=document.MAX_BYTES))

    def verify(self) -> None:
        """Check the closed world, sizes and digests again.

        Raises:
            IntegrityError: everything that differs is in ``faults``.
        """
        faults = files.verify(self.path, self.manifest.files, self._kept)
        if faults:
            raise IntegrityError.from_faults(faults, hint="The package was changed or not copied whole.")

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Read every payload file once while this lasts: what was verified is kept, audited and loaded as it is."""
        if self._kept is not None:
            yield
            return
        self._kept = {}
        try:
            yield
        finally:
            # Whoever still holds these files reads and verifies them again.
            self._kept.clear()
            self._kept = None

    @property
    def environment(self) -> Environment:
        """What the model needs and what was installed when it was saved."""
        return self.manifest.environment

    def files(self, prefix: str = "") -> VerifiedFiles:
        """Return the files below a directory of the package, for verified reading."""
        return VerifiedFiles(self.path, (f for f in self.manifest.files if f.path.startswith(prefix)), prefix)

    def plan(self, *, allow_code: str | None = None, store: trust.Store | None = None) -> Plan:
        """Say what ``load`` would do, with this grant and this trust store (the user's own by default).

        Payloads are audited as bytes; nothing from the package is imported or run, and no flavor either.
        """
        found = self._candidates()
        # A package that runs no code needs no grant, so nobody is asked for one: an unsafe store does not matter.
        asked = allow_code is not None or any(candidate.trust == "code" for candidate in found)
        granted = asked and self.granted(allow_code, store)
        candidates = tuple(_with_problem(candidate, granted=granted) for candidate in found)
        differences = tuple(self.differences())
        return Plan(digest=self.digest, candidates=candidates, granted=granted, differences=differences)

    def differences(self, index: int | None = None) -> list[Difference]:
        """Return how this environment differs from the one recorded, as it concerns one of the flavors, worst first.

        By default that is the first installed one that can be loaded in this environment, or else the first.
        """
        if index is None:
            installed = flavor.available()
            entries = enumerate(self.manifest.flavors)
            found = [self.differences(i) for i, entry in entries if entry.name in installed]
            fits = (one for one in found if not any(difference.severity == "error" for difference in one))
            return next(fits, found[0] if found else self.differences(0))
        made_with = {id_: set(payload.made_with) for id_, payload in self.manifest.payloads.items()}
        own = set().union(*(made_with[id_] for id_ in self.manifest.flavors[index].payloads.values()))
        return environment.compare(self.environment, foreign=set().union(*made_with.values()) - own)

    def runs_code(self) -> bool:
        """Say whether loading one of its flavors could run code from the package; no trust store is asked."""
        return any(candidate.trust == "code" for candidate in self._candidates())

    def _candidates(self) -> list[Candidate]:
        installed = flavor.available()
        return [self._candidate(i, entry, installed) for i, entry in enumerate(self.manifest.flavors)]

    def namespace(self, entry: FlavorEntry) -> Namespace:
        """Return the Python modules of one flavor, not yet imported: exactly the files its ``code`` lists."""
        listed = set(entry.code)
        code = VerifiedFiles(self.path, (f for f in self.manifest.files if f.path in listed), CODE)
        sources = {path: code.read(path) for path in code.paths()}
        return Namespace(self.digest, sources, code.directory)

    def granted(self, allow_code: str | None = None, store: trust.Store | None = None) -> bool:
        """Say whether code of this package is allowed: by this grant, or by the trust store (else the user's own).

        Raises:
            TrustError: the grant is for another package (``grant-mismatch``), or the store is not the user's alone.
            UsageError: the grant is no digest (``digest-invalid``).
        """
        if allow_code is not None:
            if trust.parse_digest(allow_code) != self.digest:
                raise TrustError(
                    "the grant is for another package: the digests differ",
                    code="grant-mismatch",
                    path="allow_code",
                    hint=f"This package's digest is {self.digest}.",
                )
            return True
        return (store or trust.default_store()).allows(self.digest)

    def _candidate(self, index: int, entry: FlavorEntry, installed: Mapping[str, str]) -> Candidate:
        payloads = [self.manifest.payloads[id_] for id_ in entry.payloads.values()]
        plugin = entry.name if entry.name in installed and entry.name not in flavor.builtin() else None
        audits = [
            trust.assess(payload.format, self.payload_files(payload), self.payload_entry(payload), plugin=plugin)
            for payload in payloads
        ]
        known = [audit for audit in audits if audit is not None]
        classes = [audit.trust for audit in known]
        runs = [reason for audit in known for reason in audit.reasons]
        if entry.code or entry.entrypoint:
            classes.append("code")
            runs.append(f"the package's own Python code: {', '.join(entry.code) or entry.entrypoint}")
        complete = len(known) == len(audits) and classes
        worst = max(classes, key=lambda name: RANK[name]) if complete else None
        return Candidate(
            index=index,
            name=entry.name,
            formats=tuple(payload.format for payload in payloads),
            trust=worst,
            runs=tuple(runs),
            unlisted=tuple(sorted({name for audit in known for name in audit.unlisted})),
            installed=entry.name in installed,
            problem=None,
        )

    def payload_files(self, payload: Payload) -> VerifiedFiles:
        """Return the payload's files, for verified reading relative to its directory."""
        listed = set(payload.files)
        entries = [f for f in self.manifest.files if f.path in listed]
        return VerifiedFiles(self.path, entries, _home(payload), self._kept)

    def payload_entry(self, payload: Payload) -> str | None:
        """Return the payload's main file, relative to its directory."""
        return None if payload.entry is None else payload.entry.removeprefix(_home(payload))


def _home(payload: Payload) -> str:
    """Return the directory all files of the payload are in: ``payloads/<id>/``, or "" if they share none."""
    head = "/".join(payload.files[0].split("/")[:2]) + "/"
    return head if all(path.startswith(head) for path in payload.files) else ""


def _with_problem(candidate: Candidate, *, granted: bool) -> Candidate:
    problem = None
    if not candidate.installed:
        problem = f"no installed flavor is called {candidate.name}: install the distribution that offers it"
    elif candidate.trust is None:
        problem = f"this modelpack does not know the format {' or '.join(candidate.formats) or '(none)'}"
    elif candidate.trust == "code" and not granted:
        problem = "it would run code from the package, which nobody has allowed for this digest"
    values = {name: getattr(candidate, name) for name in Candidate.__slots__}
    return Candidate(**{**values, "problem": problem})
