"""What follows from the events of tenants."""
