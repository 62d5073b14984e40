"""Reading Content-Type and Accept: which wire format a request is in and which one its sender understands."""

from __future__ import annotations

from collections.abc import Iterable

from modelpack_server.problems import HttpProblem

__all__ = ["accepts", "content_type"]


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
    kind = media.partition("/")[0]
    ranks = {media: 3, f"{kind}/*": 2, "*/*": 1}
    best, answer = 0, False
    for item in header.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        rank = ranks.get(name, 0)
        if rank > best:
            best, answer = rank, _quality(parameters) > 0
    return answer


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
