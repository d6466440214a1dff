"""Turn samples into differences, intervals and verdicts; pure functions."""
