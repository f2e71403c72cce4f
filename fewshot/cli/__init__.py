"""The program `fewshot`: a dispatcher, Lightning's command line, and a file a command."""
