"""A client without a model: ``python benchmarks/empty_client.py UNIX_ADDRESS N_ATOMS``.

It answers every request at once, with the same bytes: what is left of a step is i-PI and the
socket, and no client of i-PI's can be quicker.
"""

from __future__ import annotations

import json
import socket
import sys
import time

import numpy as np

from deltaserver.serve.protocol import ClientProtocol, Closed, ForceRequest
from deltaserver.serve.wire import force_ready


def connect(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    for _ in range(600):
        try:
            connection.connect(f"/tmp/ipi_{address}")
            return connection
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nobody listens at {address}")


def main(address: str, n_atoms: int) -> None:
    extras = json.dumps({"energy_ev": 0.0}).encode()
    zeros = np.zeros((1, n_atoms, 3))
    reply = force_ready(np.zeros(1), zeros, np.zeros((1, 3, 3)), [extras])
    protocol = ClientProtocol(n_atoms)
    with connect(address) as connection:
        while data := connection.recv(1 << 16):
            protocol.receive(data)
            while event := protocol.next_event():
                if isinstance(event, ForceRequest):
                    protocol.answer(reply)
                if isinstance(event, Closed):
                    return
            if protocol.outgoing:
                connection.sendall(protocol.outgoing)
                protocol.outgoing.clear()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
