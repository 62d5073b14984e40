"""A loaded model as another process is told of it: it loads the same package, and asks nobody anew.

What the package may do was decided once, for its exact digest, where it was loaded first. The other process never asks
a trust store of its own, and never takes another flavor.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from modelpack import loading
from modelpack.errors import IntegrityError
from modelpack.model import Model
from modelpack.package import Package
from modelpack.trust import Store

__all__ = ["Handed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Handed:
    """Which package, by which flavor, and whether its code is allowed."""

    digest: str
    flavor: str
    granted: bool

    @classmethod
    def of(cls, model: Model) -> Self:
        """Return what is told of a loaded model."""
        return cls(digest=model.digest, flavor=model.candidate.name, granted=model.candidate.trust == "code")

    def load_from(self, path: Path) -> Model:
        """Load the package from a directory; its bytes are read once, compared with the digests, and used.

        Raises:
            IntegrityError: it is not the package that was loaded first (``package-differs``).
        """
        package = Package.peek(path)
        if package.digest != self.digest:
            message = f"the package that arrived here has the digest {package.digest}, not {self.digest}"
            raise IntegrityError(message, code="package-differs", hint="It was changed while it was sent; run again.")
        with package.keeping():
            package.verify()
            allowed = self.digest if self.granted else None
            # Grants of whoever runs this process do not count: there is no store.
            return loading.load(package, allow_code=allowed, flavor=self.flavor, store=Store(Path(os.devnull, "none")))
