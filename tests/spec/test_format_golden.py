"""The very bytes of a manifest: order of properties, indent, characters, line ends, what is left out."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import modelpack
from modelpack.dtypes import DictionaryType
from modelpack.manifest import (
    Environment,
    Example,
    FileEntry,
    FlavorEntry,
    Manifest,
    Payload,
    Producer,
    Python,
    Tolerance,
    content_digest,
)
from modelpack.signature import Column, Constraints, Param, Signature, Table, Tensor, Tensors

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"

GOLDEN = """\
{
  "modelpack": "1.0",
  "name": "groesse",
  "version": "1",
  "producer": {
    "name": "modelpack-python",
    "version": "0.1.0"
  },
  "description": "a \\"quoted\\" line\\nand 模型 🙂",
  "signature": {
    "inputs": {
      "kind": "table",
      "columns": [
        {
          "name": "age",
          "type": "int64"
        },
        {
          "name": "plan",
          "type": {
            "kind": "dictionary",
            "categories": [
              "basic",
              "plus"
            ]
          },
          "nullable": true
        }
      ]
    },
    "outputs": {
      "kind": "tensors",
      "tensors": [
        {
          "name": "prediction",
          "dtype": "float64",
          "shape": [
            "rows",
            null,
            2
          ]
        }
      ]
    },
    "params": [
      {
        "name": "threshold",
        "type": "float64",
        "default": 0.5,
        "constraints": {
          "minimum": 0,
          "maximum": 1.5
        }
      }
    ]
  },
  "payloads": {
    "native": {
      "format": "skops",
      "files": [
        "payloads/native/model.skops"
      ],
      "entry": "payloads/native/model.skops"
    }
  },
  "flavors": [
    {
      "name": "sklearn",
      "payloads": {
        "model": "native"
      },
      "config": {
        "b": 1,
        "a": null
      }
    }
  ],
  "examples": [
    {
      "name": "example",
      "input": "examples/é.json",
      "tolerance": {
        "rtol": 0.001
      }
    }
  ],
  "environment": {
    "python": {
      "requires": ">=3.11"
    }
  },
  "extensions": {
    "org.example/z": [
      1e+300,
      -0.0
    ]
  },
  "files": [
    {
      "path": "examples/é.json",
      "size": 2,
      "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
      "role": "example"
    },
    {
      "path": "payloads/native/model.skops",
      "size": 0,
      "digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "role": "payload"
    }
  ],
  "content_digest": "sha256:cab57fd59d9c6932b8bc6c9420b5d3b94c041d48b41cd0041e9492abdb106426"
}
"""


def entry(path: str, raw: bytes, role: Any) -> FileEntry:
    return FileEntry(path=path, size=len(raw), digest=f"sha256:{hashlib.sha256(raw).hexdigest()}", role=role)


def manifest() -> Manifest:
    skops = "payloads/native/model.skops"
    files = (entry("examples/é.json", b"{}", "example"), entry(skops, b"", "payload"))
    plan = DictionaryType(categories=("basic", "plus"))
    return Manifest(
        name="groesse",
        version="1",
        producer=Producer(name="modelpack-python", version="0.1.0"),
        description='a "quoted" line\nand 模型 🙂',
        signature=Signature(
            inputs=Table(columns=(Column(name="age", type="int64"), Column(name="plan", type=plan, nullable=True))),
            outputs=Tensors(tensors=(Tensor(name="prediction", dtype="float64", shape=("rows", None, 2)),)),
            params=(
                Param(name="threshold", type="float64", default=0.5, constraints=Constraints(minimum=0, maximum=1.5)),
            ),
        ),
        payloads={"native": Payload(format="skops", files=(skops,), entry=skops)},
        flavors=(FlavorEntry(name="sklearn", payloads={"model": "native"}, config={"b": 1, "a": None}),),
        examples=(Example(name="example", input="examples/é.json", tolerance=Tolerance(rtol=0.001)),),
        environment=Environment(python=Python(requires=">=3.11")),
        extensions={"org.example/z": [1e300, -0.0]},
        files=files,
        content_digest=content_digest(files),
    )


def test_a_manifest_is_written_as_these_bytes() -> None:
    assert GOLDEN.encode() == manifest().to_bytes()


def test_what_is_written_is_read_back_equal_and_written_the_same() -> None:
    again = Manifest.parse(manifest().to_bytes())
    assert manifest() == again
    assert manifest().to_bytes() == again.to_bytes()


@pytest.mark.parametrize("folder", sorted(VECTORS.glob("valid/*/pkg/modelpack.json")), ids=lambda p: p.parts[-3])
def test_order_of_properties_does_not_change_the_bytes(folder: Path) -> None:
    value = json.loads(folder.read_bytes())
    straight = Manifest.parse(json.dumps(value).encode())
    turned = Manifest.parse(json.dumps(dict(reversed(value.items()))).encode())
    assert straight.to_bytes() == turned.to_bytes()
    assert straight == Manifest.parse(straight.to_bytes())


def test_a_written_manifest_is_one_that_the_schema_accepts(schema: Any) -> None:
    schema("manifest-1.0").validate(json.loads(manifest().to_bytes()))


def test_the_specification_is_not_needed_at_run_time(tmp_path: Path) -> None:
    """Nothing below spec/ is opened by importing, opening and verifying."""
    script = """
        import sys
        opened = []
        sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
        import modelpack
        modelpack.open(sys.argv[1]).verify()
        assert any(name.endswith("modelpack.json") for name in opened)
        assert not [name for name in opened if name.startswith(sys.argv[2])], opened
    """
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "modelpack.json").write_bytes((VECTORS / "valid" / "minimal" / "pkg" / "modelpack.json").read_bytes())
    run(script, str(package), str(VECTORS.parent))


def test_a_package_that_is_refused_when_it_is_loaded_imports_no_flavor() -> None:
    """All of them in one fresh process, with every audit hook's alarm for code on."""
    script = """
        import json, pathlib, sys, modelpack
        alarms = []
        def hook(event, args):
            if event in ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect"):
                alarms.append(event)
        sys.addaudithook(hook)
        refused = 0
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*/case.json")):
            case = json.loads(path.read_bytes())
            # The other codes are those of a flavor that is installed and allowed.
            gates = ("code-not-allowed", "payload-invalid", "flavor-unavailable", "environment-mismatch")
            # What is wrong in the state of listed objects is found by the flavor that builds them.
            if case["stage"] == "load" and case["code"] in gates and not case["id"].startswith("load-state-"):
                package = modelpack.open(path.parent / "pkg")
                try:
                    modelpack.load(package)
                except modelpack.ModelpackError as exc:
                    assert exc.code == case["code"], case["id"]
                    refused += 1
        strangers = {"modelpack_flavors", "sklearn", "skops", "pandas", "cloudpickle", "joblib"} & set(sys.modules)
        assert refused > 20 and not alarms and not strangers, (refused, alarms, strangers)
        assert not [name for name in sys.modules if name.startswith("_modelpack_code")]
    """
    run(script, str(VECTORS / "invalid"))


def run(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_saving_writes_the_same_bytes_as_the_manifest_it_returns(tmp_path: Path) -> None:
    package = modelpack.save(len, tmp_path / "pkg", flavor="python", name="x", version="1")
    raw = (tmp_path / "pkg" / "modelpack.json").read_bytes()
    assert package.manifest.to_bytes() == raw
    assert package.digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"


def test_what_save_writes_satisfies_the_schema(tmp_path: Path, schema: Any) -> None:
    import pandas

    frame = pandas.DataFrame(
        {
            "i": pandas.array([1, None], dtype="Int64"),
            "f": [0.5, float("nan")],
            "t": ["a", None],
            "b": [True, False],
            "c": pandas.Categorical(["x", "y"], ordered=True),
            "d": pandas.to_datetime(["2024-01-01", "2024-01-02"]).tz_localize("Europe/Paris"),
            "e": [[1], [2, 3]],
        }
    )
    package = modelpack.save(
        lambda data, threshold=0.5: [0.0] * len(data),
        tmp_path / "pkg",
        flavor="python",
        example=frame,
        description="é",
        license="MIT",
        authors=["A"],
        task="other",
        tags={"k": "v"},
        provenance={"source": {"revision": "1"}},
        metrics=[{"name": "m", "value": 1.5}],
        dependencies=["numpy>=1"],
    )
    schema("manifest-1.0").validate(json.loads((tmp_path / "pkg" / "modelpack.json").read_bytes()))
    modelpack.open(tmp_path / "pkg")
    assert {"signature", "examples", "environment"} <= json.loads(package.manifest.to_bytes()).keys()
