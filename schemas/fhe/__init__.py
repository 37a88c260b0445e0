"""Encrypted computation: parameter sets, the wire grammar of keys and ciphertexts, and events."""
