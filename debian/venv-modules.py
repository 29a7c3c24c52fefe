"""Lists what a virtual environment carries: name, version, home, licence.

usage: venv-modules.py SITE-PACKAGES
"""

import sys
from importlib.metadata import Distribution, distributions


def licence(module: Distribution) -> str:
    """What the module's metadata says, in the newest of three places that does."""
    meta = module.metadata
    classifiers = [
        text.rpartition(" :: ")[2] for text in meta.get_all("Classifier") or [] if text.startswith("License ::")
    ]
    return meta["License-Expression"] or meta["License"] or ", ".join(classifiers) or "see its files"


def home(module: Distribution) -> str:
    urls = dict(text.split(", ", 1) for text in module.metadata.get_all("Project-URL") or [] if ", " in text)
    return module.metadata["Home-page"] or urls.get("Homepage") or urls.get("Source") or "-"


print("Modules in this package\n=======================\n")
for module in sorted(distributions(path=[sys.argv[1]]), key=lambda m: m.metadata["Name"].lower()):
    print(f"{module.metadata['Name']} {module.version}")
    print(f"    {home(module)}")
    print(f"    licence: {licence(module).splitlines()[0]}")
