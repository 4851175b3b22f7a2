"""The super-resolution engine: one process per library makes every synthesised tile once, however many ask for it.

Web processes use a client and read the tile cache; `ocular serve` runs a supervisor; only the engine process itself
imports torch. `docs/engine.md` explains the design.
"""

from wsi_ml.sr.engine.client import BlockingEngineClient, EngineClient
from wsi_ml.sr.engine.options import EngineOptions
from wsi_ml.sr.engine.protocol import socket_path
from wsi_ml.sr.engine.supervisor import EngineSupervisor

__all__ = ["BlockingEngineClient", "EngineClient", "EngineOptions", "EngineSupervisor", "socket_path"]
