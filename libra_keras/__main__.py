"""`python -m libra_keras` is the command `libra-keras`."""

import sys

from libra_keras.cli import main

if __name__ == "__main__":
    sys.exit(main())
