"""Usage metering: the fold of usage and telemetry into windows, and the alerts of budgets."""
