"""The optimization-based family of learners."""
