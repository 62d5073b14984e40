"""Which addresses may be written into a package: those that others reach too."""

from __future__ import annotations

import ipaddress

__all__ = ["public"]

_OWN = (".local", ".localdomain", ".internal", ".lan")


def public(host: str) -> bool:
    """Say whether a host is called as the whole world calls it: no address in numbers, no name of one's own network."""
    if "." not in host or host.endswith(_OWN):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
