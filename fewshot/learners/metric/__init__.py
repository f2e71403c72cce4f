"""The metric-based family of learners."""
