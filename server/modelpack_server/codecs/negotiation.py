"""Reading Content-Type and Accept: which wire format a request is in and which one its sender understands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelpack_server.problems import HttpProblem

__all__ = ["accepts", "choose", "content_type"]


def content_type(header: str | None, known: Iterable[str]) -> str:
    """Return the media type of a request body, in lower case, one of ``known``.

    Raises:
        HttpProblem: 415 when the header is missing, or names a type, charset or parameter we cannot read.
    """
    offered = ", ".join(sorted(known))
    headers = {"Accept": offered}
    if header is None or not header.strip():
        raise HttpProblem(
            415,
            "the request has no Content-Type",
            code="content-type-missing",
            hint=f"Say what the body is: one of {offered}.",
            headers=headers,
        )
    media, *parameters = (part.strip() for part in header.split(";"))
    media = media.lower()
    if media not in known:
        raise HttpProblem(
            415,
            "this Content-Type is not one the server reads",
            code="content-type-unknown",
            hint=f"Send one of {offered}.",
            headers=headers,
        )
    for parameter in filter(None, parameters):
        _check_parameter(parameter, headers)
    return media


def _check_parameter(parameter: str, headers: dict[str, str]) -> None:
    name, _, value = parameter.partition("=")
    name, value = name.strip().lower(), value.strip().strip('"').lower()
    if name == "charset":
        if value in ("utf-8", "utf8"):
            return
        raise HttpProblem(
            415, "only charset=utf-8 is read", code="charset-unknown", hint="Encode the body as UTF-8.", headers=headers
        )
    if (name, value) == ("header", "present"):
        return
    raise HttpProblem(
        415,
        "the Content-Type has a parameter the server does not know",
        code="content-type-parameter",
        hint="Only charset=utf-8 is understood.",
        headers=headers,
    )


def accepts(header: str | None, media: str) -> bool:
    """Say whether a sender with this Accept header takes ``media`` (RFC 9110, 12.5.1: the most specific range wins)."""
    if header is None or not header.strip():
        return True
    return _preference(_ranges(header), media) > 0


def choose(accept: str | None, possible: Sequence[str]) -> str:
    """Return the media type that a sender with this Accept header likes best; of several alike the first.

    Raises:
        HttpProblem: 406 when it takes none of those that are possible.
    """
    if accept is None or accept == "*/*" or not accept.strip():
        return possible[0]
    ranges = _ranges(accept)
    # max() returns the first of the largest.
    best = max(possible, key=lambda media: _preference(ranges, media))
    if _preference(ranges, best) > 0:
        return best
    offered = ", ".join(possible)
    raise HttpProblem(
        406, "predictions cannot be written as what Accept asks for", code="not-acceptable", hint=f"Accept {offered}."
    )


def _ranges(header: str) -> dict[str, float]:
    """Return the media ranges of an Accept header and how much each is liked; of a repeated one the first counts."""
    ranges: dict[str, float] = {}
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        ranges.setdefault(name, _quality(parameters))
    return ranges


def _preference(ranges: dict[str, float], media: str) -> float:
    """Return what the most specific range says about a media type."""
    for name in (media, media.partition("/")[0] + "/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0
