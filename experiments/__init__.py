"""The commands: `python -m experiments.run` and its neighbours.

`python -m` looks for packages in the current folder first, so a folder of the user's
called `configs` would stand in for the package of this name that lies beside this one.
It is loaded from its own place here, before anything asks for it.
"""

import importlib.util
import pathlib
import sys

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"

if "configs" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "configs", CONFIGS / "__init__.py", submodule_search_locations=[str(CONFIGS)]
    )
    sys.modules["configs"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["configs"])
