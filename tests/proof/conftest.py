"""The harness is a set of programs beside each other, so its folder has to be where modules come from."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
