"""Follows the events of approvals: the feed of a room, watchers, adoptions of claimed agents."""
