"""Print, as JSON, the digest of the file that each of the pickled models is saved as.

Run in another process by test_sklearn_estimators: ``sklearn_digests.py MODELS.pkl``.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelpack.flavor import SaveContext
from modelpack_flavors.sklearn import FLAVOR


def digests(models: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each model's file."""
    found = {}
    for name, model in models.items():
        with TemporaryDirectory() as folder:
            FLAVOR.save(model, SaveContext(directory=Path(folder), options={}))
            found[name] = hashlib.sha256((Path(folder) / "model.skops").read_bytes()).hexdigest()
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(digests(pickle.loads(Path(sys.argv[1]).read_bytes()))))
