"""Process managers of encrypted computation."""
