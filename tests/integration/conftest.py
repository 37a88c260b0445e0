"""Fixtures of the tests on real servers."""

from tests.integration.served import served

__all__ = ["served"]
