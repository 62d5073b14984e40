"""Damages packages that modelpack saved, loads them and scores with those that load; run in a process of its own.

``python fuzzing.py SEEDS WORK SEED FIRST COUNT``: SEEDS is a directory of packages (see ``seeds``), WORK a directory to
write in. Case number ``i`` is the same whenever the seed is. Prints the number of each case before it begins, so that
a process that dies has said which case it was; a fault is printed as JSON. Used by test_fuzzing.py and scripts/fuzz.
"""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import random
import resource
import shutil
import signal
import struct
import sys
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import modelpack
from modelpack.errors import ModelpackError

MEMORY = 4 * 2**30
SECONDS = 60
NUMBERS = (-(2**63), -(2**31), -9, -1, 0, 1, 2, 7, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 1.5, float("inf"), float("nan"))
ODD: tuple[Any, ...] = (*NUMBERS, None, True, "", "x", "-1", "999999999", [], {}, [[]], [0], [-1, 2**40])
# Some models take only the second of these, or only the third.
ROWS = (
    np.array([[0.0, 1.0], [np.nan, 4e9]]),
    np.array([[2.0, -1e300], [1.5, 0.0]]),
    np.array([[0.0, 1.0], [-3.0, 4e9]], np.float32),
)


def bytes_damaged(raw: bytes, chance: random.Random) -> bytes:
    """Change, cut out, insert or repeat some bytes."""
    out = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(out) + 1)
        end = min(len(out), at + chance.choice((1, 1, 4, 8)))
        match chance.randrange(6):
            case 0:
                del out[at:end]
            case 1:
                out[at:at] = out[at:end]
            case 2:
                out[at:end] = struct.pack("<q", chance.choice([n for n in NUMBERS if isinstance(n, int)]))[: end - at]
            case 3:
                out[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
            case 4 if chance.random() < 0.1:
                del out[at:]
            case _ if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
    return bytes(out)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside nested data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, one in items:
        found += [(*path, key), *places(one, (*path, key))]
    return found


def json_damaged(raw: bytes, chance: random.Random) -> bytes:
    """Put something else at some places of a JSON document, or another part of it."""
    root = copy.deepcopy(json.loads(raw))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        known = places(root)
        if not known:
            break
        *path, key = chance.choice(known)
        holder = root
        for step in path:
            holder = holder[step]
        match chance.randrange(4):
            case 0:
                del holder[key]
            case 1:
                *other, last = chance.choice(known)
                part = root
                try:
                    for step in (*other, last):
                        part = part[step]
                except (KeyError, IndexError, TypeError):
                    continue
                holder[key] = copy.deepcopy(part)
            case _:
                old = holder[key]
                text = isinstance(old, str) and chance.random() < 0.5
                holder[key] = str(chance.choice(ODD)) if text else chance.choice(ODD)
    return json.dumps(root, separators=(",", ":")).encode()


def words_damaged(raw: bytes, chance: random.Random) -> bytes:
    """Change a word of a text of lines ``key=value``; a size of a tree that follows is mended."""
    lines = raw.split(b"\n")
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(lines))
        key, sign, value = lines[at].partition(b"=")
        words = value.split(b" ")
        words[chance.randrange(len(words))] = str(chance.choice(NUMBERS)).encode()
        if sign:
            lines[at] = key + sign + b" ".join(words)
    starts = [i for i, line in enumerate(lines) if line.startswith(b"Tree=") or line == b"end of trees"]
    sizes = [len(b"\n".join(lines[a:b])) + 1 for a, b in itertools.pairwise(starts)]
    says = b"tree_sizes=" + b" ".join(b"%d" % size for size in sizes)
    return b"\n".join(says if line.startswith(b"tree_sizes=") else line for line in lines)


def data_damaged(raw: bytes, chance: random.Random) -> bytes:
    """Change the data of a ``.npy`` file, mostly a whole number of it, seldom its header."""
    start = 10 + struct.unpack("<H", raw[8:10])[0]
    if len(raw) <= start or chance.random() < 0.1:
        return bytes_damaged(raw, chance)
    out = bytearray(raw)
    width = chance.choice([n for n in (1, 4, 8) if n <= len(out) - start])
    at = start + chance.randrange((len(out) - start) // width) * width
    if chance.random() < 0.3:
        out[at : at + width] = struct.pack("<d", float(chance.choice(NUMBERS)))[-width:]
    else:
        number = int(chance.choice([n for n in NUMBERS if isinstance(n, int)]))
        out[at : at + width] = struct.pack("<Q", number & (2**64 - 1))[:width]
    return bytes(out)


def zip_damaged(raw: bytes, chance: random.Random) -> bytes:
    """Damage a member of a zip file, and write the file again."""
    with zipfile.ZipFile(io.BytesIO(raw)) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    for _ in range(chance.choice((1, 1, 2))):
        # Half of the time the description, whatever number of arrays there is.
        described = [name for name in members if name.endswith(".json")]
        name = chance.choice(described if described and chance.random() < 0.5 else list(members))
        members[name] = damaged(name, members[name], chance)
    if chance.random() < 0.1:
        members[chance.choice(list(members))] = members[chance.choice(list(members))]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as written:
        for name, content in members.items():
            written.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def header_damaged(raw: bytes, chance: random.Random) -> bytes:
    """Damage the header of a safetensors file."""
    length = struct.unpack("<Q", raw[:8])[0]
    header = json_damaged(raw[8 : 8 + length], chance)
    return struct.pack("<Q", len(header)) + header + raw[8 + length :]


def damaged(name: str, raw: bytes, chance: random.Random) -> bytes:
    """Damage a file by its format, or as bytes."""
    if not raw or chance.random() < 0.25:
        return bytes_damaged(raw, chance)
    try:
        if raw[:4] == b"PK\x03\x04":
            return zip_damaged(raw, chance)
        if raw[:6] == b"\x93NUMPY":
            return data_damaged(raw, chance)
        if raw[:5] == b"tree\n":
            return words_damaged(raw, chance)
        if name.endswith(".safetensors"):
            return header_damaged(raw, chance)
        if raw[:1] in (b"{", b"["):
            return json_damaged(raw, chance)
    except (ValueError, zipfile.BadZipFile, struct.error):
        pass
    return bytes_damaged(raw, chance)


def written(seed: Path, target: Path, chance: random.Random) -> None:
    """Write a damaged copy of a package: its description, or one of its payloads under a description that fits."""
    shutil.copytree(seed, target)
    mark = target / "modelpack.json"
    if not mark.exists():
        mark = target / "MLmodel"
        if chance.random() < 0.5:
            mark.write_bytes(bytes_damaged(mark.read_bytes(), chance))
            return
    elif chance.random() < 0.1:
        mark.write_bytes(damaged(mark.name, mark.read_bytes(), chance))
        return
    payloads = [p for p in sorted(target.rglob("*")) if p.is_file() and p != mark and "examples" not in p.parts]
    path = chance.choice(payloads)
    path.write_bytes(damaged(path.name, path.read_bytes(), chance))
    if mark.name != "modelpack.json":
        return
    manifest = json.loads(mark.read_bytes())
    for entry in manifest["files"]:
        raw = (target / entry["path"]).read_bytes()
        entry |= {"size": len(raw), "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"}
    lines = sorted(f"{entry['digest'][7:]}  {entry['path']}\n" for entry in manifest["files"])
    lines.sort(key=lambda line: line[66:])
    manifest["content_digest"] = f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    mark.write_text(json.dumps(manifest), "utf-8")


def tried(package: Path) -> str:
    """Load a package and score with it; return how far it came, or raise what is no error of ours."""
    try:
        opened = modelpack.open(package)
        opened.plan()
    except ModelpackError as exc:
        return exc.code
    try:
        model = modelpack.load(opened, environment_policy="ignore")
    except ModelpackError as exc:
        return f"load: {exc.code}"
    inputs = model.signature.inputs
    names = [c.name for c in inputs.columns] if inputs is not None and inputs.kind == "table" else []
    end = "predicted"
    for values in ROWS:
        rows: Any = dict.fromkeys(names, values[:, 0]) if names else values
        try:
            model.predict(rows)
        except ModelpackError as exc:
            end = f"predict: {exc.code}"
    return end


def main() -> None:
    seeds, work, seed, first, count = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    packages = sorted(seeds.iterdir())
    ends: Counter[str] = Counter()
    for number in range(first, first + count):
        chance = random.Random(f"{seed}:{number}")
        source = packages[number % len(packages)]
        target = work / "package"
        shutil.rmtree(target, ignore_errors=True)
        print(json.dumps({"case": number, "package": source.name}), flush=True)
        written(source, target, chance)
        signal.alarm(SECONDS)
        try:
            end = tried(target)
        except BaseException as exc:
            end = "fault"
            fault = f"{type(exc).__name__}: {exc}"[:300]
            print(json.dumps({"fault": number, "package": source.name, "error": fault}), flush=True)
            shutil.copytree(target, work / f"fault-{number}")
        signal.alarm(0)
        ends[f"{source.name}: {end}"] += 1
    print(json.dumps({"ends": dict(ends)}), flush=True)


if __name__ == "__main__":
    main()
