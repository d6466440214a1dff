"""Open a model on a target: plan, open, fall back, warm up, report."""
