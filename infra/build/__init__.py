"""Making an installation. Only the standard library is here: nothing else is installed yet."""
