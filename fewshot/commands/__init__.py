"""What the program does with a trained learner, beside Lightning's own subcommands."""
