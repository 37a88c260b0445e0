"""The clients' keys are the same as the workers' tests use."""

from tests.fhe_workers.conftest import alice, alice_n14, bob, carol, dora, erin, program

__all__ = ["alice", "alice_n14", "bob", "carol", "dora", "erin", "program"]
