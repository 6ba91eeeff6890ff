"""One function fed by Atheris: `python -m tools.torture_fuzz TARGET CORPUS [LibFuzzer's options]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["backupd"]):
    from tests.support.fuzzing import targets


def main() -> None:
    name = sys.argv.pop(1)
    target = next(target for target in targets() if target.name == name)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
