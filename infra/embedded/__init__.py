"""The servers of the embedded stack, run and supervised on one machine by our own code."""
