"""Publishing: from an image with a passing verdict to a signed version in a store, and channels that name versions."""
