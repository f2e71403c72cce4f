"""What watches a run: checkpoints, progress, figures, results."""
