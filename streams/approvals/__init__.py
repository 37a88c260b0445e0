"""Process managers of approvals."""
