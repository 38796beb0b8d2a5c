"""A TCP gate between Drover and the API server, as a load balancer would stand there.

Shut, it leaves connections as they are and passes nothing on, so that whoever watches learns nothing
of a restart behind it; opened, it cuts them."""

import socket
import threading


class Gate:
    """Listens on a loopback port of its own and passes bytes on to another."""

    def __init__(self, port):
        self.target = port
        self.open = threading.Event()
        self.open.set()
        self.connections = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def shut(self):
        self.open.clear()

    def reopen(self):
        """Cuts every connection and takes new ones. It opens first: whoever is cut connects again at
        once, and must not find it shut."""
        with self.lock:
            cut, self.connections = self.connections, set()
            self.open.set()
        for one in cut:
            hang_up(one)
        return len(cut)

    def stop(self):
        self.listener.close()
        self.reopen()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return  # Stopped.
            if not self.open.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            with self.lock:
                self.connections |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    def carry(self, source, sink):
        try:
            while content := source.recv(65536):
                self.open.wait()
                sink.sendall(content)
        except OSError:
            pass  # Cut.
        # A server that ends behind a shut gate is not heard of until it opens.
        self.open.wait()
        hang_up(source)
        hang_up(sink)
        with self.lock:
            self.connections -= {source, sink}


def hang_up(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The other side was first.
    connection.close()
