"""`python -m hnseg_training …`, which is what torchrun starts."""

import sys

from hnseg_training.cli import main

sys.exit(main())
