"""`medsearch mllp` as a process: ready, a message taken, ended by a signal with nothing lost."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import messages_made as made
import pytest
from running import spoken


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_message_over_the_wire_and_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "medsearch_desktop", "mllp", str(tmp_path / "spool"), "--json"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", ready["port"]), 30) as connection:
            connection.sendall(b"\x0b" + made.hl7("IMPRESSION: Effusion.") + b"\x1c\r")
            assert b"MSA|AA|" in connection.recv(4096)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    (file,) = (tmp_path / "spool").iterdir()
    # Never what the message says, only what became of it.
    assert spoken(said) == f"AA {file.name}\n"


def test_wrong_addresses_and_ports(tmp_path: Path) -> None:
    for arguments, status in ((["--allow", "ward"], 1), (["--port", "99999"], 2), (["--host", "203.0.113.1"], 1)):
        done = subprocess.run(
            [sys.executable, "-m", "medsearch_desktop", "mllp", str(tmp_path), *arguments],
            capture_output=True,
            cwd=Path(__file__).parents[2],
            timeout=60,
        )
        assert done.returncode == status, arguments
        assert b"Traceback" not in done.stderr
