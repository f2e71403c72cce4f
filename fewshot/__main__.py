"""`python -m fewshot` is the program `fewshot`."""

import sys

from fewshot.main import main

sys.exit(main())
