"""Rooms as others are told of them: the feed of a room's events, and the fan-out to watchers."""
