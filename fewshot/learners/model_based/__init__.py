"""The model-based family of learners."""
