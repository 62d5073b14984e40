"""Print the digest of every estimator's file, as JSON: run twice, in two processes, by test_sklearn_estimators."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from tempfile import TemporaryDirectory

from modelpack.errors import ModelpackError
from modelpack.flavor import SaveContext
from modelpack_flavors.sklearn import FLAVOR

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    loader = SourceFileLoader("sklearn_coverage", sys.argv[1])
    spec = spec_from_loader("sklearn_coverage", loader)
    assert spec is not None
    script = sys.modules["sklearn_coverage"] = module_from_spec(spec)
    loader.exec_module(script)
    digests = {}
    for one in script.fitted():
        with TemporaryDirectory() as folder:
            try:
                FLAVOR.save(one.model, SaveContext(directory=Path(folder), options={}))
            except ModelpackError:
                continue
            digests[one.name] = hashlib.sha256((Path(folder) / "model.skops").read_bytes()).hexdigest()
    print(json.dumps(digests))
