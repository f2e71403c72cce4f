"""`python -m fewshot` is the program `fewshot`."""

import sys

from fewshot.cli.main import main

sys.exit(main())
