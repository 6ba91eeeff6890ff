"""Which image helpers are made from, and what its tar can do."""

from __future__ import annotations

import docker
from docker.errors import APIError, ImageNotFound

from backupd.engine.docker.sdk import sdk_errors
from backupd.errors import SourceError

DEFAULT_IMAGE = "alpine"


def ensure_image(api: docker.APIClient, name: str) -> str:
    """The id of the image, which is pulled if the engine does not have it."""
    with sdk_errors(f"inspect the helper image {name}"):
        try:
            return _image_id(api, name)
        except ImageNotFound:
            pass
        try:
            api.pull(name)
            return _image_id(api, name)
        except APIError as exc:
            raise SourceError(
                f"the helper image {name} is not there and cannot be pulled: {exc.explanation or exc}",
                hint="`docker pull` or `docker load` it, or set `helper_image` to one that the engine has; "
                "it needs sh, tar, timeout, cat and mkdir",
            ) from exc


def _image_id(api: docker.APIClient, name: str) -> str:
    return str(api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
