"""The harness is a set of programs in one folder, which has to be on the path of modules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
