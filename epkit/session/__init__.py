"""Open a model on a target: plan, open, drop what fails, warm up, report."""
