"""The harness is a set of programs beside each other, so its folder has to be where modules come from."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("queueber", derandomize=True, deadline=None, database=None)
settings.load_profile("queueber")
