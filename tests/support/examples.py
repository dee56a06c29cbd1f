"""The number of examples of tests that take more of them, or fewer, than hypothesis does."""

from hypothesis import settings

OF_HYPOTHESIS = 100


def examples(count):
    """Return *count*, or its share in a profile that has fewer examples than hypothesis, as that of `make fast`."""
    return count * settings().max_examples // OF_HYPOTHESIS
