"""What flows between benchmarks and learners, and how it is drawn: types, streams, the loader."""
