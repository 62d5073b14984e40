"""Opening, planning and loading: nothing runs before it may."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelpack
from modelpack import document, flavor, installed, trust
from modelpack.errors import EnvironmentMismatch, FlavorError, IntegrityError, TrustError, UsageError
from modelpack.manifest import Manifest, content_digest
from modelpack.package import Package
from modelpack.trust import Store


def total(x: Any) -> Any:
    return x.sum(axis=1)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return modelpack.save(total, tmp_path / "pkg", example=np.ones((3, 2)))


def rewrite(package: Package, change: Any) -> Package:
    """Change the manifest as another writer might have, and grant the result."""
    value = json.loads((package.path / "modelpack.json").read_bytes())
    change(value)
    (package.path / "modelpack.json").write_bytes(document.dump(value))
    changed = modelpack.open(package.path)
    trust.default_store().add(changed.digest, name="x", version="1")
    return changed


def test_open_reports_every_difference(package: Package) -> None:
    (package.path / "extra").write_text("")
    (package.path / "examples/example.output.json").unlink()
    with pytest.raises(IntegrityError) as info:
        modelpack.open(package.path)
    assert [fault.code for fault in info.value.faults] == ["file-missing", "file-unexpected"]
    assert "(and 1 more)" in str(info.value)


def test_opening_and_planning_import_no_flavor_and_no_framework(package: Package) -> None:
    code = (
        "import sys, modelpack\n"
        "pkg = modelpack.open(sys.argv[1]); pkg.plan(); pkg.verify(); pkg.environment\n"
        "bad = [m for m in sys.modules if m.partition('.')[0] in ('modelpack_flavors', 'sklearn', 'skops',\n"
        "       'cloudpickle', 'pandas', 'pyarrow') or m.startswith('_modelpack_code')]\n"
        "print(bad)"
    )
    done = subprocess.run([sys.executable, "-c", code, package.path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_refused_load_imports_no_flavor(package: Package, tmp_path: Path) -> None:
    code = (
        "import sys, modelpack\n"
        "try: modelpack.load(sys.argv[1])\n"
        "except modelpack.TrustError as exc: print(exc.code)\n"
        "print('modelpack_flavors.python' in sys.modules, 'cloudpickle' in sys.modules)"
    )
    env = {"MODELPACK_TRUST_STORE": str(tmp_path / "stranger"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, package.path], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout.split() == ["code-not-allowed", "False", "False"]


def test_the_plan_says_what_would_run(package: Package, tmp_path: Path) -> None:
    plan = package.plan(store=Store(tmp_path / "stranger"))
    (candidate,) = plan.candidates
    assert (candidate.trust, candidate.installed, plan.chosen, plan.granted) == ("code", True, None, False)
    assert plan.to_json()["candidates"][0]["would_run"] == ["a cloudpickle: loading it runs whatever it says"]
    granted = package.plan(allow_code=package.digest, store=Store(tmp_path / "stranger"))
    assert granted.chosen is not None and granted.chosen.name == "python"


def test_one_s_own_package_is_granted(package: Package) -> None:
    assert package.plan().granted
    assert modelpack.load(package).predict(np.ones((1, 2)))[0] == 2.0


def test_a_package_that_runs_no_code_asks_no_store(tmp_path: Path, trust_store: Path) -> None:
    from sklearn.linear_model import LinearRegression

    package = modelpack.save(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), tmp_path / "line")
    trust_store.mkdir(parents=True)
    trust_store.chmod(0o777)
    assert modelpack.load(package).candidate.trust == "objects"


def test_a_changed_manifest_is_another_package(package: Package) -> None:
    value = json.loads((package.path / "modelpack.json").read_bytes())
    value["description"] = "changed"
    (package.path / "modelpack.json").write_bytes(document.dump(value))
    with pytest.raises(TrustError) as info:
        modelpack.load(package.path)
    assert info.value.code == "code-not-allowed"


def test_the_package_cannot_lower_its_class(package: Package, tmp_path: Path) -> None:
    def claim(value: dict[str, Any]) -> None:
        value["payloads"]["native"]["declares"] = {"trust": "data", "trusted": True, "class": "data"}
        value["extensions"] = {"org.example/trusted": True}

    changed = rewrite(package, claim)
    assert changed.plan(store=Store(tmp_path / "s")).candidates[0].trust == "code"


def test_an_unknown_format_only_disables_its_flavor(package: Package) -> None:
    def add(value: dict[str, Any]) -> None:
        value["payloads"]["future"] = {**value["payloads"]["native"], "format": "from-the-future"}
        value["flavors"].insert(0, {"name": "python", "payloads": {"model": "future"}})

    changed = rewrite(package, add)
    first, second = changed.plan().candidates
    assert (first.trust, first.ready, second.ready) == (None, False, True)
    assert "does not know the format from-the-future" in str(first.problem)
    assert modelpack.load(changed).candidate.index == 1


def test_a_flavor_that_is_not_installed_is_passed_over_or_named(package: Package) -> None:
    def add(value: dict[str, Any]) -> None:
        value["flavors"].insert(0, {**value["flavors"][0], "name": "martian"})

    changed = rewrite(package, add)
    assert modelpack.load(changed).candidate.name == "python"
    with pytest.raises(FlavorError, match="no installed flavor is called martian") as info:
        modelpack.load(changed, flavor="martian")
    assert info.value.code == "flavor-unavailable"


def test_a_flavor_the_package_lacks_is_wrong_usage(package: Package) -> None:
    with pytest.raises(UsageError, match="It has: python") as info:
        modelpack.load(package, flavor="sklearn")
    assert info.value.code == "flavor-absent"


def test_a_newer_flavor_version_is_refused(package: Package) -> None:
    changed = rewrite(package, lambda value: value["flavors"][0].update(version="99"))
    with pytest.raises(FlavorError) as info:
        modelpack.load(changed)
    assert (info.value.code, info.value.path) == ("flavor-version", "flavors[0].version")


def test_a_payload_of_another_flavors_format_is_refused(package: Package) -> None:
    changed = rewrite(package, lambda value: value["payloads"]["native"].update(format="pickle"))
    with pytest.raises(FlavorError) as info:
        modelpack.load(changed)
    assert info.value.code == "format-unsupported"


def test_a_config_the_flavor_does_not_know_is_refused(package: Package) -> None:
    changed = rewrite(package, lambda value: value["flavors"][0].update(config={"form": "telepathy"}))
    with pytest.raises(FlavorError) as info:
        modelpack.load(changed)
    assert info.value.code == "config-invalid"


def test_code_that_cannot_be_loaded_is_an_error_of_the_flavor(tmp_path: Path) -> None:
    script = tmp_path / "needy.py"
    script.write_text("def predict(x):\n    return x\n")
    package = modelpack.save(total, tmp_path / "needy", code=script)

    def break_it(value: dict[str, Any]) -> None:
        value["flavors"][0].update(payloads={}, entrypoint="needy:predict")
        broken = b"import a_library_nobody_has\n"
        (package.path / "code/needy.py").write_bytes(broken)
        for file in value["files"]:
            if file["path"] == "code/needy.py":
                file.update(size=len(broken), digest=modelpack.manifest.digest_of(broken))
        parsed = [modelpack.manifest.FileEntry.model_validate(file) for file in value["files"]]
        value["content_digest"] = content_digest(parsed)

    with pytest.raises(FlavorError, match="No module named 'a_library_nobody_has'") as info:
        modelpack.load(rewrite(package, break_it))
    assert info.value.code == "load-failed"
    assert isinstance(info.value.__cause__, ModuleNotFoundError)


def test_the_environment_is_checked_first(package: Package) -> None:
    changed = rewrite(package, lambda value: value["environment"]["captured"].update(cloudpickle="0.1"))
    with pytest.raises(EnvironmentMismatch, match=r"pip install 'cloudpickle==0\.1'"):
        modelpack.load(changed)
    assert modelpack.load(changed, environment_policy="ignore").predict(np.ones((1, 2)))[0] == 2.0


def test_payload_files_may_lie_anywhere(package: Package) -> None:
    (package.path / "payloads/native/model.cloudpickle").rename(package.path / "model.cloudpickle")
    (package.path / "payloads/native").rmdir()

    def move(value: dict[str, Any]) -> None:
        for file in value["files"]:
            file["path"] = file["path"].replace("payloads/native/", "")
        value["payloads"]["native"].update(files=["model.cloudpickle"], entry="model.cloudpickle")
        value["files"].sort(key=lambda file: file["path"])
        parsed = [modelpack.manifest.FileEntry.model_validate(file) for file in value["files"]]
        value["content_digest"] = content_digest(parsed)

    assert modelpack.load(rewrite(package, move)).predict(np.ones((1, 2)))[0] == 2.0


def test_the_repr_names_package_and_digest(package: Package) -> None:
    assert f"<Package pkg 1 {package.digest[:19]}" in repr(package)


def test_the_manifest_round_trips(package: Package) -> None:
    raw = (package.path / "modelpack.json").read_bytes()
    assert Manifest.parse(raw).to_bytes() == raw


def test_flavors_are_listed_without_importing_them() -> None:
    code = (
        "import sys; from modelpack import flavor; print(sorted(flavor.available()));"
        "print([m for m in sys.modules if m.startswith('modelpack_flavors.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, imported = done.stdout.splitlines()
    assert "'python'" in names and "'sklearn'" in names
    assert imported == "[]"


class FakePoint:
    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


def test_third_party_flavors_come_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [FakePoint("martian", "json:loads")]
    monkeypatch.setattr(installed, "offered", lambda group: points)
    assert flavor.available()["martian"] == "json:loads"
    with pytest.raises(FlavorError, match="json:loads is not a flavor") as info:
        flavor.get("martian")
    assert info.value.code == "flavor-invalid"
    points[0] = FakePoint("python", "json:loads")
    with pytest.raises(FlavorError) as info:
        flavor.available()
    assert info.value.code == "flavor-duplicate"
