"""Patroni Foundry's build host: one foundry.yml in, proven golden images and .deb packages out."""

__version__ = "0.1.0"
