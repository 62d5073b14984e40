"""Models of transformers: written as data, built without a directory, a name or the network; hostile ones refused."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import modelpack
from modelpack.errors import FlavorError, InputError, ModelError, PackageError, SaveError, UsageError
from modelpack.manifest import content_digest
from modelpack.trust import Store
from modelpack_server.app import build

_SPEC = importlib.util.spec_from_file_location("cases_of_transformers", Path(__file__).parent / "cases/transformers.py")
assert _SPEC is not None and _SPEC.loader is not None
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give packages of the cases, each saved once."""
    root, made = tmp_path_factory.mktemp("packages"), dict[str, Path]()

    def package(name: str) -> Path:
        if name not in made:
            one = cases.CASES[name]()
            made[name] = modelpack.save(one.model, root / name, example=one.example, options=one.options).path
        return made[name]

    return package


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", sorted(cases.CASES))
def test_rows_alone_are_answered_as_together_and_nothing_is_fetched(
    packages: Callable[[str], Path], no_network: None, name: str
) -> None:
    model = modelpack.load(packages(name))
    example = cases.CASES[name]().example
    together = model.predict(example)
    for row in range(len(example)):
        alone = model.predict(example[row : row + 1])
        if isinstance(alone, np.ndarray):
            np.testing.assert_array_equal(alone[0], together[row])
        else:
            assert {key: list(found) for key, found in alone.items()} == {
                key: [found[row]] for key, found in together.items()
            }


def test_batches_of_texts_change_no_label_and_numbers_by_rounding_only(tmp_path: Path) -> None:
    one = cases.classification()
    modelpack.save(one.model, tmp_path / "m", example=one.example, options={"batch_size": 3})
    found = modelpack.load(tmp_path / "m").predict(one.example)
    assert found["label"] == one.answer["label"]
    np.testing.assert_allclose(found["score"], one.answer["score"], rtol=1e-5)
    one = cases.features()
    modelpack.save(one.model, tmp_path / "f", example=one.example, options={**one.options, "batch_size": 3})
    np.testing.assert_allclose(modelpack.load(tmp_path / "f").predict(one.example), one.answer, rtol=1e-3, atol=1e-5)


def test_a_package_says_what_it_builds_and_needs_no_grant(packages: Callable[[str], Path], tmp_path: Path) -> None:
    package = modelpack.open(packages("generation"))
    (candidate,) = package.plan(store=Store(tmp_path / "none")).candidates
    assert (candidate.trust, candidate.ready, candidate.runs) == ("objects", True, ())
    assert package.manifest.payloads["native"].format == "transformers"
    assert [one.name for one in package.manifest.signature.params][:2] == ["max_new_tokens", "do_sample"]


def test_transformers_itself_opens_the_payload(packages: Callable[[str], Path]) -> None:
    folder = packages("classification") / "payloads/native"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    words = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    one = cases.classification()
    with torch.inference_mode():
        found = [model(**words(text, return_tensors="pt")).logits.argmax().item() for text in cases.TEXTS]
    assert [cases.LABELS[i] for i in found] == one.answer["label"]


def test_one_request_over_http(packages: Callable[[str], Path]) -> None:
    app = build(modelpack.load(packages("classification")))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://model") as client:
            return await client.post("/invocations", json={"dataframe_records": [{"text": one} for one in cases.TEXTS]})

    reply = asyncio.run(ask())
    app.state.invocations.close()
    assert reply.status_code == 200
    assert [row["label"] for row in reply.json()["predictions"]] == cases.classification().answer["label"]


def test_generating_obeys_its_params(packages: Callable[[str], Path]) -> None:
    model = modelpack.load(packages("generation"))
    rows = pd.DataFrame({"text": ["Once upon"]})
    (short,) = model.predict(rows, {"max_new_tokens": 4})["generated_text"]
    (long,) = model.predict(rows, {"max_new_tokens": 8})["generated_text"]
    assert long.startswith(short) and len(long) > len(short)
    (full,) = model.predict(rows, {"max_new_tokens": 4, "return_full_text": True})["generated_text"]
    assert full == "Once upon" + short
    chance = {"max_new_tokens": 8, "do_sample": True, "temperature": 5.0}
    drawn = [model.predict(rows, {**chance, "seed": seed})["generated_text"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_stream_is_the_answer_in_pieces(packages: Callable[[str], Path]) -> None:
    model = modelpack.load(packages("generation"))
    assert model.streams and not modelpack.load(packages("masks")).streams
    rows = pd.DataFrame({"text": ["Once upon"]})
    assert "".join(model.predict_stream(rows)) == model.predict(rows)["generated_text"][0]
    full = {"return_full_text": True, "max_new_tokens": 4}
    assert "".join(model.predict_stream(rows, full)) == model.predict(rows, full)["generated_text"][0]


def test_a_stream_that_is_left_ends_its_work(packages: Callable[[str], Path]) -> None:
    model = modelpack.load(packages("generation"))
    rows = pd.DataFrame({"text": ["Once upon a"]})
    pieces = model.predict_stream(rows, {"max_new_tokens": 64})
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    # The lock is free again, and the model answers.
    assert model.predict(rows)["generated_text"]


def test_params_of_other_tasks(packages: Callable[[str], Path]) -> None:
    masks = modelpack.load(packages("masks"))
    assert len(masks.predict({"text": ["it was [MASK]"]}, {"top_k": 2})["candidates"][0]) == 2
    tokens = modelpack.load(packages("tokens"))
    each = tokens.predict({"text": ["Anna lives"]}, {"aggregation_strategy": "none"})["entities"][0]
    assert {"entity", "word", "score", "start", "end"} == set(each[0])
    zero = modelpack.load(packages("zero-shot"))
    found = zero.predict({"text": ["a film"]}, {"multi_label": True})
    assert float(found["score_film"][0] + found["score_paris"][0]) != pytest.approx(1.0)
    classes = modelpack.load(packages("classification"))
    assert (
        classes.predict({"text": ["a film"]}, {"function_to_apply": "sigmoid"})["label"]
        == classes.predict({"text": ["a film"]})["label"]
    )


@pytest.mark.parametrize(("pooling", "shape"), [("first", (4, 32)), ("none", None)])
def test_poolings(tmp_path: Path, pooling: str, shape: Any) -> None:
    one = cases.features()
    modelpack.save(one.model, tmp_path / "m", example=one.example, options={**one.options, "pooling": pooling})
    found = modelpack.load(tmp_path / "m").predict(one.example)
    if shape is not None:
        assert found.shape == shape
    else:
        counts = [len(ids) for ids in cases.tokenizer()(cases.TEXTS)["input_ids"]]
        assert [len(row) for row in found["features"]] == counts


def test_a_text_that_is_too_long_is_refused_by_row_or_cut_if_asked(
    packages: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = {"text": ["a film", "a " * 70]}
    with pytest.raises(InputError) as info:
        modelpack.load(packages("classification")).predict(rows)
    assert (info.value.code, info.value.path) == ("text-too-long", "text[1]")
    one = cases.classification()
    modelpack.save(one.model, tmp_path / "cut", example=one.example, options={"truncation": True})
    assert len(modelpack.load(tmp_path / "cut").predict(rows)["label"]) == 2
    with pytest.raises(InputError) as info:
        modelpack.load(packages("generation")).predict({"text": ["a" * 70]}, {"max_new_tokens": 27})
    assert info.value.code == "text-too-long"


@pytest.mark.parametrize(
    ("name", "rows", "code"),
    [
        ("masks", {"text": ["no mask"]}, "value-refused"),
        ("generation", {"text": [""]}, "value-refused"),
    ],
)
def test_texts_that_a_task_cannot_take(packages: Callable[[str], Path], name: str, rows: Any, code: str) -> None:
    with pytest.raises(InputError) as info:
        modelpack.load(packages(name)).predict(rows)
    assert info.value.code == code


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"batch_size": 0}, "options.batch_size"),
        ({"device": "toaster"}, "options.device"),
        ({"pooling": "max"}, "options.pooling"),
        ({"scores": "some"}, "options.scores"),
        ({"task": "chat"}, "options.task"),
        ({"truncation": 1}, "options.truncation"),
        ({"task": "fill-mask", "scores": "all"}, "options.scores"),
        ({"candidate_labels": []}, "options.candidate_labels"),
        ({"hypothesis_template": "{0.__class__} {}"}, "options.hypothesis_template"),
    ],
)
def test_options_that_are_none(tmp_path: Path, options: Any, path: str) -> None:
    with pytest.raises(UsageError) as info:
        modelpack.save(cases.classification().model, tmp_path / "m", options=options)
    assert (info.value.code, info.value.path) == ("option-invalid", path)


def test_a_bare_model_needs_a_tokenizer_and_one_in_json(tmp_path: Path) -> None:
    model = cases.features().model
    with pytest.raises(UsageError, match="tokenizer"):
        modelpack.save(model, tmp_path / "m")
    with pytest.raises(SaveError) as info:
        modelpack.save(model, tmp_path / "m", options={"tokenizer": object()})
    assert info.value.code == "model-unsupported"
    zero = cases.zero_shot().model
    with pytest.raises(UsageError) as usage:
        modelpack.save(zero, tmp_path / "m")
    assert usage.value.path == "options.candidate_labels"


def test_a_model_of_ones_own_is_not_written_as_one_of_the_library(tmp_path: Path) -> None:
    class Own(transformers.BertModel):
        pass

    model = Own(cases.features().model.config)
    with pytest.raises(SaveError) as info:
        modelpack.save(model, tmp_path / "m", options={"tokenizer": cases.tokenizer()})
    assert info.value.code == "model-unsupported"


def changed(package: Path, target: Path, file: str, change: Callable[[Any], Any]) -> Path:
    """Copy a package with one JSON file of its payload changed, or a file added, and a manifest that fits."""
    shutil.copytree(package, target)
    place = target / "payloads/native" / file
    value = change(json.loads(place.read_bytes()) if place.suffix == ".json" and place.exists() else None)
    place.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    manifest = json.loads((target / "modelpack.json").read_bytes())
    name = f"payloads/native/{file}"
    if name not in manifest["payloads"]["native"]["files"]:
        manifest["payloads"]["native"]["files"] = sorted([*manifest["payloads"]["native"]["files"], name])
        manifest["files"].append({"path": name, "role": "payload"})
    import hashlib

    from modelpack.manifest import FileEntry

    for entry in manifest["files"]:
        raw = (target / entry["path"]).read_bytes()
        entry |= {"size": len(raw), "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"}
    manifest["files"].sort(key=lambda entry: entry["path"].encode())
    manifest["content_digest"] = content_digest([FileEntry.model_validate(entry) for entry in manifest["files"]])
    (target / "modelpack.json").write_text(json.dumps(manifest))
    return target


MARK = b"import pathlib; pathlib.Path('ran').write_text('ran')\n"
HOSTILE: list[Any] = [
    ("config.json", lambda c: {**c, "auto_map": {"AutoModel": "modeling_own.Own"}}, "config.json#auto_map"),
    ("config.json", lambda c: {**c, "custom_pipelines": {}}, "config.json#custom_pipelines"),
    ("config.json", lambda c: {**c, "quantization_config": {"quant_method": "x"}}, "config.json#quantization_config"),
    ("config.json", lambda c: {**c, "_attn_implementation": "org/own"}, "config.json#_attn_implementation"),
    ("config.json", lambda c: {**c, "attn_implementation": "org/own"}, "config.json#attn_implementation"),
    ("config.json", lambda c: {**c, "_name_or_path": "org/own"}, "config.json#_name_or_path"),
    ("config.json", lambda c: {**c, "hidden_act": "org/own:gelu"}, "config.json#hidden_act"),
    ("config.json", lambda c: {**c, "dtype": "load"}, "config.json#dtype"),
    ("config.json", lambda c: {**c, "model_type": "own"}, "config.json#model_type"),
    ("config.json", lambda c: {**c, "model_type": ["bert"]}, "config.json#model_type"),
    ("config.json", lambda c: {**c, "architectures": ["Pipeline"]}, "config.json#architectures"),
    ("config.json", lambda c: {**c, "architectures": ["GPT2Model"]}, "config.json#architectures"),
    ("config.json", lambda c: {**c, "num_hidden_layers": 10**6}, "config.json#num_hidden_layers"),
    ("config.json", lambda c: {**c, "hidden_size": 2**40}, "config.json#hidden_size"),
    ("config.json", lambda c: {**c, "rope_parameters": {"a": {"b": {"c": {"d": {"e": 1}}}}}},
     "config.json#rope_parameters"),
    ("config.json", lambda c: {**c, "id2label": {"x": "y"}}, "config.json#id2label"),
    ("config.json", lambda c: [c], "config.json"),
    ("generation_config.json", lambda c: {"watermarking_config": {}}, "generation_config.json#watermarking_config"),
    ("generation_config.json", lambda c: {"eos_token_id": {}}, "generation_config.json#eos_token_id"),
    ("tokenizer_config.json", lambda c: {**c, "auto_map": {}}, "tokenizer_config.json#auto_map"),
    ("tokenizer_config.json", lambda c: {**c, "tokenizer_class": "Own"}, "tokenizer_config.json#tokenizer_class"),
    ("tokenizer_config.json", lambda c: {**c, "chat_template": "{{ x }}"}, "tokenizer_config.json#chat_template"),
    ("tokenizer.json", lambda c: {**c, "pre_tokenizer": {"type": "Own"}}, "tokenizer.json#pre_tokenizer"),
    ("tokenizer.json", lambda c: {**c, "padding": {"strategy": {"Fixed": 10**12}}}, "tokenizer.json#padding"),
    ("tokenizer.json", lambda c: {**c, "model": None}, "tokenizer.json#model"),
    ("tokenizer.json", lambda c: {**c, "added_tokens": [{"id": -1}]}, "tokenizer.json#added_tokens"),
    ("tokenizer.json", lambda c: {**c, "own": 1}, "tokenizer.json#own"),
    ("modeling_own.py", lambda c: MARK, "modeling_own.py"),
    ("pytorch_model.bin", lambda c: b"cos\nsystem\n(S'touch ran'\ntR.", "pytorch_model.bin"),
    ("tokenizer.pkl", lambda c: b"cos\nsystem\n(S'touch ran'\ntR.", "tokenizer.pkl"),
    ("spiece.model", lambda c: b"x", "spiece.model"),
    ("chat_template.jinja", lambda c: b"{{ x }}", "chat_template.jinja"),
    ("adapter_config.json", lambda c: {"base_model_name_or_path": "org/own"}, "adapter_config.json"),
    ("model.safetensors.index.json", lambda c: {"weight_map": {}}, "model.safetensors.index.json"),
    ("custom_generate/generate.py", None, "custom_generate/generate.py"),
    ("model.safetensors", lambda c: b"x" * 64, "model.safetensors"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "path"), HOSTILE, ids=[f"{i}-{one[2]}" for i, one in enumerate(HOSTILE)])
def test_hostile_directories_are_refused_before_transformers_sees_them(
    packages: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_network: None,
    file: str,
    change: Any,
    path: str,
) -> None:
    whole = packages("classification")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.BertForSequenceClassification, "from_pretrained", None)
    if change is None:
        (tmp_path / "x").mkdir()
        shutil.copytree(whole, tmp_path / "x/base")
        (tmp_path / "x/base/payloads/native/custom_generate").mkdir()
        package = changed(tmp_path / "x/base", tmp_path / "bad", file, lambda c: MARK)
    else:
        package = changed(whole, tmp_path / "bad", file, change)
    opened = modelpack.open(package)
    for attempt in (opened.plan, lambda: modelpack.load(opened, allow_code=opened.digest)):
        with pytest.raises(PackageError) as info:
            attempt()
        assert (info.value.code, info.value.path) == ("payload-invalid", path)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda c: {**c, "num_hidden_layers": 3}),
        ("config.json", lambda c: {**c, "num_hidden_layers": 1}),
        ("config.json", lambda c: {**c, "vocab_size": 20}),
        ("config.json", lambda c: {**c, "hidden_act": "nothing"}),
        ("tokenizer.json", lambda c: {**c, "model": {"type": "WordPiece", "vocab": {"x": 99}, "unk_token": "x",
                                                    "continuing_subword_prefix": "##",
                                                    "max_input_chars_per_word": 9}}),
        ("tokenizer.json", lambda c: {**c, "model": {"type": "WordPiece", "vocab": {}, "what": 1}}),
        # A panic of the library, which is no Exception.
        ("tokenizer.json", lambda c: {**c, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "//////8="}}),
        ("tokenizer_config.json", lambda c: {**c, "pad_token": "nowhere"}),
    ],
)  # fmt: skip
def test_parts_that_do_not_belong_together_are_refused(
    packages: Callable[[str], Path], tmp_path: Path, file: str, change: Any
) -> None:
    package = changed(packages("classification"), tmp_path / "bad", file, change)
    with pytest.raises(PackageError) as info:
        modelpack.load(package)
    assert info.value.code == "payload-invalid"


def test_a_panic_of_the_tokenizer_is_a_failure_of_the_model(packages: Callable[[str], Path], tmp_path: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a|a|aa)+$"}, "behavior": "Isolated", "invert": False}
    package = changed(packages("classification"), tmp_path / "bad", "tokenizer.json",
                      lambda c: {**c, "normalizer": None, "pre_tokenizer": split})  # fmt: skip
    model = modelpack.load(package)
    with pytest.raises(ModelError) as info:
        model.predict(["a" * 40 + "!"])
    assert info.value.code == "model-raised"


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({}, "flavors.config.task"),
        ({"task": "text-classification", "own": 1}, "flavors.config.own"),
        ({"task": "zero-shot-classification"}, "flavors.config.candidate_labels"),
        ({"task": "text-classification", "column": 3}, "flavors.config.column"),
        ({"task": "text-classification", "device": "org/own"}, "flavors.config.device"),
    ],
)
def test_a_config_that_is_none(packages: Callable[[str], Path], tmp_path: Path, config: Any, path: str) -> None:
    shutil.copytree(packages("classification"), tmp_path / "m")
    manifest = json.loads((tmp_path / "m/modelpack.json").read_bytes())
    manifest["flavors"][0]["config"] = config
    (tmp_path / "m/modelpack.json").write_text(json.dumps(manifest))
    with pytest.raises(FlavorError) as info:
        modelpack.load(tmp_path / "m")
    assert (info.value.code, info.value.path) == ("config-invalid", path)


def test_without_the_library_the_message_says_what_to_install(
    packages: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"modelpack\[transformers\]"):
        modelpack.load(packages("classification"), environment_policy="ignore")
