"""What is captured beyond what the flavor names: imports of the package's code and of its pickles, and origins."""

from __future__ import annotations

import importlib.metadata
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import modelpack
from modelpack import environment, imports
from modelpack.errors import SaveError

SOURCE = b"""
import os, numpy.linalg
from yaml import safe_load
from .near import x
def lazily():
    import sklearn.pipeline
    return __import__("pandas"), importlib.import_module("orjson.fragment")
"""


def test_imports_are_found_wherever_they_stand_in_source() -> None:
    found = {"numpy.linalg", "yaml.safe_load", "sklearn.pipeline", "pandas", "orjson.fragment"}
    assert imports.of_source(SOURCE) == found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from importlib import import_module as im\nim('yaml')", {"yaml"}),
        ("import importlib as il\nil.import_module('yaml')", {"yaml"}),
        ("load = importlib.import_module\nload('yaml')", {"yaml"}),
        ("importlib.import_module(name='yaml')", {"yaml"}),
        ("importlib.import_module(package=None, name='yaml')", {"yaml"}),
        ("importlib.import_module('.nodes', 'yaml')", {"yaml.nodes"}),
        ("importlib.import_module(name='..x', package='yaml.a')", {"yaml.x"}),
        ("importlib.import_module('...x', 'yaml')", set()),
        ("importlib.import_module('.x', __package__)", set()),
        ("importlib.import_module('.', 'yaml')", {"yaml"}),
        ("__import__(name='yaml')", {"yaml"}),
        ("builtins.__import__('yaml')", {"yaml"}),
        ("__import__('near', level=1)", set()),
        ("__import__('near', None, None, (), 1)", set()),
        ("importlib.import_module(3)", set()),
        ("importlib.import_module(*names)", set()),
        ("im('yaml')", set()),
    ],
)
def test_modules_that_are_imported_by_a_call_are_found(source: str, expected: set[str]) -> None:
    assert imports.of_source(source.encode()) == expected


@pytest.mark.parametrize(
    "guard",
    ["if TYPE_CHECKING:", "if typing.TYPE_CHECKING:", 'if __name__ == "__main__":', "if '__main__' == __name__:"],
)
def test_what_no_model_runs_is_not_captured(guard: str) -> None:
    source = f"import typing\n{guard}\n    import yaml\nelse:\n    import numpy\nif DEBUG:\n    import pandas\n"

    assert imports.of_source(source.encode()) == {"numpy", "pandas"}


@pytest.mark.parametrize("source", [b"def (", b"\0", "é".encode("latin-1")])
def test_what_is_no_python_imports_nothing(source: bytes) -> None:
    assert imports.of_source(source) == set()


def test_modules_have_distributions_of_other_names() -> None:
    found = imports.distributions({"yaml", "sklearn", "numpy", "nobody_has_this"})

    assert sorted(found) == ["PyYAML", "numpy", "scikit-learn"]
    assert found["numpy"] == importlib.metadata.version("numpy")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install distributions that share namespaces, one of which does not list its files."""
    listed = {
        "tiny-cloud-core": ["tinycloud/cloud/_helpers/__init__.py", "tinycloud/cloud/version.py"],
        "tiny-cloud-storage": ["tinycloud/cloud/storage/__init__.py", "tinycloud/cloud/storage/blob.py"],
        "tiny-cloud-fast": ["tinycloud/cloud/fast.cpython-311-x86_64-linux-gnu.so"],
        "tiny-ads": ["tinycloud/ads/__init__.py"],
        "tiny-old": [],
    }
    for name, paths in listed.items():
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        if paths:
            (info / "RECORD").write_text("".join(f"{path},sha256=x,1\n" for path in paths))
        else:
            (info / "top_level.txt").write_text("tinycloud\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from tinycloud.cloud import storage", {"tiny-cloud-storage"}),
        ("import tinycloud.cloud.storage.blob as b", {"tiny-cloud-storage"}),
        ("from tinycloud.cloud.storage import Client", {"tiny-cloud-storage"}),
        ("from tinycloud.cloud import fast", {"tiny-cloud-fast"}),
        ("from tinycloud.ads import *\nimport tinycloud.cloud.version", {"tiny-ads", "tiny-cloud-core"}),
    ],
)
def test_of_several_that_share_a_namespace_the_right_one_is_captured(
    cloud: None, source: str, expected: set[str]
) -> None:
    assert set(imports.distributions(imports.of_source(source.encode()))) == expected


def test_files_of_distributions_that_say_what_they_provide_are_not_read(
    cloud: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny_ads-1.0.dist-info" / "top_level.txt").write_text("other\n")
    read: list[str] = []
    original = importlib.metadata.PathDistribution.read_text

    def read_text(self: Any, name: str) -> str | None:
        text = original(self, name)
        if name == "RECORD" and text:
            read.append(self.metadata["Name"])
        return text

    monkeypatch.setattr(importlib.metadata.PathDistribution, "read_text", read_text)
    assert set(imports.distributions({"tinycloud.cloud.storage"})) == {"tiny-cloud-storage"}
    assert "tiny-cloud-core" in read and "tiny-ads" not in read


def test_the_codes_imports_are_in_the_package_but_not_its_own_modules(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("import yaml\n")
    (tmp_path / "scorer.py").write_text("import helper\nclass Scorer:\n    def predict(self, x):\n        return x\n")

    def score(data: Any) -> Any:
        return data

    code = [tmp_path / "helper.py", tmp_path / "scorer.py"]
    package = modelpack.save(score, tmp_path / "package", example=np.ones((2, 2)), code=code)

    assert package.environment.captured["PyYAML"] == importlib.metadata.version("PyYAML")
    assert f"PyYAML=={importlib.metadata.version('PyYAML')}" in package.environment.dependencies
    assert "PyYAML" not in package.environment.critical
    assert "helper" not in package.environment.captured


def test_a_pickled_functions_modules_are_in_the_package(tmp_path: Path) -> None:
    import pandas as pd

    def score(data: Any) -> Any:
        return np.asarray(pd.DataFrame(data))

    package = modelpack.save(score, tmp_path / "package", example=np.ones((2, 2)))

    assert {"cloudpickle", "numpy", "pandas"} <= set(package.environment.captured)


def test_what_a_pickled_function_imports_when_it_runs_is_in_the_package(tmp_path: Path) -> None:
    def parsed(text: str) -> Any:
        from dateutil.parser import parse

        return parse(text)

    class Scorer:
        def predict(self, data: Any) -> Any:
            def inner() -> Any:
                import os.path

                import click
                import yaml as parser

                return os, parser, click, parsed

            return data if inner() else None

    package = modelpack.save(Scorer(), tmp_path / "package", example=np.ones((2, 2)))

    assert {"PyYAML", "click", "cloudpickle", "python-dateutil"} <= set(package.environment.captured)


def test_a_pickled_torch_modules_classes_are_captured(tmp_path: Path) -> None:
    import torch

    class Net(torch.nn.Linear):
        pass

    # As if the class came with PyYAML, which is installed here.
    Net.__module__, Net.__qualname__, yaml.Net = "yaml", "Net", Net
    try:
        torch.save(Net(2, 1), tmp_path / "module.pt")
    finally:
        del yaml.Net

    found = imports.of_file((tmp_path / "module.pt").read_bytes())
    assert {name.partition(".")[0] for name in found} == {"torch", "yaml"}


def test_a_pickle_that_holds_an_archive_is_still_read() -> None:
    archive = io.BytesIO()
    zipfile.ZipFile(archive, "w").close()
    data = pickle.dumps((yaml.YAMLError, archive.getvalue()))
    assert zipfile.is_zipfile(io.BytesIO(data))

    assert imports.of_file(data) == {"yaml.error"}


@pytest.mark.parametrize(
    "text",
    [
        "x @ https://me:s3cret@example.org/x.whl",
        "x @ file:///home/s3cret/x.whl",
        "x@/home/s3cret/x.whl",
        "git+https://s3cret@example.org/x.git",
    ],
)
def test_an_address_is_no_dependency_and_is_not_repeated(text: str) -> None:
    with pytest.raises(SaveError) as info:
        environment.capture([], ["fine", text])
    assert (info.value.code, info.value.path) == ("dependency-invalid", "dependencies[1]")
    assert "s3cret" not in f"{info.value.message} {info.value.hint}"


@pytest.mark.parametrize(
    ("direct", "expected"),
    [
        ({"url": "file:///home/me/secret", "dir_info": {"editable": True}}, "editable"),
        ({"url": "file:///home/me/secret.whl", "archive_info": {}}, "local"),
        ({"url": "ssh://git@host/x", "vcs_info": {"vcs": "git", "commit_id": "ab"}}, "local"),
        (
            {"url": "https://me:token@example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}},
            "git+https://example.org/x.git@0a1b",
        ),
        ({"url": "https://example.org/x.whl?key=secret", "archive_info": {}}, "https://example.org/x.whl"),
        ({"url": "http://gitlab/x.git", "vcs_info": {"vcs": "git", "commit_id": "ab"}}, "local"),
        ({"url": "https://10.0.0.7/x.whl", "archive_info": {}}, "local"),
        ({"url": "https://wheels.corp.internal/x.whl", "archive_info": {}}, "local"),
    ],
)
def test_an_origin_is_told_without_paths_and_passwords(
    direct: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "tiny_thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0+here\n")
    (info / "direct_url.json").write_text(json.dumps(direct))
    monkeypatch.syspath_prepend(tmp_path)

    found = environment.capture([], ["tiny-thing"])

    assert found.captured == {"tiny-thing": "1.0+here"}
    assert found.origins == {"tiny-thing": expected}


@pytest.mark.parametrize(
    ("place", "listed", "expected"),
    [
        ("project/src", "", "editable"),
        ("project/src", "installed-files.txt", None),
        ("lib/site-packages", "", None),
        ("lib/dist-packages", "", None),
        ("lib/site-packages/tiny_thing-1.0-py3.11.egg", "", None),
    ],
)
def test_a_directory_in_development_is_told_by_what_setuptools_leaves_there(
    place: str, listed: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / place / "tiny_thing.egg-info"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("tiny_thing\n")
    if listed:
        (info / listed).write_text("../tiny_thing.py\n")
    monkeypatch.syspath_prepend(tmp_path / place)

    assert imports.origin("tiny-thing") == expected


def test_what_conda_installed_is_from_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "tiny_thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
    (info / "direct_url.json").write_text('{"url": "file:///croot/tiny_1/work", "dir_info": {}}')
    monkeypatch.syspath_prepend(tmp_path)
    assert imports.origin("tiny-thing") == "local"
    (info / "INSTALLER").write_text("conda\n")
    assert imports.origin("tiny-thing") is None
