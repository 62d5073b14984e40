"""Runs the steps of an exported Dockerfile in a clean root, and the server that it describes.

Each stage is an overlay over the base, so what a stage adds is a directory whose size can be told. The installer gets
the machine's own settings (its PIP_ variables, configuration and certificates) while a step runs, never the image. The
server runs in namespaces of its own: nothing of the machine's network, a read-only root, the user of the Dockerfile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEREDOC = re.compile(r"<<'(\w+)'")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MLFLOW = "mlflow==3.17.2"
SAVE = """
import sys, modelpack
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
x, y = load_breast_cancer(return_X_y=True)
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
modelpack.save(model, sys.argv[1], example=x[:3], name="cancer", version="1")
"""


@dataclass(kw_only=True)
class Step:
    """One instruction; ``text`` is what a heredoc holds."""

    word: str
    rest: str
    text: str | None = None


@dataclass(kw_only=True)
class Stage:
    """What begins with FROM: its base, its name and its steps."""

    base: str
    name: str | None
    steps: list[Step] = field(default_factory=list)

    def last(self, word: str) -> str | None:
        """Return what the last instruction of this kind says."""
        return next((step.rest for step in reversed(self.steps) if step.word == word), None)


def parse(text: str) -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments before the first stage and the stages; ``${NAME}`` of these is filled in."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        while line.endswith("\\"):
            line = line[:-1].rstrip() + " " + next(lines).strip()
        word, _, rest = line.partition(" ")
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            base, _, name = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest).partition(" AS ")
            stages.append(Stage(base=base, name=name or None))
        else:
            stages[-1].steps.append(Step(word=word, rest=rest, text=_heredoc(rest, lines)))
    return arguments, stages


def _heredoc(rest: str, lines: Iterator[str]) -> str | None:
    match = HEREDOC.search(rest)
    if match is None:
        return None
    held = []
    for line in lines:
        if line == match[1]:
            return "".join(f"{one}\n" for one in held)
        held.append(line)
    raise SystemExit(f"the heredoc {match[1]} has no end")


def environment(stage: Stage) -> dict[str, str]:
    """Return what ENV sets, over the path that an image has."""
    found = {"PATH": PATH}
    for step in stage.steps:
        for word in shlex.split(step.rest) if step.word == "ENV" else ():
            name, _, value = word.partition("=")
            found[name] = re.sub(r"\$(\w+)", lambda match: found.get(match[1], ""), value)
    return found


@contextlib.contextmanager
def overlay(base: Path, place: Path) -> Iterator[Path]:
    """Yield a root that is the base with what ``place/layer`` holds over it; writing into it fills the layer."""
    for name in ("layer", "work", "root"):
        (place / name).mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={base},upperdir={place / 'layer'},workdir={place / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place / "root"], check=True)
    try:
        yield place / "root"
    finally:
        subprocess.run(["umount", "--recursive", place / "root"], check=True)


def lent() -> tuple[dict[str, str], list[Path]]:
    """Return the variables by which this machine's installer is set up, and the files and directories they name."""
    variables = {
        name: value for name, value in os.environ.items() if re.match(r"PIP_|SSL_|REQUESTS_CA|.*_proxy$", name)
    }
    places = {Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/ssl/certs"), *map(Path, variables.values())}
    for config in (Path("/etc/pip.conf"), Path("/etc/xdg/pip"), Path.home() / ".config" / "pip"):
        for file in [config, *config.glob("*")] if config.exists() else ():
            places.add(config)
            if file.is_file():
                places |= {Path(word) for word in re.findall(r"(?:file://|=\s*)(/[\w./-]+)", file.read_text())}
                places |= {Path(word) for word in re.findall(r"file://(/[\w./-]+)", file.read_text())}
    # An index in a directory has its files beside it.
    places |= {place.parent for place in places if place.name == "simple"}
    return variables, sorted(place for place in places if place.is_absolute() and place.exists() and place != Path("/"))


@contextlib.contextmanager
def lending(root: Path, more: Sequence[Path]) -> Iterator[dict[str, str]]:
    """Lay this machine's settings for installers into a root for as long as a step runs; yield its variables."""
    variables, places = lent()
    mounted: list[Path] = []
    made: list[Path] = []
    try:
        for place in [*places, *more, Path("/proc"), Path("/dev")]:
            target = root / str(place).lstrip("/")
            if not target.exists():
                top = next(one for one in [*reversed(target.parents), target] if not one.exists())
                made.append(top)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.mkdir() if place.is_dir() else target.touch()
            subprocess.run(["mount", "--rbind", "--make-rslave", place, target], check=True)
            mounted.append(target)
        yield variables
    finally:
        for target in reversed(mounted):
            subprocess.run(["umount", "--recursive", "--lazy", target], check=True)
        for top in reversed(made):
            shutil.rmtree(top) if top.is_dir() else top.unlink()


def build(stage: Stage, root: Path, context: Path, roots: Mapping[str, Path], wheels: Path) -> None:
    """Run the steps of a stage in its root, in order."""
    variables = environment(stage)
    for step in stage.steps:
        print(f"  {step.word} {step.rest[:100]}", flush=True)
        if step.word == "RUN":
            with lending(root, [wheels]) as settings:
                links = " ".join(filter(None, [settings.get("PIP_FIND_LINKS"), str(wheels)]))
                inside = {**settings, **variables, "PIP_FIND_LINKS": links, "HOME": "/root"}
                subprocess.run(["chroot", root, "/bin/sh", "-c", step.rest], env=inside, check=True)
        elif step.word == "COPY":
            copy(step, root, context, roots)
        elif step.word not in ("ARG", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
            raise SystemExit(f"nothing here knows the instruction {step.word}")


def copy(step: Step, root: Path, context: Path, roots: Mapping[str, Path]) -> None:
    """Carry out a COPY: of a heredoc, out of another stage, or of the build's context."""
    words = [word for word in step.rest.split() if not word.startswith("--")]
    options = dict(word[2:].split("=", 1) for word in step.rest.split() if word.startswith("--"))
    target = root / words[-1].lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if step.text is not None:
        target.write_text(step.text)
        return
    source = roots[options["from"]] / words[0].lstrip("/") if "from" in options else context / words[0]
    shutil.copytree(source, target, symlinks=True)
    subprocess.run(["chown", "-R", "0:0", target], check=True)
    if "chmod" in options:
        subprocess.run(["chmod", "-R", options["chmod"], target], check=True)


def size(place: Path) -> int:
    """Return how many bytes the files below a directory take, each once."""
    return int(subprocess.run(["du", "-sb", place], capture_output=True, check=True, text=True).stdout.split()[0])


def serve(root: Path, stage: Stage) -> None:
    """Start what the image starts, with a read-only root and no rights, and ask it; called inside the namespaces."""
    run = subprocess.run
    run(["ip", "link", "set", "lo", "up"], check=True)
    run(["mount", "--bind", root, root], check=True)
    run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    run(["mount", "--rbind", "/dev", root / "dev"], check=True)
    run(["mount", "-t", "tmpfs", "tmpfs", root / "dev/shm"], check=True)
    run(["mount", "-o", "remount,ro,bind", root], check=True)
    user = stage.last("USER") or "0"
    enter = ["chroot", f"--userspec={user}:{user}", str(root)]
    inside = environment(stage)
    refused = run([*enter, "/bin/sh", "-c", "id -u; touch /model/x /tmp/x"], env=inside, capture_output=True, text=True)
    assert refused.stdout.strip() == user != "0" and refused.stderr.count("Read-only file system") == 2, refused
    call = json.loads(stage.last("ENTRYPOINT") or "[]") + json.loads(stage.last("CMD") or "[]")
    health = json.loads((stage.last("HEALTHCHECK") or "").partition("CMD ")[2])
    assert run([*enter, *health], env=inside, capture_output=True).returncode != 0, "healthy before it is started"
    begun = time.monotonic()
    with subprocess.Popen([*enter, *call], env=inside, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        print(f"  {said.strip()} after {time.monotonic() - begun:.1f} s", flush=True)
        try:
            port = "http://127.0.0.1:5000"
            with urllib.request.urlopen(f"{port}/ping", timeout=30) as answer:
                print("  GET /ping", answer.status, flush=True)
            example = _example(root / "model")
            request = urllib.request.Request(
                f"{port}/invocations", example.read_bytes(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                print("  POST /invocations", answer.status, answer.read()[:100].decode(), flush=True)
            done = run([*enter, *health], env=inside, capture_output=True, text=True)
            print("  HEALTHCHECK", done.returncode, done.stderr[-200:], flush=True)
            assert done.returncode == 0
        finally:
            server.send_signal(signal.SIGTERM)
        print("  exit code after SIGTERM:", server.wait(timeout=60), flush=True)
        assert server.returncode == 0


def _example(package: Path) -> Path:
    manifest = json.loads((package / "modelpack.json").read_bytes())
    return package / manifest["examples"][0]["input"]


def mlflow(base: Path, work: Path, package: Path) -> tuple[Path, int]:
    """Run on the same base what `mlflow models generate-dockerfile` writes; return the layer and its distributions.

    Its base has pip; ours has not, so a virtual environment takes the place of the image's own.
    """
    export = ["modelpack", "env", "export", str(package), "--format", "requirements"]
    lines = subprocess.run(export, capture_output=True, text=True, check=True).stdout.splitlines()
    steps = (
        "apt-get -qq -y update && apt-get install -qq -y --no-install-recommends nginx > /dev/null",
        f"python -m venv /opt/model && /opt/model/bin/pip install -q {MLFLOW}",
        "/opt/model/bin/pip install -q -r /tmp/wanted.txt && rm /tmp/wanted.txt",
        "rm -rf /var/lib/apt/lists/*",
    )
    with overlay(base, work) as root:
        # The versions of the lock, so that the model's own part is the same in both.
        (root / "tmp/wanted.txt").write_text("".join(f"{line.partition(' --hash')[0]}\n" for line in lines))
        for step in steps:
            with lending(root, []) as settings:
                # Without what pip keeps, although MLflow's file does not say so: in its favour.
                inside = {**settings, "PATH": PATH, "HOME": "/root", "PIP_NO_CACHE_DIR": "1"}
                subprocess.run(["chroot", root, "/bin/sh", "-c", step], env=inside, check=True)
        count = len(list(root.glob("opt/model/lib/python*/site-packages/*.dist-info")))
    return work / "layer", count


def main() -> int:
    """Build, serve, ask and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("package", type=Path, nargs="?")
    parser.add_argument("--mlflow", action="store_true", help="build MLflow's equivalent too, and compare the sizes")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.base, parse(given.serve.read_text())[1][-1])
        return 0
    rows: list[tuple[str, int, int]] = []
    with tempfile.TemporaryDirectory(prefix="modelpack-image-") as name:
        work = Path(name)
        (work / "context").mkdir()
        package = given.package
        if package is None:
            package = work / "cancer"
            subprocess.run([sys.executable, "-c", SAVE, package], check=True)
            subprocess.run(["modelpack", "env", "lock", package, "--in-place", "--universal"], check=True)
        shutil.copytree(package, work / "context" / "package")
        export = ["modelpack", "env", "export", str(package), "--format", "dockerfile"]
        text = subprocess.run(export, capture_output=True, text=True, check=True).stdout
        wheel = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-qq",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            work / "wheels",
        ]
        subprocess.run([*wheel, ROOT], check=True)
        _, stages = parse(text)
        with contextlib.ExitStack() as open_roots:
            roots: dict[str, Path] = {}
            for i, stage in enumerate(stages):
                print(f"stage {stage.name or i} from {given.base.name}, in place of {stage.base}", flush=True)
                root = open_roots.enter_context(overlay(given.base, work / f"stage-{i}"))
                build(stage, root, work / "context", roots, work / "wheels")
                roots[stage.name or str(i)] = root
            count = len(list(root.glob("opt/model/lib/python*/site-packages/*.dist-info")))
            (work / "Dockerfile").write_text(text)
            alone = ["unshare", "--mount", "--net", sys.executable, __file__, "--serve", work / "Dockerfile", root]
            subprocess.run(alone, check=True)
        layer = size(work / f"stage-{len(stages) - 1}" / "layer")
        rows.append(("modelpack", count, layer))
        if given.mlflow:
            place, count = mlflow(given.base, work / "mlflow", package)
            rows.append(("MLflow", count, size(place)))
    base = size(given.base)
    print("\n| image | distributions | added over the base, MB | in all, MB |\n| --- | ---: | ---: | ---: |")
    for label, count, added in rows:
        print(f"| {label} | {count} | {added / 1e6:.0f} | {(base + added) / 1e6:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
