"""Fixtures that every test may ask for, and how a whole run goes."""

import hypothesis
import pytest

from tests.stack import settings, stack

__all__ = ["settings", "stack"]

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

LONGEST_FIRST = ("chaos", "integration", "faults", "infra", "fhe_workers", "docs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: workers that share the files out end at about the same time then."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))
