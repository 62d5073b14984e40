"""Shared by the tests of flavors: JVMs that are made for a minute."""

from __future__ import annotations

import os

# Spark's own code runs too seldom here to be worth the second compiler, or threads that collect garbage.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
