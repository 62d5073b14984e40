"""Loading a package, in the order of spec/09-trust.md#order-of-loading."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from modelpack import coerce, environment
from modelpack import flavor as flavors
from modelpack.errors import FlavorError, ModelpackError, TrustError, UsageError
from modelpack.manifest import CODE
from modelpack.model import Model
from modelpack.package import Candidate, Package, Plan
from modelpack.panics import is_failure
from modelpack.trust import Store

__all__ = ["load"]


def load(
    package: str | os.PathLike[str] | Package,
    *,
    allow_code: str | None = None,
    flavor: str | None = None,
    environment_policy: flavors.Policy | None = None,
    store: Store | None = None,
    chosen: Callable[[Candidate], None] | None = None,
) -> Model:
    """Load the model of a package.

    ``allow_code`` grants class ``code`` to the package with that digest, for this call. ``flavor`` picks one;
    otherwise the first that is installed and allowed is taken. ``environment_policy`` is what a critical package of
    another version does: ``"strict"`` refuses, ``"warn"`` loads and says so once, ``"ignore"`` loads; by default
    ``$MODELPACK_ENVIRONMENT_POLICY``, or strict. ``store`` is the trust store to ask, the user's own by default.
    ``chosen`` is called with what will be loaded, before its framework is imported.

    Raises:
        ManifestError, IntegrityError: it is not a valid package, or a file changed after it was verified.
        TrustError: it would run code from the package and nobody has allowed that for its digest.
        EnvironmentMismatch: a critical package is missing or of another release series.
        FlavorError: no flavor can be loaded here.
        UsageError: there is no such flavor (``flavor-absent``), or no such policy (``policy-invalid``).
    """
    policy = environment.policy(environment_policy)
    # 1-3. Bounded parse, schema, closed world and digests.
    opened = package if isinstance(package, Package) else Package.peek(package)
    with opened.keeping():
        if opened is not package:
            opened.verify()
        # 4-5. The environment; the trust class by static audit of the payloads' bytes.
        errors = {} if policy == "ignore" else _errors(opened, flavor)
        if errors and all(errors.values()) and policy == "strict":
            environment.require(next(iter(errors.values())))
        plan = opened.plan(allow_code=allow_code, store=store)
        candidate = _choose(opened, plan, flavor, errors, lenient=policy == "warn")
        if errors.get(candidate.index):
            environment.warn(errors[candidate.index])
            # Once is enough: the flavor need not find the same again.
            policy = "ignore"
        if chosen is not None:
            chosen(candidate)
        # 6-7. Only now import the installed flavor, and give it the very bytes that were verified.
        return _build(opened, candidate, granted=plan.granted, policy=policy)


def _errors(package: Package, name: str | None) -> Mapping[int, list[environment.Difference]]:
    """Return, for each flavor asked for, what keeps it from being loaded in this environment."""
    manifest = package.manifest
    asked = [i for i, entry in enumerate(manifest.flavors) if name is None or entry.name == name]
    errors: dict[int, list[environment.Difference]] = {}
    for i in asked:
        errors[i] = [difference for difference in package.differences(i) if difference.severity == "error"]
    return errors


def _choose(
    package: Package,
    plan: Plan,
    name: str | None,
    errors: Mapping[int, list[environment.Difference]],
    *,
    lenient: bool,
) -> Candidate:
    unfit = {i: "; ".join(map(str, found)) for i, found in errors.items() if found}
    candidates = [candidate for candidate in plan.candidates if name is None or candidate.name == name]
    if not candidates:
        raise UsageError(
            f"the package has no flavor {name!r}",
            code="flavor-absent",
            hint=f"It has: {', '.join(candidate.name for candidate in plan.candidates)}.",
        )
    ready = [candidate for candidate in candidates if candidate.ready]
    for candidate in [one for one in ready if one.index not in unfit] or (ready if lenient else []):
        return candidate
    for candidate in candidates:
        if candidate.installed and candidate.trust == "code" and not candidate.ready:
            raise _untrusted(package, candidate)
    raise FlavorError(
        "; ".join(f"flavor {one.name}: {one.problem or unfit.get(one.index)}" for one in candidates),
        code="flavor-unavailable",
        path="flavors",
    )


def _untrusted(package: Package, candidate: Candidate) -> TrustError:
    """Say what would run; never print a line that allows it when pasted."""
    manifest = package.manifest
    return TrustError(
        f"loading {manifest.name} {manifest.version} with flavor {candidate.name} can run any code: "
        f"{'; '.join(candidate.runs)}. Nothing was run",
        code="code-not-allowed",
        path=f"flavors[{candidate.index}]",
        hint="If you know who made it, allow exactly this package by its digest, "
        "which `modelpack inspect` shows (docs/trust.md).",
    )


def _build(package: Package, candidate: Candidate, *, granted: bool, policy: flavors.Policy) -> Model:
    chosen = flavors.get(candidate.name)
    entry = package.manifest.flavors[candidate.index]
    if int(entry.version) > int(chosen.version):
        raise FlavorError(
            f"the package needs version {entry.version} of flavor {entry.name}, installed is {chosen.version}",
            code="flavor-version",
            path=f"flavors[{candidate.index}].version",
            hint="Install a newer modelpack.",
        )
    payload = package.manifest.payloads[next(iter(entry.payloads.values()))] if entry.payloads else None
    format_id = payload.format if payload else "python-source"
    if format_id not in chosen.formats:
        raise FlavorError(
            f"flavor {entry.name} does not load payloads of format {format_id}",
            code="format-unsupported",
            path=f"flavors[{candidate.index}].payloads",
        )
    context = flavors.LoadContext(
        format=format_id,
        entry=package.payload_entry(payload) if payload else None,
        files=package.payload_files(payload) if payload else package.files(CODE),
        config=entry.config,
        entrypoint=entry.entrypoint,
        code_allowed=granted,
        namespace=package.namespace(entry),
        signature=package.manifest.signature,
        environment_policy=policy,
    )
    coerce.check_defaults(package.manifest.signature)
    try:
        predictor = chosen.load(context)
    except ModelpackError:
        raise
    # sys.exit() in the package's code is a failure too, never the end of the program with its own code.
    except BaseException as exc:
        if not is_failure(exc):
            raise
        raise FlavorError(
            f"flavor {entry.name} cannot load the model here: {type(exc).__name__}: {exc}",
            code="load-failed",
            path=f"flavors[{candidate.index}]",
            hint="Compare this environment with the one it was saved in: modelpack env diff.",
        ) from exc
    return Model(package, predictor, candidate)
