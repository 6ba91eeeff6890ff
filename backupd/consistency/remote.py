"""Modules of this package as one program for a Python that has no backupd: the source text travels as an argument."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

# The kernel takes no longer argument (MAX_ARG_STRLEN, execve(2)).
_LONGEST = 128 * 1024

_BOOTSTRAP = """
import json, sys, types
for name, source in json.loads(sys.argv.pop(1)).items():
    parent = ""
    for part in name.split(".")[:-1]:
        parent += "." * bool(parent) + part
        sys.modules.setdefault(parent, types.ModuleType(parent)).__path__ = []
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
sys.exit(module.main())
"""


def program(modules: Sequence[str]) -> list[str]:
    """The arguments for `python3`: modules of `backupd.consistency`, each before those that import it.

    They import nothing else but the standard library. The last one's `main` is called; its result is the exit code.
    """
    package = resources.files("backupd.consistency")
    sources = {f"backupd.consistency.{name}": package.joinpath(f"{name}.py").read_text() for name in modules}
    text = json.dumps(sources)
    assert len(text) < _LONGEST, "the program is too long for an argument"
    return ["-I", "-c", _BOOTSTRAP, text]
