"""How hypothesis searches: the same examples every time, so that nobody's change fails for what chance brought."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The fixtures that every unit test has only forbid things, and need not be made anew for each example.
_ALWAYS = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def load() -> None:
    """Make "fixed" the profile that counts, unless --hypothesis-profile names "search"."""
    settings.register_profile("fixed", derandomize=True, database=None, **_ALWAYS)
    settings.register_profile("search", max_examples=2000, **_ALWAYS)
    settings.load_profile("fixed")
