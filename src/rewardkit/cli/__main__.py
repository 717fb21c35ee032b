"""``python -m rewardkit.cli`` is ``rewardkit``."""

import sys

from rewardkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
