"""Whether the server takes requests, and what it says when it does not."""

from __future__ import annotations

from dataclasses import dataclass

from modelpack_server.problems import HttpProblem

__all__ = ["State", "stopping"]


@dataclass(slots=True)
class State:
    """Whether the server takes requests: it stops to when it is told to stop.

    ``leaving``: another worker takes its place. What comes is answered, and each connection closed after its answer.
    """

    draining: bool = False
    leaving: bool = False

    @property
    def closing(self) -> bool:
        """Whether each connection is closed after the next answer."""
        return self.draining or self.leaving


def stopping() -> HttpProblem:
    """Return what is said to requests that the server takes no more."""
    return HttpProblem(
        503,
        "the server is stopping",
        code="server-stopping",
        hint="Send the request again.",
        headers={"Retry-After": "1"},
    )
