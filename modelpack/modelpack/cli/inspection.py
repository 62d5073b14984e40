"""``modelpack inspect``: what a package is, what it needs, what would run on load; safe on anything."""

from __future__ import annotations

from typing import Any

import click

from modelpack.cli.report import guard, printable, show_json

__all__ = ["command"]


@click.command("inspect")
@click.argument("package", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(package: str, as_json: bool) -> None:
    """Say what PACKAGE is, what it needs, and what would run on load.

    Safe on anything: nothing of the package is imported or run.

    \b
    Example:
      modelpack inspect churn
    """
    with guard(as_json=as_json):
        from modelpack.errors import IntegrityError
        from modelpack.package import Package

        opened = Package.peek(package)
        faults: list[str] = []
        try:
            opened.verify()
        except IntegrityError as exc:
            faults = [str(fault) for fault in exc.faults]
        facts = _facts(opened, faults)
        if as_json:
            show_json({"ok": not faults, **facts})
        else:
            click.echo("\n".join(map(printable, _lines(facts))))
        if faults:
            raise SystemExit(1)


def _facts(opened: Any, faults: list[str]) -> dict[str, Any]:
    manifest = opened.manifest
    return {
        "path": str(opened.path),
        "digest": opened.digest,
        "content_digest": manifest.content_digest,
        "faults": faults,
        # A damaged package is not audited: what it would run is not what it was made to.
        "load": None if faults else opened.plan().to_json(),
        "manifest": {"modelpack": manifest.modelpack, **manifest.model_dump(mode="json")},
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    manifest = facts["manifest"]
    size = sum(file["size"] for file in manifest["files"])
    lines = [f"{manifest['name']} {manifest['version']}"]
    lines += [f"  {manifest['description']}"] if manifest.get("description") else []
    lines += [
        f"digest     {facts['digest']}",
        f"files      {len(manifest['files'])}, {_bytes(size)}"
        + (", NOT as the manifest says:" if facts["faults"] else ""),
    ]
    lines += [f"           {fault}" for fault in facts["faults"][:20]]
    for key in ("license", "task", "created"):
        lines += [f"{key:<10} {manifest[key]}"] if manifest.get(key) else []
    lines += _signature_lines(manifest.get("signature", {}))
    lines += [f"example    {example['name']}" for example in manifest.get("examples", ())]
    lines += _environment_lines(manifest.get("environment", {}))
    return lines + _load_lines(facts["load"])


def _signature_lines(signature: dict[str, Any]) -> list[str]:
    from modelpack.dtypes import describe
    from modelpack.signature import Signature

    parsed = Signature.model_validate(signature)
    lines: list[str] = []
    for title, io in (("inputs", parsed.inputs), ("outputs", parsed.outputs)):
        if io is None:
            lines.append(f"{title:<10} not recorded: data is not checked")
        elif io.kind == "table":
            lines.append(f"{title:<10} table of {len(io.columns)} columns")
            for column in io.columns[:40]:
                marks = (" nullable" if column.nullable else "") + (" optional" if column.optional else "")
                lines.append(f"             {column.name}: {describe(column.type)}{marks}")
            lines += [f"             … and {len(io.columns) - 40} more"] if len(io.columns) > 40 else []
        elif io.kind == "tensors":
            for tensor in io.tensors:
                shape = ", ".join("?" if dim is None else str(dim) for dim in tensor.shape)
                lines.append(f"{title:<10} tensor {tensor.name}: {tensor.dtype} [{shape}]")
        else:
            lines.append(f"{title:<10} any JSON")
    for param in parsed.params:
        allowed = param.constraints.enum if param.constraints else None
        choice = f", one of {', '.join(map(str, allowed))}" if allowed else ""
        lines.append(f"param      {param.name}: {describe(param.type)}, default {param.default}{choice}")
    return lines


def _environment_lines(environment: dict[str, Any]) -> list[str]:
    python = environment.get("python", {})
    lines = [f"saved on   Python {python['captured']}"] if python.get("captured") else []
    lines += [f"needs      {', '.join(environment['dependencies'])}"] if environment.get("dependencies") else []
    return lines


def _load_lines(plan: dict[str, Any] | None) -> list[str]:
    if plan is None:
        return ["load       not audited: the files are not the ones the manifest lists"]
    lines: list[str] = []
    for candidate in plan["candidates"]:
        formats = "+".join(candidate["formats"]) or "source code"
        lines.append(f"flavor     {candidate['flavor']} ({formats}): class {candidate['class'] or 'unknown'}")
        lines += [
            f"             would run: {reason}" for reason in candidate["would_run"] if candidate["class"] == "code"
        ]
        lines.append(f"             {candidate['problem'] or 'loads here'}")
    if plan["code_granted"]:
        lines.append("granted    you have allowed this digest to run its code")
    return lines + [f"differs    {difference}" for difference in plan["environment"]]


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError
