"""Few-shot without meta-learning: supervised pre-training, then a classifier for each episode."""
