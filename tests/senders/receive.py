"""A receiver of notifications that verifies them with the libraries of Standard Webhooks and Svix: receive.py SECRET. Prints its port."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import standardwebhooks
import svix

SECRET = sys.argv[1]


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = []
        for library in (standardwebhooks, svix):
            library.Webhook(SECRET).verify(body, headers)
            said.append(json.loads(body)["type"])
            try:
                library.Webhook(SECRET).verify(body + b" ", headers)
                said.append("forged")
            except library.WebhookVerificationError:
                pass
        print("verified", *said, flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(f"port {server.server_port}", flush=True)
server.serve_forever()
