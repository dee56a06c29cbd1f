"""The harness is a set of programs in one folder, which has to be on the path of modules."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("queueber", derandomize=True, deadline=None, database=None)
settings.load_profile("queueber")
