"""A server on the loopback interface that serves one file."""

import hashlib
import http.server
import threading

from nfnet_jax.utils.download import RemoteFile


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; may ignore Range, and may cut the first responses short."""

    def __init__(self, content, *, ranges=True, cuts=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.cuts = content, ranges, list(cuts)
        self.asked = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def file(self, filename="file.bin", **changes) -> RemoteFile:
        values = {
            "url": f"http://127.0.0.1:{self.server_port}/data/{filename}",
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "size": len(self.content),
        }
        return RemoteFile(**(values | changes))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else None
        self.wfile.write(server.content[start:end])

    def log_message(self, *args):
        pass
