"""What holds for all tests."""

import os

from hypothesis import settings

# Where a change is judged, the same examples every time; at a developer's, others each time.
settings.register_profile("same", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("same")
