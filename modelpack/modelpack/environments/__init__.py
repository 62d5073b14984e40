"""Environments made from a package: locked with hashes, built with uv, run in (spec/10-environment.md)."""
