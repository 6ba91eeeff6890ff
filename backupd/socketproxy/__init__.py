"""A Docker socket that lets through what backupd calls on its own project, and nothing else."""

from backupd.socketproxy.model import Allowed, Decision, Facts, Refused, Rules
from backupd.socketproxy.policy import decide
from backupd.socketproxy.request import BadRequest, Request
from backupd.socketproxy.server import ProxyServer

__all__ = ["Allowed", "BadRequest", "Decision", "Facts", "ProxyServer", "Refused", "Request", "Rules", "decide"]
