"""``python -m bedrock_budget``: the same as the console script ``bedrock-budget``."""

import sys

from .cli import main

sys.exit(main())
