"""Run a command with DOCKER_HOST set to the engine that answers, or to a private one that ends with the command.

python tools/with_engine.py [--images alpine,helper,postgres,redis] -- command arguments…
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.dockerd import NoEngine, docker_host
from tests.support.images import Images


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="", help="test images to load first, separated by commas")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    try:
        with docker_host() as host:
            environment = os.environ | {"DOCKER_HOST": host.url}
            if host.private:
                environment["BACKUPD_ENGINE_IS_PRIVATE"] = host.url
            with Images(host) as images:
                for name in filter(None, arguments.images.split(",")):
                    variable = f"BACKUPD_IMAGE_{name.upper()}"
                    environment[variable] = images.tag(name)
            return subprocess.run(arguments.command, env=environment, check=False).returncode
    except NoEngine as exc:
        print(f"with_engine: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
