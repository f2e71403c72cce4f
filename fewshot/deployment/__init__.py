"""After training: a learner on one's own data, and as a program without this library."""
