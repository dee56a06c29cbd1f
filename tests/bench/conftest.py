"""The benchmark is a set of programs in one folder, which must be on the module path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
