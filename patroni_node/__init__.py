"""The node's program: one small node.yml in, a correct and safe Patroni node out.

It runs on Debian's own python3 with python3-yaml, python3-jinja2 and python3-jsonschema only, and
imports nothing of the build host's program.
"""

__version__ = "0.1.0"
