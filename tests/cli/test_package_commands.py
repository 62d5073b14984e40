"""inspect, verify, test, trust and env, as a person or a script uses them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import modelpack
from modelpack import cli
from modelpack.cli import main


def run(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def double(data: Any, *, factor: float = 2.0) -> Any:
    return data * factor


@pytest.fixture
def package(tmp_path: Path) -> modelpack.Package:
    import numpy as np

    example = np.arange(6.0).reshape(3, 2)
    return modelpack.save(
        double, tmp_path / "double", example=example, version="1.0", description="Doubles.", license="MIT"
    )


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be another user: one who has granted nothing."""
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))


def test_inspect_says_what_it_is_and_what_would_run(package: modelpack.Package) -> None:
    result = run("inspect", package.path)
    assert result.exit_code == 0
    for part in ("double 1.0", "Doubles.", package.digest, "MIT", "float64 [batch, 2]", "factor", "class code",
                 "would run", "loads here", "you have allowed", "Python 3."):  # fmt: skip
        assert part in result.output


def test_inspect_json_holds_the_same_facts(package: modelpack.Package) -> None:
    facts = json.loads(run("inspect", package.path, "--json").output)
    assert facts["ok"] is True
    assert facts["digest"] == package.digest
    assert facts["load"]["candidates"][0]["class"] == "code"
    assert facts["manifest"]["name"] == "double"


def test_inspect_is_safe_on_a_strangers_package(package: modelpack.Package, stranger: None) -> None:
    result = run("inspect", package.path)
    assert result.exit_code == 0
    assert "nobody has allowed" in result.output


def test_inspect_and_verify_list_every_fault(package: modelpack.Package) -> None:
    (package.path / "extra").write_text("")
    (package.path / "examples/example.input.json").unlink()
    for command in ("inspect", "verify"):
        result = run(command, package.path)
        assert result.exit_code == 1
        assert "extra: is in the package but not listed" in result.output
        assert "examples/example.input.json: is listed in the manifest but not there" in result.output
    facts = json.loads(run("inspect", package.path, "--json").output)
    assert (facts["ok"], len(facts["faults"]), facts["load"]) == (False, 2, None)
    error = json.loads(run("verify", package.path, "--json").output)["error"]
    assert [fault["code"] for fault in error["faults"]] == ["file-missing", "file-unexpected"]


def test_verify_says_ok(package: modelpack.Package) -> None:
    result = run("verify", package.path)
    assert (result.exit_code, result.output) == (0, f"ok: 3 files, {package.digest}\n")
    assert json.loads(run("verify", package.path, "--json").output) == {
        "ok": True,
        "digest": package.digest,
        "files": 3,
    }


@pytest.mark.parametrize("command", ["inspect", "verify", "test"])
def test_what_is_no_package_is_said_in_words(command: str, tmp_path: Path) -> None:
    result = run(command, tmp_path / "nowhere")
    assert result.exit_code == 1
    assert "is not a directory [package-missing]" in result.stderr
    (tmp_path / "modelpack.json").write_text('{"modelpack": "9.0"}')
    result = run(command, tmp_path)
    assert result.exit_code == 1
    assert "modelpack: this reader reads format 1.x [version-unsupported]" in result.stderr
    assert json.loads(run(command, tmp_path, "--json").stdout)["error"]["path"] == "modelpack"


def test_test_compares_with_the_recorded_answers(package: modelpack.Package) -> None:
    result = run("test", package.path)
    assert (result.exit_code, result.output) == (0, "example: 3 rows, ok (flavor python)\n")
    facts = json.loads(run("test", package.path, "--json").output)
    assert facts == {
        "ok": True,
        "flavor": "python",
        "examples": [{"name": "example", "rows": 3, "passed": True, "differences": []}],
    }


def test_test_shows_what_differs(package: modelpack.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelpack import examples

    outcome = examples.Outcome(name="example", rows=3, differences=("predictions[0]: recorded 1, now 2",))
    monkeypatch.setattr(examples, "check", lambda *_: outcome)
    result = run("test", package.path)
    assert result.exit_code == 1
    assert "predictions[0]: recorded 1, now 2" in result.output
    assert json.loads(run("test", package.path, "--json").output)["ok"] is False


def test_test_without_examples_fails(tmp_path: Path) -> None:
    modelpack.save(double, tmp_path / "bare")
    result = run("test", tmp_path / "bare")
    assert result.exit_code == 1
    assert "no examples" in result.stderr


def test_code_is_allowed_by_whole_digest_only(package: modelpack.Package, stranger: None) -> None:
    refused = run("test", package.path)
    assert refused.exit_code == 1
    assert "[code-not-allowed]" in refused.stderr
    assert package.digest not in refused.stderr
    assert run("test", package.path, "--allow-code", package.digest).exit_code == 0
    assert run("test", package.path, "--allow-code", package.digest[:20]).exit_code == 2
    assert run("test", package.path, "--allow-code", "sha256:" + "0" * 64).exit_code == 1


def test_grants_are_added_listed_and_withdrawn(package: modelpack.Package, stranger: None) -> None:
    assert "nothing is allowed" in run("trust", "list").stderr
    wrong = run("trust", "add", package.path, "--digest", "sha256:" + "0" * 64)
    assert wrong.exit_code == 1
    assert "nothing was allowed" in wrong.stderr
    assert run("trust", "add", package.path, "--digest", package.digest).exit_code == 0
    assert run("test", package.path).exit_code == 0
    assert package.digest in run("trust", "list").output
    (grant,) = json.loads(run("trust", "list", "--json").output)
    assert (grant["digest"], grant["source"]) == (package.digest, "user")
    assert run("trust", "remove", package.digest).exit_code == 0
    assert run("trust", "remove", package.digest).exit_code == 1
    assert run("test", package.path).exit_code == 1


def test_a_package_saved_here_is_listed_as_such(package: modelpack.Package) -> None:
    assert "saved here" in run("trust", "list").output


def test_env_shows_and_compares(package: modelpack.Package) -> None:
    shown = run("env", "show", package.path)
    assert shown.output.startswith("cloudpickle==")
    assert json.loads(run("env", "show", package.path, "--json").output)["critical"] == ["cloudpickle"]
    assert run("env", "diff", package.path).output == "no difference\n"
    assert json.loads(run("env", "diff", package.path, "--json").output) == {"ok": True, "differences": []}


def test_env_diff_fails_where_the_model_cannot_load(
    package: modelpack.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelpack import environment

    monkeypatch.setattr(environment, "installed", lambda name: None)
    result = run("env", "diff", package.path)
    assert result.exit_code == 1
    assert "error: cloudpickle: saved with" in result.output
    refused = run("test", package.path)
    assert refused.exit_code == 1
    assert "pip install 'cloudpickle==" in refused.stderr


def test_every_command_has_a_file_and_a_help_with_an_example() -> None:
    files = {path.stem for path in cli.commands_folder().glob("*.py")} - {"__init__", "given", "place", "report"}
    listed = run("--help").output
    context = main.make_context("modelpack", [], resilient_parsing=True)
    commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    assert {cli._module(name) for name in commands} == files
    for name, command in commands.items():
        assert command is not None
        assert f"  {name} " in listed
        assert f"modelpack {name} " in run(name, "--help").output.split("Example:")[1]


def test_an_unknown_command_is_wrong_usage() -> None:
    assert run("fly").exit_code == 2


def test_version() -> None:
    assert run("--version").output == f"modelpack {modelpack.__version__}\n"


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom modelpack.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "print(*[m for m in ('numpy', 'pydantic', 'pandas', 'pyarrow', 'starlette') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_a_reader_that_goes_away_is_no_error(package: modelpack.Package) -> None:
    command = f"{sys.executable} -m modelpack inspect {package.path} | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_a_package_cannot_draw_on_the_terminal(tmp_path: Path) -> None:
    trick = "hi\x1b[2J\r\nflavor     sklearn: class data"
    odd = modelpack.save(double, tmp_path / "odd", description=trick)
    (tmp_path / "odd" / "x\x1b[2J\nok: 3 files").write_text("")
    for command in ("inspect", "verify"):
        result = run(command, odd.path)
        assert "\x1b" not in result.output
        assert "\nflavor     sklearn" not in result.output
        assert "\nok: 3 files" not in result.output


def leave(rows: Any, *, code: int = -1) -> Any:
    if code >= 0:
        sys.exit(code)
    return [1 for _ in rows]


def test_a_model_that_exits_has_failed(tmp_path: Path) -> None:
    modelpack.save(leave, tmp_path / "leave", example=[{"a": 1}])
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    output = tmp_path / "scores.jsonl"
    result = run("predict", tmp_path / "leave", "-i", tmp_path / "rows.jsonl", "-o", output, "-p", "code=0")
    assert result.exit_code == 1
    assert "SystemExit" in result.output
    assert not output.exists()


def test_code_that_exits_on_import_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaver.py").write_text(
        "import os, sys\n"
        "if os.environ.get('LEAVE'): sys.exit(0)\n"
        "def score(rows): return [1 for _ in rows]\n"
    )  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path))
    leaver = importlib.import_module("leaver")
    modelpack.save(leaver.score, tmp_path / "leave", code=tmp_path / "leaver.py", example=[{"a": 1}])
    monkeypatch.setenv("LEAVE", "1")
    result = run("test", tmp_path / "leave")
    assert result.exit_code == 1
    assert "[load-failed]" in result.output
