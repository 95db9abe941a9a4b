"""Certificates that Python's own TLS accepts for the host and for loopback, and for nobody else."""

import socket
import ssl
import stat
import threading

import pytest

from cohortium.server import certificates


def handshake(folder, name):
    """Client and server of a TLS handshake over a socket pair; the client's error, if any, is raised."""
    here, there = socket.socketpair()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=folder / "ca.pem")

    def serve():
        try:
            server.wrap_socket(there, server_side=True).close()
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name):
            pass
    finally:
        here.close()
        thread.join()


def test_the_server_is_who_it_says(tmp_path):
    pem = certificates.write(tmp_path, "coordinator.example")
    assert pem == (tmp_path / "ca.pem").read_text()
    for name in ("coordinator.example", "localhost", "127.0.0.1"):
        handshake(tmp_path, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "other.example")


def test_private_keys_are_private(tmp_path):
    certificates.write(tmp_path, "127.0.0.1")
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
