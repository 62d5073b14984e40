"""The one place where values meet the signature; every mode of scoring goes through it.

A value is scored as it was sent, or refused with an error that names the field; it is never changed silently. The
same rows give the same :class:`modelpack.frame.Frame` through every form. The layers, inner to outer:

``scalars`` and ``cells`` hold the truth for one value, ``whole`` the fast ways for a whole column that must agree with
it, ``columns`` chooses between the two; ``lanes`` and ``arrow`` unpack what libraries hold columns in, ``sources`` the
forms rows come in; ``tables`` and ``tensors`` meet the signature; ``calls`` and ``arguments`` are what others call.
"""

from __future__ import annotations

from modelpack.coerce.arguments import changes_outputs, check_defaults, params
from modelpack.coerce.calls import JSON, inputs, outputs, tolerant
from modelpack.coerce.codes import CODES
from modelpack.coerce.scalars import Wire
from modelpack.coerce.sources import Split
from modelpack.coerce.tensors import symbols

__all__ = [
    "CODES",
    "JSON",
    "Split",
    "Wire",
    "changes_outputs",
    "check_defaults",
    "inputs",
    "outputs",
    "params",
    "symbols",
    "tolerant",
]
