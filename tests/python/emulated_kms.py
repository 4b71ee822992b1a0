"""ministack with its KMS alone, on a free port of the loopback address, for as long as the standard input is open.

Prints its URL when it listens. It is the emulator that cloud-sim stands in front of.
"""

import os
import socket
import sys
import threading

listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", 0))
listener.listen(1024)
port = listener.getsockname()[1]
# Without these it listens to the world, and for MQTT as well.
os.environ.update(BIND_HOST="127.0.0.1", IOT_MTLS_ENABLED="0", SERVICES="kms", GATEWAY_PORT=str(port), LOG_LEVEL="ERROR")

import asyncio  # noqa: E402

from hypercorn.asyncio import serve  # noqa: E402
from hypercorn.config import Config  # noqa: E402
from ministack.app import app  # noqa: E402


def end_with_whoever_started_this():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_whoever_started_this, daemon=True).start()
config = Config()
config.bind = [f"fd://{listener.fileno()}"]
config.accesslog = None
config.errorlog = None
config.loglevel = "ERROR"
config.keep_alive_timeout = 3600
print(f"http://127.0.0.1:{port}", flush=True)
asyncio.run(serve(app, config))
