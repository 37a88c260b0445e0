"""Processors of the platform."""
