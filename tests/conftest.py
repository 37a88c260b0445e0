"""Fixtures that every test may ask for."""

from tests.stack import settings, stack

__all__ = ["settings", "stack"]
