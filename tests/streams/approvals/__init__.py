"""Tests of rooms as others are told of them."""
