"""Write the conformance vectors of spec/vectors that do not exist yet: ``python tests/spec/make_vectors.py``.

A vector that has been released is frozen: this script never touches a directory that is there. It is kept so that it
can be seen how the vectors were made, and to add new ones. It uses nothing of modelpack, on purpose.
"""

from __future__ import annotations

import hashlib
import json
import sys
from base64 import b64encode
from typing import Any

from make_hostile import hostile_payloads
from vector_writing import VECTORS, accept, archive, dump, entries, manifest, reject, sha256, skops

LIMIT = 16 * 1024 * 1024


# --- valid ------------------------------------------------------------------------------------------------------

TYPES: list[Any] = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "utf8",
    "binary",
    "date32",
    "any",
    {"kind": "timestamp", "unit": "s"},
    {"kind": "timestamp", "unit": "ms", "tz": "UTC"},
    {"kind": "timestamp", "unit": "us", "tz": "Europe/Paris"},
    {"kind": "timestamp", "unit": "ns", "tz": "+02:00"},
    {"kind": "duration", "unit": "us"},
    {"kind": "decimal", "precision": 38, "scale": 10},
    {"kind": "list", "items": {"type": "float32"}},
    {"kind": "list", "items": {"type": "int8", "nullable": True}, "length": 3},
    {"kind": "struct", "fields": [{"name": "x", "type": "int64"}, {"name": "y z", "type": "utf8", "optional": True}]},
    {"kind": "map", "values": {"type": "float64", "nullable": True}},
    {"kind": "dictionary"},
    {"kind": "dictionary", "categories": ["a", "b", ""], "ordered": True},
    {"kind": "dictionary", "values": "int64", "categories": [-1, 0, 9007199254740991]},
    {"kind": "dictionary", "values": "bool", "categories": [True, False]},
    {"kind": "dictionary", "values": "float64", "categories": [0.5, 1]},
]


def table(*columns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": {"kind": "table", "columns": list(columns), **more}}


def column(dtype: Any, **more: Any) -> dict[str, Any]:
    return table({"name": "x", "type": dtype, **more})


def tensors(*items: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": {"kind": "tensors", "tensors": list(items)}}


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


MODEL = b"not a real payload\n"
WEIGHTS = "payloads/native/model.bin"
PAYLOAD = {"native": {"format": "example-format", "files": [WEIGHTS], "entry": WEIGHTS}}
USES = [{"name": "example", "payloads": {"model": "native"}}]


def valid_manifests() -> None:
    m = "03-manifest.md#properties"
    accept("minimal", m, "Only what is REQUIRED, and no file.", manifest())
    source = {"code/hello.py": b"def greet(data, params):\n    return [f'hello {name}' for name in data]\n"}
    python = [{"name": "python", "entrypoint": "hello:greet", "code": ["code/hello.py"]}]
    accept("python-source", m, "A function in one source file.", manifest(source, flavors=python), source)
    files = {WEIGHTS: MODEL}
    accept(
        "two-flavors-one-payload",
        "03-manifest.md#flavors",
        "Two flavors share a payload, one of them twice.",
        manifest(
            files, payloads=PAYLOAD, flavors=[USES[0], {"name": "other", "payloads": {"a": "native", "b": "native"}}]
        ),
        files,
    )
    accept(
        "two-payloads-one-file",
        "03-manifest.md#payloads",
        "Two payloads, in formats nobody knows, share a file.",
        manifest(files, payloads={**PAYLOAD, "2nd": {"format": "other.format+v2", "files": [WEIGHTS]}}, flavors=USES),
        files,
    )
    accept(
        "extensions",
        "03-manifest.md#extensions",
        "Extensions hold any JSON value and are ignored.",
        manifest(
            extensions={"org.example.registry/stage": {"value": "staging"}, "a.b/C_d.e-f": None, "0.1/x": [1.5, {}]}
        ),
    )
    accept(
        "describing-fields",
        "03-manifest.md#properties",
        "All properties that only describe the model.",
        manifest(
            requires=[],
            created="2026-11-23T19:00:00.123456789Z",
            producer={"name": "hand", "version": "0"},
            description="Line one.\nLine two: é, 模型, 🙂.",
            license="Apache-2.0 OR MIT",
            authors=["A. Author", "B"],
            task="tabular-classification",
            tags={"team": "growth", "odd key": ""},
            hardware={"cpus": 2, "accelerator": {"vendor": "example", "count": 1}},
            provenance={"source": {"repository": "https://example.org/x.git", "revision": "0123abcd"}},
            metrics=[{"name": "auc", "value": 0.91}, {}],
        ),
    )
    lock = {"environment/pylock.toml": b'lock-version = "1.0"\n'}
    accept(
        "environment",
        "10-environment.md#environment-object",
        "Every property of the environment.",
        manifest(
            lock,
            environment={
                "python": {"requires": ">=3.11", "captured": "3.11.7", "implementation": "cpython"},
                "dependencies": ["example>=1 ; python_version >= '3.11'"],
                "critical": ["example"],
                "captured": {"example": "1.2.3"},
                "locks": [{"kind": "pylock", "path": "environment/pylock.toml", "platforms": ["linux/x86_64"]}],
                "platform": {"os": "linux", "arch": "x86_64", "libc": "glibc-2.36"},
            },
        ),
        lock,
    )
    calls = {
        "examples/a.input.json": b'{"dataframe_split": {"columns": ["x"], "data": [[1.5]]}}\n',
        "examples/a.output.json": b'{"predictions": [3.0]}\n',
        "examples/b.json": b'{"dataframe_records": [{"x": 2}]}\n',
    }
    accept(
        "examples",
        "07-examples.md#example-object",
        "One example with an output and a tolerance, one without either.",
        manifest(
            calls,
            signature=column("float64"),
            examples=[
                {
                    "name": "a",
                    "input": "examples/a.input.json",
                    "output": "examples/a.output.json",
                    "tolerance": {"rtol": 0, "atol": 1e-6},
                },
                {"name": "b", "input": "examples/b.json"},
            ],
        ),
        calls,
    )


def whole() -> None:
    """Every property there is: the example of the prose."""
    skops = "payloads/native/model.skops"
    files = {
        skops: b"stands for a skops file\n",
        "LICENSE": b"Apache-2.0\n",
        "README.md": b"# Churn\n",
        "environment/pylock.toml": b'lock-version = "1.0"\n',
        "examples/example.input.json": b'{"dataframe_split": {"columns": ["age", "plan"], "data": [[31, "plus"]]}}\n',
        "examples/example.output.json": b'{"predictions": [0.25]}\n',
    }
    listed = entries(files)
    for entry in listed:
        entry["role"] = {"LICENSE": "license", "README.md": "doc"}.get(entry["path"], entry["role"])
    listed[1]["media_type"] = "text/markdown"
    value = manifest(
        files=listed,
        requires=[],
        name="churn",
        version="3.2.0",
        created="2026-11-23T19:00:00Z",
        producer={"name": "modelpack-python", "version": "0.1.0"},
        description="Probability that a customer leaves within a month.",
        license="Apache-2.0",
        authors=["Growth team"],
        task="tabular-classification",
        tags={"team": "growth"},
        signature={
            "inputs": {
                "kind": "table",
                "columns": [
                    {"name": "age", "type": "int64"},
                    {"name": "plan", "type": {"kind": "dictionary", "categories": ["basic", "plus"]}, "nullable": True},
                ],
            },
            "outputs": {"kind": "tensors", "tensors": [{"name": "prediction", "dtype": "float64", "shape": ["rows"]}]},
            "params": [
                {"name": "threshold", "type": "float64", "default": 0.5, "constraints": {"minimum": 0, "maximum": 1}}
            ],
        },
        payloads={
            "native": {
                "format": "skops",
                "files": [skops],
                "entry": skops,
                "made_with": {"scikit-learn": "1.9.1", "skops": "0.16.0"},
                "declares": {"types": ["sklearn.linear_model._logistic.LogisticRegression"]},
            }
        },
        flavors=[{"name": "sklearn", "payloads": {"model": "native"}, "config": {"method": "predict_proba"}}],
        examples=[
            {
                "name": "example",
                "input": "examples/example.input.json",
                "output": "examples/example.output.json",
                "tolerance": {"rtol": 1e-05, "atol": 1e-08},
            }
        ],
        environment={
            "python": {"requires": ">=3.11", "captured": "3.11.7", "implementation": "cpython"},
            "dependencies": ["scikit-learn==1.9.1", "skops==0.16.0"],
            "critical": ["scikit-learn", "skops"],
            "captured": {"scikit-learn": "1.9.1", "skops": "0.16.0"},
            "locks": [{"kind": "pylock", "path": "environment/pylock.toml", "platforms": ["linux/x86_64"]}],
            "platform": {"os": "linux", "arch": "x86_64", "libc": "glibc-2.36"},
        },
        hardware={"cpus": 1, "memory_bytes": 268435456},
        provenance={
            "source": {"repository": "https://example.org/churn.git", "revision": "0123abcd", "dirty": False},
            "datasets": [{"name": "train", "uri": "s3://example/churn.parquet", "rows": 10000}],
        },
        metrics=[{"name": "auc", "value": 0.91, "dataset": "test", "higher_is_better": True}],
        extensions={"org.example.registry/stage": "staging"},
    )
    accept("whole", "03-manifest.md#a-whole-manifest", "Every property; the payload is not a real one.", value, files)


def valid_signatures() -> None:
    columns = [
        {"name": f"c{i}", "type": t, "nullable": i % 2 == 0, "optional": i % 3 == 0} for i, t in enumerate(TYPES)
    ]
    s = "05-signature.md#types"
    accept(
        "all-types", s, "A column of each type, nullable or not, optional or not.", manifest(signature=table(*columns))
    )
    deep: Any = "int32"
    for _ in range(10):
        deep = {"kind": "list", "items": {"type": {"kind": "map", "values": {"type": deep, "nullable": True}}}}
    accept("nested-types", s, "Lists of maps of lists, twenty deep.", manifest(signature=column(deep)))
    accept(
        "tensors",
        "05-signature.md#tensors",
        "Symbols, sizes, null, no axes, 32 axes, NaN taken.",
        manifest(
            signature={
                **tensors(
                    {"name": "image", "dtype": "float32", "shape": ["N", 3, None, None], "nullable": True},
                    {"name": "scalar", "dtype": "bool", "shape": []},
                    {"name": "words", "dtype": "utf8", "shape": ["N", 0], "optional": True, "description": "none"},
                    {"name": "many", "dtype": "uint64", "shape": [1] * 32},
                ),
                "outputs": {"kind": "tensors", "tensors": [{"name": "y", "dtype": "binary", "shape": ["N", "_k2"]}]},
            }
        ),
    )
    accept(
        "params",
        "05-signature.md#params",
        "Params with and without default, null, constraints.",
        manifest(
            signature={
                "params": [
                    {
                        "name": "threshold",
                        "type": "float64",
                        "default": 0.5,
                        "constraints": {"minimum": 0, "maximum": 1},
                    },
                    {
                        "name": "method",
                        "type": "utf8",
                        "default": "a",
                        "constraints": {"enum": ["a", "b"]},
                        "changes_outputs": True,
                    },
                    {"name": "seed", "type": "uint32"},
                    {
                        "name": "words",
                        "type": {"kind": "list", "items": {"type": "utf8"}},
                        "nullable": True,
                        "default": None,
                        "constraints": {"min_length": 0, "max_length": 3},
                    },
                ]
            }
        ),
    )
    accept(
        "json-outputs",
        "05-signature.md#json",
        "The outputs are any JSON value.",
        manifest(signature={"outputs": {"kind": "json"}}),
    )
    accept(
        "empty-signature",
        "05-signature.md#signature-object",
        "A signature that promises nothing.",
        manifest(signature={}),
    )
    accept(
        "odd-column-names",
        "05-signature.md#columns",
        "Column names are any text.",
        manifest(
            signature=table(
                *({"name": n, "type": "int8"} for n in ["", "a.b", 'q"uote', "é", "e\u0301", "\n", "A", "a"] if n),
                extra_columns="reject",
            )
        ),
    )


def valid_packages() -> None:
    files = {
        "données/größe.txt": b"1",
        "模型/权重.bin": b"2",
        "emoji/👩\u200d🔬.txt": b"3",
        "a b/c d.txt": b"4",
        "code/modelpack.json": b"{}",
        "modelpack.json.bak": b"5",
        "console.txt": b"6",
        "com10/lpt0": b"7",
        "nul-ish": b"8",
        "#;'!$%&()+,-=@[]^_`{}~": b"9",
    }
    p = "02-package.md#paths"
    accept("odd-paths", p, "Paths that look as if they broke a rule, and break none.", manifest(files), files)
    files = {".hidden": b"1", "payloads/native/._SUCCESS.crc": b"2", ".config/..x": b"3", "...a": b"4"}
    accept(
        "dotfiles", "02-package.md#closed-world", "Files whose names start with dots are files.", manifest(files), files
    )
    files = {"empty": b"", "dir/empty": b""}
    accept("zero-byte-files", "04-digests.md#file-digest", "Files without bytes.", manifest(files), files)
    files = {"b": b"2", "a": b"1", "a.b": b"3", "a-b/c": b"4", "á": b"5", "Z": b"6"}
    listed = list(reversed(entries(files)))
    accept(
        "files-in-any-order",
        "04-digests.md#content-digest",
        "The order of `files` has no meaning.",
        manifest(files=listed),
        files,
    )
    long = "d/" * 3 + "s" * 255
    path = "/".join(["p" * 254] * 4) + "/" + "q" * (1024 - 4 * 255)
    assert len(path) == 1024
    files = {long: b"1", path: b"2"}
    build = [{"write": p, "text": raw.decode()} for p, raw in files.items()]
    accept("paths-at-limit", p, "A segment of 255 bytes and a path of 1024.", manifest(files), build=build)
    accept(
        "empty-directory",
        "02-package.md#file-kinds",
        "An empty directory is ignored.",
        manifest(),
        build=[{"mkdir": "a/b"}],
    )
    files = {"a": b"1", "b": b"1"}
    accept(
        "hard-link",
        "02-package.md#file-kinds",
        "Two names for one file.",
        manifest(files),
        {"a": b"1"},
        build=[{"hardlink": ["a", "b"]}],
    )
    unlisted = {"modelpack.sig.json": b"{}", "model.sig": b"\x00"}
    accept(
        "detached-signatures", "02-package.md#closed-world", "Detached signatures are not listed.", manifest(), unlisted
    )


def valid_documents() -> None:
    j = "03-manifest.md#json"
    accept("depth-at-limit", j, "Nested 64 deep.", manifest(extensions={"a.b/c": nest(62)}))
    numbers = [9007199254740991, -9007199254740991, 1.7976931348623157e308, 5e-324, -0.0, 1e2]
    accept("numbers-at-limit", j, "The largest integers and floats.", manifest(extensions={"a.b/c": numbers}))
    text = json.dumps(dict(reversed(manifest(description="é\U0001f642").items())), indent="\t", ensure_ascii=True)
    raw = ("\r\n " + text.replace("\n", "\r\n") + "\r\n\t").encode()
    accept("free-formatting", j, "Properties in another order, escapes, tabs, CRLF.", raw)
    head, tail = dump(manifest())[:-3].decode(), "\n}\n"
    spaces = LIMIT - len(head) - len(tail)
    digest = sha256(head.encode() + b" " * spaces + tail.encode())
    accept(
        "size-at-limit",
        "02-package.md#limits",
        "A manifest of 16 MiB.",
        {},
        digest=digest,
        build=[{"write": "modelpack.json", "prefix": head, "repeat": " ", "times": spaces, "suffix": tail}],
    )
    v = "11-versioning.md#minor-versions"
    files = {WEIGHTS: MODEL}
    listed = [{**entries(files)[0], "later": 1}]
    signature = {
        "inputs": {
            "kind": "tensors",
            "later": {},
            "tensors": [{"name": "x", "dtype": "int8", "shape": [], "later": 1}],
        },
        "outputs": table(
            {
                "name": "y",
                "type": {
                    "kind": "struct",
                    "struct": 1,
                    "fields": [{"name": "z", "type": {"kind": "duration", "unit": "s", "later": 1}}],
                },
            }
        )["inputs"],
        "params": [{"name": "p", "type": "int8", "constraints": {"later": 1}}],
    }
    accept(
        "newer-minor",
        v,
        "A newer minor version with unknown properties at every depth.",
        manifest(
            modelpack="1.7",
            later={"any": ["thing"]},
            files=listed,
            signature=signature,
            payloads={"native": {**PAYLOAD["native"], "later": None}},
            flavors=[{**USES[0], "later": []}],
            environment={"python": {"later": "x"}, "later": 1},
            producer={"name": "a", "version": "b", "later": 1},
        ),
        files,
        schema="n/a",
    )
    accept(
        "newest-minor", v, "The largest minor version that can be written.", manifest(modelpack="1.9999"), schema="n/a"
    )


# --- invalid ----------------------------------------------------------------------------------------------------


def invalid_documents() -> None:
    j = "03-manifest.md#json"
    good = dump(manifest())

    def broken(id_: str, description: str, raw: bytes | None, code: str, path: str = "", **more: Any) -> None:
        reject(id_, more.pop("spec", j), description, raw, ("document", code, path), **{"schema": "n/a", **more})

    def with_extension(text: str) -> bytes:
        return good.replace(
            b'"flavors"', b'"extensions": {"a.b/c": ' + text.encode("utf-8", "surrogatepass") + b'},\n  "flavors"'
        )

    at = 'extensions["a.b/c"]'
    reject(
        "manifest-missing",
        "02-package.md#layout",
        "There is no manifest.",
        None,
        ("document", "manifest-missing", ""),
        {"README.md": b"a"},
        schema="n/a",
    )
    reject(
        "manifest-wrong-case",
        "02-package.md#layout",
        "The manifest is called Modelpack.json.",
        None,
        ("document", "manifest-missing", ""),
        {"Modelpack.json": good},
        schema="n/a",
    )
    kinds = "02-package.md#file-kinds"
    for id_, op in {
        "manifest-is-a-directory": {"mkdir": "modelpack.json"},
        "manifest-is-a-link": {"symlink": ["real.json", "modelpack.json"]},
        "manifest-is-a-fifo": {"fifo": "modelpack.json"},
    }.items():
        reject(
            id_,
            kinds,
            "The manifest is not a regular file.",
            None,
            ("document", "file-kind", "modelpack.json"),
            {"real.json": good},
            build=[op],
            schema="n/a",
        )
    head, tail = good[:-3].decode(), "\n}\n"
    broken(
        "manifest-too-large",
        "One byte more than 16 MiB.",
        None,
        "document-too-large",
        spec="02-package.md#limits",
        build=[
            {
                "write": "modelpack.json",
                "prefix": head,
                "repeat": " ",
                "times": LIMIT + 1 - len(head) - len(tail),
                "suffix": tail,
            }
        ],
    )
    broken("byte-order-mark", "A byte order mark.", b"\xef\xbb\xbf" + good, "document-encoding")
    broken("utf-16", "UTF-16 instead of UTF-8.", good.decode().encode("utf-16"), "document-encoding")
    broken("invalid-utf-8", "A byte that is not UTF-8.", good.replace(b"vector", b"vect\xff"), "document-encoding")
    broken("overlong-utf-8", "An overlong form.", good.replace(b"vector", b"vect\xc0\xaf"), "document-encoding")
    broken("surrogate-in-utf-8", "A surrogate written as UTF-8.", with_extension('"\ud800"'), "document-encoding")
    broken("empty-manifest", "No bytes at all.", b"", "json-invalid")
    broken("truncated", "The last brace is missing.", good[:-2], "json-invalid")
    broken("trailing-comma", "A trailing comma.", good[:-3] + b",\n}\n", "json-invalid")
    broken("comment", "A comment.", b"// a comment\n" + good, "json-invalid")
    broken("two-values", "A second value behind the first.", good + b"{}", "json-invalid")
    broken("single-quotes", "Single quotes.", good.replace(b'"', b"'"), "json-invalid")
    broken("control-in-string", "A raw control character in a string.", with_extension('"\x01"'), "json-invalid")
    broken("yaml", "YAML.", b"modelpack: '1.0'\nname: vector\n", "json-invalid")
    for id_, text in {"nan": "NaN", "infinity": "[0, Infinity]", "minus-infinity": '{"k": -Infinity}'}.items():
        where = {"nan": at, "infinity": at + "[1]", "minus-infinity": at + ".k"}[id_]
        broken(id_, f"{text} is not JSON.", with_extension(text), "json-number", where)
    broken("float-overflow", "A number beyond binary64.", with_extension("-1e309"), "json-number", at)
    broken("integer-too-large", "2^53.", with_extension("9007199254740992"), "json-number", at)
    broken("integer-too-small", "-2^53.", with_extension("-9007199254740992"), "json-number", at)
    broken("integer-of-many-digits", "An integer of 5000 digits.", with_extension("9" * 5000), "json-number", at)
    dup = "json-duplicate-key"
    broken("duplicate-key", "A property twice.", good[:-3] + b',\n  "name": "vector"\n}\n', dup, "name")
    broken(
        "duplicate-key-deep",
        "A property twice, far down.",
        with_extension('[{"x": [{"y": 1, "y": 1}]}]'),
        dup,
        at + "[0].x[0].y",
    )
    broken(
        "duplicate-key-escaped",
        "One property, spelled in two ways.",
        with_extension('{"a": 1, "\\u0061": 2}'),
        dup,
        at + ".a",
    )
    sur = "json-surrogate"
    broken("lone-surrogate", "A lone surrogate in a string.", with_extension('["\\udc00"]'), sur, at + "[0]")
    broken("lone-surrogate-high", "A high surrogate before a letter.", with_extension('"\\ud83dx"'), sur, at)
    broken("lone-surrogate-key", "A lone surrogate in a name.", with_extension('{"\\ud800": 1}'), sur, at)
    broken("depth-65", "Nested 65 deep.", with_extension("[" * 63 + "]" * 63), "json-depth", at + "[0]" * 62)
    broken(
        "depth-100000",
        "Nested 100 000 deep.",
        None,
        "json-depth",
        build=[{"write": "modelpack.json", "repeat": "[", "times": 100000}],
    )
    reject("array", j, "An array instead of an object.", b"[]", ("document", "field-invalid", ""))
    reject("null", j, "Null instead of an object.", b"null", ("document", "field-invalid", ""))


def invalid_versions() -> None:
    v = "03-manifest.md#modelpack"

    def broken(
        id_: str, description: str, value: dict[str, Any], code: str, path: str = "modelpack", spec: str = v
    ) -> None:
        reject(id_, spec, description, value, ("version", code, path))

    broken(
        "version-missing",
        "No version of the format, and a name that is wrong too.",
        manifest(modelpack=None, name="A"),
        "field-missing",
    )
    broken("version-number", "A number instead of a string.", manifest(modelpack=1.0), "field-invalid")
    broken("version-without-minor", "Only a major version.", manifest(modelpack="1"), "field-invalid")
    broken("version-three-parts", "Three numbers.", manifest(modelpack="1.0.0"), "field-invalid")
    broken("version-leading-zero", "A leading zero.", manifest(modelpack="1.00"), "field-invalid")
    broken("version-line-end", "A line end behind the version.", manifest(modelpack="1.0\n"), "field-invalid")
    broken("version-other-digits", "Digits that are not ASCII.", manifest(modelpack="1.\u0660"), "field-invalid")
    broken(
        "version-2",
        "A newer major version, whose other properties are unknown.",
        {"modelpack": "2.0", "packages": []},
        "version-unsupported",
    )
    broken("version-0", "An older major version.", manifest(modelpack="0.9"), "version-unsupported")
    r = "03-manifest.md#requires"
    broken(
        "requires-unknown",
        "A feature nobody has.",
        manifest(requires=["example.org/encryption"]),
        "feature-unsupported",
        "requires[0]",
        r,
    )
    broken(
        "requires-unknown-newer",
        "A feature nobody has, in a newer minor version with unknown properties.",
        manifest(modelpack="1.3", requires=["later"], later=1),
        "feature-unsupported",
        "requires[0]",
        r,
    )
    reject(
        "requires-not-a-list",
        r,
        "A string instead of an array.",
        manifest(requires="x"),
        ("fields", "field-invalid", "requires"),
    )


def invalid_fields() -> None:
    def broken(id_: str, spec: str, description: str, value: Any, path: str, code: str = "field-invalid") -> None:
        reject(id_, f"03-manifest.md#{spec}", description, value, ("fields", code, path))

    for name in ("name", "version", "flavors", "files"):
        broken(
            f"{name.replace('_', '-')}-missing", name, f"No `{name}`.", manifest(**{name: None}), name, "field-missing"
        )
    broken(
        "content-digest-missing",
        "content_digest",
        "No `content_digest`.",
        manifest(content_digest=None),
        "content_digest",
        "field-missing",
    )
    unknown = "field-unknown"
    files = {WEIGHTS: MODEL}
    broken("unknown-field", "reading", "A property nobody knows.", manifest(later=1), "later", unknown)
    broken(
        "unknown-field-case",
        "reading",
        "A property in another case.",
        manifest(Description="x"),
        "Description",
        unknown,
    )
    broken(
        "trust-in-manifest",
        "what-a-manifest-does-not-say",
        "A package that says it is safe.",
        manifest(trust="data"),
        "trust",
        unknown,
    )
    payload = {"native": {**PAYLOAD["native"], "trusted": True}}
    broken(
        "trust-in-payload",
        "what-a-manifest-does-not-say",
        "A payload that says it is trusted.",
        manifest(files, payloads=payload),
        "payloads.native.trusted",
        unknown,
    )
    broken(
        "unknown-field-in-file",
        "files",
        "A mode in a file.",
        manifest(files=[{**entries(files)[0], "mode": 420}]),
        "files[0].mode",
        unknown,
    )
    broken(
        "unknown-field-in-flavor",
        "flavors",
        "A loader in a flavor.",
        manifest(flavors=[{"name": "a", "loader_module": "os"}]),
        "flavors[0].loader_module",
        unknown,
    )
    broken("null-description", "properties", "Null is not a string.", manifest() | {"description": None}, "description")
    broken("null-signature", "properties", "Null is not an object.", manifest() | {"signature": None}, "signature")
    broken(
        "null-entry",
        "payloads",
        "Null is not a path.",
        manifest(files, payloads={"native": {**PAYLOAD["native"], "entry": None}}),
        "payloads.native.entry",
    )
    broken("name-upper-case", "name", "Upper case.", manifest(name="Vector"), "name")
    broken("name-slash", "name", "A slash.", manifest(name="a/b"), "name")
    broken("name-too-long", "name", "129 characters.", manifest(name="a" * 129), "name")
    broken("name-line-end", "name", "A line end behind the name.", manifest(name="a\n"), "name")
    broken("name-empty", "name", "No characters.", manifest(name=""), "name")
    broken("name-not-ascii", "name", "Letters that are not ASCII.", manifest(name="modèle"), "name")
    broken("model-version-number", "version", "A number instead of a string.", manifest(version=1), "version")
    broken("model-version-space", "version", "A space.", manifest(version="1 0"), "version")
    broken("created-without-zone", "created", "No zone.", manifest(created="2026-11-23T19:00:00"), "created")
    broken(
        "created-offset", "created", "An offset instead of Z.", manifest(created="2026-11-23T19:00:00+00:00"), "created"
    )
    broken("created-month-13", "created", "No such month.", manifest(created="2026-13-23T19:00:00Z"), "created")
    broken(
        "created-other-digits",
        "created",
        "Digits that are not ASCII.",
        manifest(created="\u0662026-11-23T19:00:00Z"),
        "created",
    )
    broken(
        "producer-without-version",
        "producer",
        "No version.",
        manifest(producer={"name": "x"}),
        "producer.version",
        "field-missing",
    )
    broken(
        "description-too-long",
        "description-license-authors-task",
        "4097 characters.",
        manifest(description="a" * 4097),
        "description",
    )
    broken("tag-number", "tags", "A number as a tag.", manifest(tags={"a": 1}), "tags.a")
    broken("tag-empty-key", "tags", "A tag without a name.", manifest(tags={"": "x"}), 'tags[""]')
    broken(
        "payload-without-format",
        "payloads",
        "No format.",
        manifest(files, payloads={"native": {"files": [WEIGHTS]}}),
        "payloads.native.format",
        "field-missing",
    )
    broken(
        "payload-without-files",
        "payloads",
        "No files.",
        manifest(payloads={"native": {"format": "x", "files": []}}),
        "payloads.native.files",
    )
    broken(
        "payload-id",
        "payloads",
        "An id in upper case.",
        manifest(files, payloads={"Native": PAYLOAD["native"]}),
        "payloads.Native",
    )
    broken(
        "payload-format",
        "payloads",
        "A format with a space.",
        manifest(files, payloads={"native": {**PAYLOAD["native"], "format": "a b"}}),
        "payloads.native.format",
    )
    broken("flavors-empty", "flavors", "No flavor.", manifest(flavors=[]), "flavors")
    broken("flavor-name", "flavors", "A path as a flavor.", manifest(flavors=[{"name": "../evil"}]), "flavors[0].name")
    broken(
        "flavor-version-number",
        "flavors",
        "A number as version.",
        manifest(flavors=[{"name": "a", "version": 1}]),
        "flavors[0].version",
    )
    broken(
        "entrypoint-without-name",
        "flavors",
        "No name in the entrypoint.",
        manifest(flavors=[{"name": "a", "entrypoint": "mod"}]),
        "flavors[0].entrypoint",
    )
    broken(
        "entrypoint-call",
        "flavors",
        "A call in the entrypoint.",
        manifest(flavors=[{"name": "a", "entrypoint": "os:system('x')"}]),
        "flavors[0].entrypoint",
    )
    broken(
        "extension-without-domain",
        "extensions",
        "An extension without a domain.",
        manifest(extensions={"stage": 1}),
        "extensions.stage",
    )
    broken("metrics-not-objects", "metrics", "A number as a metric.", manifest(metrics=[0.9]), "metrics[0]")

    def one(**changes: Any) -> dict[str, Any]:
        entry = {**entries({"a": b"1"})[0], **changes}
        return manifest(files=[{k: v for k, v in entry.items() if v is not None}])

    broken("file-without-size", "files", "No size.", one(size=None), "files[0].size", "field-missing")
    broken("file-size-negative", "files", "A negative size.", one(size=-1), "files[0].size")
    broken("file-size-text", "files", "A size in quotes.", one(size="1"), "files[0].size")
    reject(
        "file-size-fraction",
        "03-manifest.md#json",
        "1.0 is not an integer here.",
        one(size=1.0),
        ("fields", "field-invalid", "files[0].size"),
        schema="accept",
    )
    broken("file-size-boolean", "files", "True as a size.", one(size=True), "files[0].size")
    broken("file-role", "files", "A role nobody knows.", one(role="weights"), "files[0].role")
    digest = sha256(b"1")
    d = "04-digests.md#digests"
    for id_, description, text in [
        ("digest-upper-case", "Upper case digits.", "sha256:" + digest[7:].upper()),
        ("digest-upper-case-algorithm", "Upper case algorithm.", "SHA256:" + digest[7:]),
        ("digest-md5", "Another algorithm.", "md5:" + hashlib.md5(b"1").hexdigest()),
        ("digest-short", "63 digits.", digest[:-1]),
        ("digest-line-end", "A line end behind the digest.", digest + "\n"),
        ("digest-bare", "No algorithm.", digest[7:]),
    ]:
        reject(id_, d, description, one(digest=text), ("fields", "field-invalid", "files[0].digest"))
    e = "10-environment.md#environment-object"
    env = {"environment": {"locks": [{"kind": "poetry", "path": "a"}]}}
    reject(
        "lock-kind",
        e,
        "A kind of lock nobody knows.",
        manifest({"a": b"1"}, **env),
        ("fields", "field-invalid", "environment.locks[0].kind"),
    )
    reject(
        "environment-captured-number",
        e,
        "A number as a version.",
        manifest(environment={"captured": {"numpy": 2.4}}),
        ("fields", "field-invalid", "environment.captured.numpy"),
    )
    x = "07-examples.md#example-object"
    for id_, tolerance in {
        "tolerance-text": {"rtol": "0.1"},
        "tolerance-boolean": {"rtol": True},
        "tolerance-negative": {"rtol": -0.1},
    }.items():
        value = manifest({"a": b"1"}, examples=[{"name": "a", "input": "a", "tolerance": tolerance}])
        reject(
            id_,
            x,
            "A tolerance that is not a number from 0.",
            value,
            ("fields", "field-invalid", "examples[0].tolerance.rtol"),
        )
    reject(
        "example-without-input",
        x,
        "No input.",
        manifest(examples=[{"name": "a"}]),
        ("fields", "field-missing", "examples[0].input"),
    )


def invalid_signatures() -> None:
    where = "signature.inputs"
    first = f"{where}.columns[0]"

    def broken(
        id_: str,
        spec: str,
        description: str,
        signature: Any,
        path: str,
        code: str = "field-invalid",
        schema: str = "reject",
    ) -> None:
        reject(
            id_,
            f"05-signature.md#{spec}",
            description,
            manifest(signature=signature),
            ("fields", code, path),
            schema=schema,
        )

    x = {"name": "x", "type": "int8"}
    broken("columns-empty", "tables", "No columns.", table(), f"{where}.columns")
    broken(
        "column-names-repeat",
        "tables",
        "A name twice.",
        table(x, {"name": "y", "type": "bool"}, x),
        where,
        schema="accept",
    )
    broken(
        "column-without-type",
        "columns",
        "No type.",
        table(x, {"name": "y"}),
        f"{where}.columns[1].type",
        "field-missing",
    )
    broken("column-name-empty", "columns", "No characters.", table({"name": "", "type": "int8"}), f"{first}.name")
    broken(
        "column-nullable-text", "columns", "Text instead of true.", column("int8", nullable="true"), f"{first}.nullable"
    )
    broken(
        "column-unknown-field",
        "columns",
        "`required` is not ours.",
        column("int8", required=True),
        f"{first}.required",
        "field-unknown",
    )
    broken(
        "extra-columns",
        "tables",
        "Neither ignore nor reject.",
        table(x, extra_columns="warn"),
        f"{where}.extra_columns",
    )
    broken("inputs-json", "json", "Inputs of kind json.", {"inputs": {"kind": "json"}}, where)
    broken("inputs-without-kind", "tables", "No kind.", {"inputs": {"columns": [x]}}, where)
    broken("type-unknown", "element-types", "No such type.", column("int128"), f"{first}.type")
    broken("type-of-numpy", "element-types", "A name of another library.", column("object"), f"{first}.type")
    broken("type-kind-unknown", "types", "No such kind.", column({"kind": "union"}), f"{first}.type")
    broken("type-number", "types", "A number.", column(1), f"{first}.type")
    broken(
        "timestamp-without-unit",
        "timestamp",
        "No unit.",
        column({"kind": "timestamp"}),
        f"{first}.type.unit",
        "field-missing",
    )
    broken(
        "timestamp-unit", "timestamp", "No such unit.", column({"kind": "timestamp", "unit": "m"}), f"{first}.type.unit"
    )
    broken(
        "timestamp-zone-null",
        "timestamp",
        "Null is not a zone.",
        column({"kind": "timestamp", "unit": "s", "tz": None}),
        f"{first}.type.tz",
    )
    broken(
        "decimal-scale",
        "decimal",
        "A scale larger than the precision.",
        column({"kind": "decimal", "precision": 4, "scale": 5}),
        f"{first}.type",
        schema="accept",
    )
    broken(
        "decimal-precision",
        "decimal",
        "77 digits.",
        column({"kind": "decimal", "precision": 77, "scale": 0}),
        f"{first}.type.precision",
    )
    broken("list-without-items", "list", "No items.", column({"kind": "list"}), f"{first}.type.items", "field-missing")
    broken(
        "list-length-negative",
        "list",
        "A negative length.",
        column({"kind": "list", "items": {"type": "int8"}, "length": -1}),
        f"{first}.type.length",
    )
    broken(
        "nested-type-unknown",
        "types",
        "No such type, far down.",
        column({"kind": "map", "values": {"type": {"kind": "list", "items": {"type": "str"}}}}),
        f"{first}.type.values.type.items.type",
    )
    broken(
        "struct-without-fields",
        "struct",
        "No fields.",
        column({"kind": "struct", "fields": []}),
        f"{first}.type.fields",
    )
    broken(
        "struct-names-repeat",
        "struct",
        "A name twice.",
        column({"kind": "struct", "fields": [x, x]}),
        f"{first}.type",
        schema="accept",
    )
    broken(
        "dictionary-values",
        "dictionary",
        "A value type that is not allowed.",
        column({"kind": "dictionary", "values": "float32"}),
        f"{first}.type.values",
    )
    broken(
        "dictionary-category-type",
        "dictionary",
        "A category of another type.",
        column({"kind": "dictionary", "categories": ["a", 1]}),
        f"{first}.type",
        schema="accept",
    )
    broken(
        "dictionary-category-boolean",
        "dictionary",
        "True is not an integer.",
        column({"kind": "dictionary", "values": "int8", "categories": [True]}),
        f"{first}.type",
        schema="accept",
    )
    broken(
        "dictionary-category-range",
        "dictionary",
        "A category outside the range of its type.",
        column({"kind": "dictionary", "values": "uint8", "categories": [256]}),
        f"{first}.type",
        schema="accept",
    )
    broken(
        "dictionary-category-twice",
        "dictionary",
        "A category twice.",
        column({"kind": "dictionary", "categories": ["a", "b", "a"]}),
        f"{first}.type",
    )
    t = f"{where}.tensors"
    y = {"name": "y", "dtype": "float32", "shape": ["N"]}
    broken(
        "tensor-dtype",
        "tensors",
        "A type that tensors do not have.",
        tensors({**y, "dtype": "date32"}),
        f"{t}[0].dtype",
    )
    broken(
        "tensor-without-shape",
        "tensors",
        "No shape.",
        tensors({"name": "y", "dtype": "int8"}),
        f"{t}[0].shape",
        "field-missing",
    )
    broken("tensor-shape-negative", "tensors", "-1 for any size.", tensors({**y, "shape": [-1, 2]}), f"{t}[0].shape[0]")
    broken("tensor-symbol", "symbols", "A symbol with a dash.", tensors({**y, "shape": [2, "a-b"]}), f"{t}[0].shape[1]")
    broken("tensor-axes", "tensors", "33 axes.", tensors({**y, "shape": [1] * 33}), f"{t}[0].shape")
    broken(
        "tensor-nullable-integer",
        "tensors",
        "NaN in integers.",
        tensors({**y, "dtype": "int8", "nullable": True}),
        f"{t}[0]",
    )
    broken("tensor-names-repeat", "tensors", "A name twice.", tensors(y, y), where, schema="accept")
    broken(
        "tensors-unknown-field",
        "tensors",
        "A property nobody knows.",
        {"inputs": {"kind": "tensors", "tensors": [y], "later": 1}},
        f"{where}.later",
        "field-unknown",
    )
    p = {"name": "p", "type": "int8"}
    broken("param-names-repeat", "params", "A name twice.", {"params": [p, p]}, "signature", schema="accept")
    broken(
        "param-constraint-unknown",
        "params",
        "A constraint nobody knows.",
        {"params": [{**p, "constraints": {"pattern": "a"}}]},
        "signature.params[0].constraints.pattern",
        "field-unknown",
    )
    broken(
        "param-enum-empty",
        "params",
        "No value is allowed.",
        {"params": [{**p, "constraints": {"enum": []}}]},
        "signature.params[0].constraints.enum",
    )
    broken(
        "param-minimum-text",
        "params",
        "A bound in quotes.",
        {"params": [{**p, "constraints": {"minimum": "0"}}]},
        "signature.params[0].constraints.minimum",
    )


def invalid_references() -> None:
    r = "03-manifest.md#references"
    missing = "reference-missing"
    files = {WEIGHTS: MODEL, "other": b"1"}

    def broken(id_: str, description: str, value: Any, path: str, code: str = missing, spec: str = r) -> None:
        reject(id_, spec, description, value, ("references", code, path), schema="accept")

    broken(
        "payload-file-unlisted",
        "A payload of a file that is not listed.",
        manifest(payloads=PAYLOAD),
        "payloads.native.files[0]",
    )
    entry = {"native": {**PAYLOAD["native"], "entry": "other"}}
    broken(
        "payload-entry-of-another",
        "An entry that is not one of the payload's files.",
        manifest(files, payloads=entry),
        "payloads.native.entry",
    )
    broken(
        "flavor-payload-missing",
        "A flavor of a payload that is not there.",
        manifest(flavors=USES),
        "flavors[0].payloads.model",
    )
    elsewhere = [{"name": "a", "code": ["other"]}]
    spec = "08-flavors.md#code"
    where = "flavors[0].code[0]"
    broken(
        "flavor-code-elsewhere",
        "Code not below code/.",
        manifest(files, flavors=elsewhere),
        where,
        "code-misplaced",
        spec,
    )
    broken(
        "flavor-code-unlisted",
        "Code that is not listed.",
        manifest(flavors=[{"name": "a", "code": ["code/a.py"]}]),
        "flavors[0].code[0]",
    )
    broken(
        "example-input-unlisted",
        "An input that is not listed.",
        manifest(examples=[{"name": "a", "input": "in"}]),
        "examples[0].input",
    )
    broken(
        "example-output-unlisted",
        "An output that is not listed.",
        manifest(files, examples=[{"name": "a", "input": "other", "output": "out"}]),
        "examples[0].output",
    )
    lock = {"locks": [{"kind": "pylock", "path": "environment/pylock.toml"}]}
    broken("lock-unlisted", "A lock that is not listed.", manifest(environment=lock), "environment.locks[0].path")
    again = [{"name": "a", "input": "other"}, {"name": "a", "input": "other"}]
    broken(
        "example-names-repeat",
        "Two examples of one name.",
        manifest(files, examples=again),
        "examples[1].name",
        "name-duplicate",
    )
    c = "04-digests.md#content-digest"
    wrong = "content-digest-mismatch"
    broken(
        "content-digest-wrong",
        "The digest of other files.",
        manifest(files, content_digest=sha256(b"")),
        "content_digest",
        wrong,
        c,
    )
    unsorted = sha256(b"".join(f"{e['digest'][7:]}  {e['path']}\n".encode() for e in reversed(entries(files))))
    broken(
        "content-digest-unsorted",
        "The digest of lines that are not sorted.",
        manifest(files, content_digest=unsorted),
        "content_digest",
        wrong,
        c,
    )


def invalid_paths() -> None:
    rules = "02-package.md#paths"

    def bad(id_: str, description: str, path: str, code: str, schema: str = "reject") -> None:
        value = manifest(files=[{"path": path, "size": 1, "digest": sha256(b"1"), "role": "other"}])
        reject(f"path-{id_}", rules, description, value, ("fields", f"path-{code}", "files[0].path"), schema=schema)

    bad("empty", "No characters.", "", "empty")
    bad("absolute", "It starts at the root.", "/etc/hosts", "absolute")
    bad("parent", "It leaves the package.", "../a", "traversal")
    bad("parent-inside", "It leaves a directory.", "a/../b", "traversal")
    bad("parent-last", "It ends with the parent.", "a/..", "traversal")
    bad("dot", "It is the package.", ".", "traversal")
    bad("dot-first", "A dot at the start.", "./a", "traversal")
    bad("dot-inside", "A dot in the middle.", "a/./b", "traversal")
    bad("double-slash", "An empty segment.", "a//b", "segment")
    bad("slash-last", "A slash at the end.", "a/", "segment")
    bad("backslash", "A backslash.", "a\\b", "character")
    bad("drive", "A drive.", "C:/a", "character")
    bad("stream", "A stream of a file.", "a:b", "character")
    for name, char in {"star": "*", "question": "?", "quote": '"', "less": "<", "greater": ">", "pipe": "|"}.items():
        bad(name, f"The character {char}", f"a{char}b", "character")
    bad("nul", "A NUL.", "a\x00b", "character")
    bad("line-feed", "A line feed.", "a\nb", "character")
    bad("line-feed-last", "A line feed at the end.", "a\n", "character")
    bad("delete", "DEL.", "a\x7fb", "character")
    bad("c1", "A control of C1.", "a\x85b", "character")
    bad("line-separator", "A line separator.", "a\u2028b", "character")
    bad("byte-order-mark", "A byte order mark.", "\ufeffa", "character")
    bad("bidirectional", "A name that is shown in another order.", "a\u202egpj.exe", "character")
    bad("isolate", "A bidirectional isolate.", "a\u2066b", "character")
    bad("decomposed", "Normalization form D.", "cafe\u0301", "normalization", "accept")
    bad("compatibility", "A character that form C replaces.", "\u212b", "normalization", "accept")
    bad("dot-last", "A dot at the end.", "a.", "segment")
    bad("dot-last-inside", "A dot at the end of a directory.", "a./b", "segment")
    bad("space-last", "A space at the end.", "a ", "segment")
    bad("space-first", "A space at the start.", "a/ b", "segment")
    bad("device", "A device.", "con", "reserved")
    bad("device-case", "A device in upper case, with an extension.", "a/NUL.txt", "reserved")
    bad("device-directory", "A device as a directory.", "lpt1/a", "reserved")
    bad("device-spaces", "A device, spaces and an extension.", "aux  .txt", "reserved")
    bad("device-superscript", "A device with a superscript digit.", "COM¹", "reserved")
    bad("manifest", "The manifest itself.", "modelpack.json", "reserved")
    bad("manifest-case", "The manifest in upper case.", "MODELPACK.JSON", "reserved")
    bad("manifest-directory", "The manifest as a directory.", "modelpack.json/a", "reserved")
    bad("signature", "A detached signature.", "model.sig", "reserved")
    bad("segment-too-long", "A segment of 256 bytes.", "a" * 256, "too-long", "accept")
    bad("segment-too-long-utf-8", "A segment of 128 letters in 256 bytes.", "é" * 128, "too-long", "accept")
    bad("too-long", "A path of 1025 bytes.", "/".join(["a" * 204] * 5) + "b", "too-long")
    value = manifest({WEIGHTS: MODEL}, payloads={"native": {"format": "x", "files": ["../a"]}})
    reject(
        "path-in-payload",
        rules,
        "The rules hold wherever a path stands.",
        value,
        ("fields", "path-traversal", "payloads.native.files[0]"),
    )
    value = manifest({"a": b"1"}, examples=[{"name": "a", "input": "/a"}])
    reject(
        "path-in-example",
        rules,
        "The rules hold wherever a path stands.",
        value,
        ("fields", "path-absolute", "examples[0].input"),
    )

    def clash(id_: str, description: str, paths: list[str], code: str = "path-clash", at: int = 1) -> None:
        value = manifest(files=[{**entries({p: b"1"})[0]} for p in paths])
        reject(id_, rules, description, value, ("references", code, f"files[{at}].path"), schema="accept")

    clash("path-twice", "A path twice.", ["a", "a"], "path-duplicate")
    clash("path-clash-case", "Two paths that differ in case.", ["a/README.md", "b", "a/readme.md"], at=2)
    clash("path-clash-folding", "Two paths that are alike under full case folding.", ["straße", "STRASSE"])
    clash("path-clash-file-directory", "A file that is a directory.", ["a", "a/b"])
    clash("path-clash-directory-file", "A directory that is a file.", ["a/b/c", "a/b"])
    clash("path-clash-file-directory-case", "A file that is a directory in another case.", ["A", "a/b"])
    clash("path-clash-directories", "Two directories that differ in case.", ["A/x", "a/y"])
    clash(
        "path-clash-directories-folding",
        "Two directories that are alike under full case folding.",
        ["straße/x", "strasse/y"],
    )


def invalid_files() -> None:
    closed, kinds = "02-package.md#closed-world", "02-package.md#file-kinds"
    files = {"a": b"1", "dir/b": b"2"}
    good = manifest(files)

    def broken(
        id_: str, spec: str, description: str, code: str, path: str, there: dict[str, bytes], **more: Any
    ) -> None:
        value = more.pop("value", good)
        reject(id_, spec, description, value, ("files", code, path), there, schema="accept", **more)

    broken("file-missing", closed, "A listed file is not there.", "file-missing", "dir/b", {"a": b"1"})
    broken(
        "file-missing-directory",
        closed,
        "A directory stands where a file should be.",
        "file-missing",
        "a",
        {"dir/b": b"2"},
        build=[{"mkdir": "a"}],
    )
    extra = "file-unexpected"
    broken("file-extra", closed, "A file that is not listed.", extra, "dir/c", {**files, "dir/c": b""})
    broken("file-extra-dot", closed, "A file that starts with a dot.", extra, ".extra", {**files, ".extra": b"1"})
    broken(
        "file-extra-git",
        closed,
        "There is no ignore list.",
        extra,
        ".git/config",
        files,
        build=[{"write": ".git/config", "text": ""}],
    )
    broken(
        "file-extra-bytecode",
        closed,
        "Byte code beside source.",
        extra,
        "dir/__pycache__/m.pyc",
        files,
        build=[{"write": "dir/__pycache__/m.pyc", "text": "x"}],
    )
    broken(
        "file-extra-signature-below",
        closed,
        "A signature that is not at the top.",
        extra,
        "dir/model.sig",
        {**files, "dir/model.sig": b"1"},
    )
    broken(
        "file-extra-not-utf-8",
        closed,
        "A name that is not UTF-8.",
        extra,
        "dir/\\xff",
        files,
        build=[{"write_name_base64": b64encode(b"dir/\xff").decode(), "text": "x"}],
    )
    broken("file-longer", closed, "A byte more than stated.", "size-mismatch", "a", {**files, "a": b"1\n"})
    broken("file-shorter", closed, "A byte less than stated.", "size-mismatch", "dir/b", {**files, "dir/b": b""})
    broken("file-changed", closed, "Other bytes of the same size.", "digest-mismatch", "a", {**files, "a": b"2"})
    broken(
        "files-swapped",
        closed,
        "Two files changed places; the first is reported first.",
        "digest-mismatch",
        "a",
        {"a": b"2", "dir/b": b"1"},
    )
    upper = manifest({"a": b"1"})
    broken("file-other-case", closed, "The file has another case.", extra, "A", {"A": b"1"}, value=upper)
    cafe = manifest({"café": b"1"})
    broken(
        "file-decomposed",
        closed,
        "The file's name is in form D.",
        extra,
        "cafe\u0301",
        {},
        value=cafe,
        build=[{"write_name_base64": b64encode(b"cafe\xcc\x81").decode(), "text": "1"}],
    )
    kind = "file-kind"
    broken(
        "link-to-listed-content",
        kinds,
        "A link to a file with the right bytes.",
        kind,
        "a",
        {"dir/b": b"2"},
        build=[{"write": "../outside", "text": "1"}, {"symlink": ["../outside", "a"]}],
    )
    broken(
        "link-inside",
        kinds,
        "A link inside the package that is not listed.",
        kind,
        "c",
        files,
        build=[{"symlink": ["a", "c"]}],
    )
    broken("link-dangling", kinds, "A link to nothing.", kind, "c", files, build=[{"symlink": ["nothing", "c"]}])
    broken(
        "link-to-directory",
        kinds,
        "A directory that is a link.",
        kind,
        "dir",
        {"a": b"1"},
        build=[{"write": "../other/b", "text": "2"}, {"symlink": ["../other", "dir"]}],
    )
    broken("link-loop", kinds, "A link to the package.", kind, "dir/up", files, build=[{"symlink": ["..", "dir/up"]}])
    broken(
        "link-as-signature",
        kinds,
        "A detached signature that is a link.",
        kind,
        "model.sig",
        files,
        build=[{"symlink": ["a", "model.sig"]}],
    )
    broken("fifo", kinds, "A FIFO that is not listed.", kind, "c", files, build=[{"fifo": "c"}])
    broken("fifo-listed", kinds, "A FIFO where a file should be.", kind, "a", {"dir/b": b"2"}, build=[{"fifo": "a"}])
    broken("socket", kinds, "A socket.", kind, "c", files, build=[{"socket": "c"}])


def invalid_loads() -> None:
    order, trust, choice = "09-trust.md#order-of-loading", "09-trust.md#trust-classes", "08-flavors.md#choice"
    payload = "payloads/native/model.bin"

    def broken(
        id_: str,
        spec: str,
        description: str,
        code: str,
        path: str,
        raw: bytes | None,
        format_: str = "skops",
        flavors: list[dict[str, Any]] | None = None,
        sources: dict[str, bytes] | None = None,
        **fields: Any,
    ) -> None:
        files = dict(sources or {})
        if raw is not None:
            files[payload] = raw
            fields.setdefault("payloads", {"native": {"format": format_, "files": [payload], "entry": payload}})
        uses = [{"name": "sklearn", "payloads": {"model": "native"}}]
        value = manifest(files, flavors=flavors or uses, **fields)
        reject(f"load-{id_}", spec, description, value, ("load", code, path), files, schema="accept")

    denied = "code-not-allowed"
    # Pickles of the empty list: nothing in these vectors does anything, were it loaded.
    nothing = b"\x80\x04]."
    source = {"code/hello.py": b"def greet(data, params):\n    return len(data)\n"}
    python = [{"name": "python", "entrypoint": "hello:greet", "code": ["code/hello.py"]}]
    unlisted = skops(__class__="Thing", __module__="example.module", __loader__="ObjectNode", content=None)
    function = skops(__class__="getcwd", __module__="os", __loader__="FunctionNode", content=...)
    broken("pickle", trust, "A pickle that nobody has allowed.", denied, "flavors[0]", nothing, "pickle")
    broken(
        "cloudpickle",
        trust,
        "A cloudpickle that nobody has allowed.",
        denied,
        "flavors[0]",
        nothing,
        "cloudpickle",
        [{"name": "python", "payloads": {"model": "native"}}],
    )
    broken(
        "source",
        trust,
        "Source code that nobody has allowed.",
        denied,
        "flavors[0]",
        None,
        flavors=python,
        sources=source,
    )
    broken(
        "skops-unlisted-type", "09-trust.md#audits", "A type that is not on the list.", denied, "flavors[0]", unlisted
    )
    broken(
        "skops-unlisted-function",
        "09-trust.md#audits",
        "A function that is not on the list.",
        denied,
        "flavors[0]",
        function,
    )
    wrong_kind = skops(
        __class__="LogisticRegression",
        __module__="sklearn.linear_model._logistic",
        __loader__="FunctionNode",
        content=...,
    )
    broken(
        "skops-wrong-kind",
        "09-trust.md#audits",
        "A listed type, stored as a function.",
        denied,
        "flavors[0]",
        wrong_kind,
    )
    broken(
        "skops-unknown-node",
        "09-trust.md#audits",
        "A kind of node nobody knows.",
        denied,
        "flavors[0]",
        skops(__loader__="LaterNode"),
    )
    claims = {
        "native": {
            "format": "skops",
            "files": [payload],
            "entry": payload,
            "declares": {"types": ["example.module.Thing"]},
        }
    }
    trusting = [
        {
            "name": "sklearn",
            "payloads": {"model": "native"},
            "config": {"trusted": ["example.module.Thing"], "trust": "data"},
        }
    ]
    broken(
        "trust-claimed",
        trust,
        "A package that says that its types are trusted.",
        denied,
        "flavors[0]",
        unlisted,
        flavors=trusting,
        payloads=claims,
        extensions={"org.example/trust": {"class": "data"}},
    )
    with_code = [{"name": "sklearn", "payloads": {"model": "native"}, "code": ["code/hello.py"]}]
    broken(
        "objects-with-code",
        trust,
        "Harmless objects, with source code beside.",
        denied,
        "flavors[0]",
        skops(),
        flavors=with_code,
        sources=source,
    )
    two = [{"name": "sklearn", "payloads": {"model": "native", "more": "other"}}]
    files = {"payloads/other/model.bin": nothing}
    both = {
        "native": {"format": "skops", "files": [payload], "entry": payload},
        "other": {"format": "pickle", "files": ["payloads/other/model.bin"]},
    }
    broken(
        "highest-class",
        trust,
        "Harmless objects and a pickle in one flavor.",
        denied,
        "flavors[0]",
        skops(),
        flavors=two,
        payloads=both,
        sources=files,
    )
    invalid, home = "payload-invalid", "model.bin"
    audits = "09-trust.md#audits"
    broken(
        "pickle-called-skops",
        "09-trust.md#order-of-loading",
        "A pickle that says it is skops: no fallback.",
        invalid,
        home,
        nothing,
    )
    broken("skops-truncated", audits, "Half an archive.", invalid, home, skops()[:-30])
    broken("skops-not-json", audits, "A schema that is not JSON.", invalid, home, archive(("schema.json", b"{]")))
    broken(
        "skops-duplicate-key",
        audits,
        "A schema with a key twice.",
        invalid,
        home,
        archive(("schema.json", b'{"protocol": 2, "protocol": 2}')),
    )
    broken(
        "skops-member-unused",
        audits,
        "A member that the schema does not name.",
        invalid,
        home,
        skops(("extra.bin", b"x")),
    )
    broken("skops-member-path", audits, "A member with a path.", invalid, home, skops(("../x.npy", b"x")))
    broken("skops-protocol", audits, "A later protocol.", invalid, home, skops(protocol=3))
    broken("bytes-behind-archive", audits, "Bytes behind the archive.", invalid, home, skops() + b"#")
    unavailable = "flavor-unavailable"
    broken(
        "format-unknown", choice, "A payload in a format nobody knows.", unavailable, "flavors", b"x", "example-format"
    )
    broken(
        "flavor-unknown",
        choice,
        "A flavor that is not installed.",
        unavailable,
        "flavors",
        skops(),
        flavors=[{"name": "no-such-flavor", "payloads": {"model": "native"}}],
    )
    broken(
        "flavor-without-anything",
        choice,
        "A flavor without payload or code.",
        unavailable,
        "flavors",
        None,
        flavors=[{"name": "python"}],
    )
    newer = [{"name": "sklearn", "version": "999999999", "payloads": {"model": "native"}}]
    broken(
        "flavor-version",
        choice,
        "A newer version of a flavor.",
        "flavor-version",
        "flavors[0].version",
        skops(),
        flavors=newer,
    )
    other = [{"name": "python", "payloads": {"model": "native"}}]
    broken(
        "format-of-another-flavor",
        choice,
        "A payload that the flavor does not load.",
        "format-unsupported",
        "flavors[0].payloads",
        skops(),
        flavors=other,
    )
    environment, check = "environment-mismatch", "10-environment.md#check"
    broken(
        "python-version",
        check,
        "It needs another Python.",
        environment,
        "environment",
        skops(),
        environment={"python": {"requires": "<3"}},
    )
    broken(
        "python-specifier",
        check,
        "What it needs of Python cannot be read.",
        environment,
        "environment",
        skops(),
        environment={"python": {"requires": "three"}},
    )
    missing = {"critical": ["no-such-distribution"], "captured": {"no-such-distribution": "1.0"}}
    broken(
        "critical-missing",
        check,
        "A critical distribution is not installed.",
        environment,
        "environment",
        skops(),
        environment=missing,
    )
    old = {"critical": ["NumPy"], "captured": {"numpy": "0.1"}}
    broken(
        "critical-series",
        check,
        "A critical distribution of another release series.",
        environment,
        "environment",
        skops(),
        environment=old,
    )
    broken(
        "environment-before-audit",
        order,
        "The environment is compared before payloads are looked at.",
        environment,
        "environment",
        b"x",
        environment=missing,
    )


def invalid_defaults() -> None:
    files = {"payloads/native/model.bin": skops()}
    payload = {"native": {"format": "skops", "files": list(files), "entry": "payloads/native/model.bin"}}
    uses = [{"name": "sklearn", "payloads": {"model": "native"}}]
    for id_, description, param in [
        ("type", "A default of another type.", {"name": "p", "type": "int8", "default": "1"}),
        ("range", "A default that the type cannot hold.", {"name": "p", "type": "int8", "default": 128}),
        (
            "constraint",
            "A default outside its constraints.",
            {"name": "p", "type": "int8", "default": 1, "constraints": {"minimum": 2}},
        ),
    ]:
        value = manifest(
            files, payloads=payload, flavors=uses, signature={"params": [{"name": "q", "type": "bool"}, param]}
        )
        where = ("load", "param-invalid", "signature.params[1].default")
        reject(f"load-default-{id_}", "05-signature.md#params", description, value, where, files, schema="accept")


def invalid_newer() -> None:
    minor = "11-versioning.md#minor-versions"

    def broken(id_: str, description: str, path: str, code: str = "field-invalid", **fields: Any) -> None:
        reject(id_, minor, description, manifest(modelpack="1.4", **fields), ("fields", code, path))

    at = "signature.inputs.columns[0].type"
    broken("newer-minor-type", "A type that only the newer version has.", at, signature=column("int128"))
    later = column({"kind": "later", "of": "int8"})
    broken("newer-minor-kind", "A kind of type that only the newer version has.", at, signature=later)
    entry = {**entries({"a": b"1"})[0], "role": "later"}
    broken("newer-minor-role", "A role that only the newer version has.", "files[0].role", files=[entry])
    broken("newer-minor-fault", "An unknown property, and a real fault behind it.", "version", version=2, a_later_one=1)
    broken("newer-minor-missing", "What is REQUIRED stays so.", "name", "field-missing", name=None, a_later_one=1)


def freeze() -> None:
    """List what is there, for the suite to see that it stays."""
    files = sorted(
        (p for p in VECTORS.rglob("*") if p.is_file() and p.name != "SHA256SUMS"),
        key=lambda p: p.relative_to(VECTORS).as_posix().encode(),
    )
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(VECTORS).as_posix()}\n" for p in files]
    (VECTORS / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    valid_manifests()
    whole()
    valid_signatures()
    valid_packages()
    valid_documents()
    invalid_documents()
    invalid_versions()
    invalid_fields()
    invalid_signatures()
    invalid_references()
    invalid_paths()
    invalid_files()
    invalid_loads()
    invalid_defaults()
    invalid_newer()
    hostile_payloads()
    freeze()


if __name__ == "__main__":
    sys.exit(main())
