"""Options that workers share."""

import socket

from workers.options import metrics_port_of

HOST = "127.0.0.1"


def test_a_second_worker_on_the_machine_takes_another_port_and_one_that_was_asked_for_is_kept() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert metrics_port_of(HOST, None, port) == 0
        assert metrics_port_of(HOST, port, 1) == port
    assert metrics_port_of(HOST, None, port) == port
