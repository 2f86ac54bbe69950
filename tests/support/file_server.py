"""A server of files on this machine that can be told to misbehave."""

import contextlib
import http.server
import threading


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `files`, bytes by name, and notes what it was asked for.

    The next `cut` answers end in the middle, though they announce the whole. While `go` is not set,
    answers stop there: `halfway` says so. A `silent` server never answers.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = {}, []
        self.cut, self.silent, self.status = 0, False, 200
        self.halfway, self.go = threading.Event(), threading.Event()
        self.go.set()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Who asked may go away early; the tests look at what that one says."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.rpartition("/")[2]
        server.asked.append(name)
        if server.silent:
            server.go.wait()
            return
        if name not in server.files or server.status != 200:
            self.send_error(404 if server.status == 200 else server.status)
            return
        content = server.files[name]
        half, rest = content[: len(content) // 2], content[len(content) // 2 :]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(half)
        server.halfway.set()
        server.go.wait()
        if server.cut:
            server.cut -= 1
        else:
            self.wfile.write(rest)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def file_server():
    """A `FileServer` that runs during the block."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.go.set()
            server.shutdown()
            thread.join()
