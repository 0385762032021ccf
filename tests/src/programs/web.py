"""A web server that tells who answers and who asked: `web.py PORT [NAME]`.

The name is the second argument, or MESH_TASK_NAME. GET / answers "web.1 from 192.168.77.100".
GET /peer answers "192.168.77.100:43210", in one line. GET /slow?2 answers after 2 seconds.
POST /echo sends its body back. POST /sick and POST /well turn the answer of GET /healthz.
"""

import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("MESH_TASK_NAME", socket.gethostname())
healthy = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one segment for head and body, or Nagle's algorithm waits between them

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/healthz":
            return self.answer(200 if healthy else 503, "well\n" if healthy else "sick\n")
        if path == "/slow":
            time.sleep(float(query or 1))
        peer = self.client_address[0].removeprefix("::ffff:")
        if path == "/peer":
            host = f"[{peer}]" if ":" in peer else peer
            return self.answer(200, f"{host}:{self.client_address[1]}\n")
        self.answer(200, f"{NAME} from {peer}\n")

    def do_POST(self):
        global healthy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/echo":
            return self.send(200, body)
        if self.path not in ("/sick", "/well"):
            return self.answer(404, "try /sick or /well\n")
        healthy = self.path == "/well"
        self.answer(200, "ok\n")

    def answer(self, status, text):
        self.send(status, text.encode())

    def send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 1024

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's: that one asks the DNS for the host's name.
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = NAME, self.server_address[1]

    def handle_error(self, request, client_address):
        pass  # a client that went away is no news


Server(("::", int(sys.argv[1])), Handler).serve_forever()
