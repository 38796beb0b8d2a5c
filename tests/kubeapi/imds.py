"""A metadata service, version 2, for instances that live in moto: instance `i` has its own at
`/<i>/latest/…`, as in Drover's sandbox."""

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


class Imds:
    """The service of all instances behind one listener."""

    def __init__(self):
        self.tokens = {}  # token -> (instance, end)
        self.notices = {}  # instance -> body of spot/instance-action
        self.notice_reads = {}  # instance -> time of the first read that showed the notice
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                self.reply(*service.token(self.path, self.headers))

            def do_GET(self):
                self.reply(*service.read(self.path, self.headers))

            def reply(self, status, body="", headers=()):
                content = (body or f"<html><title>{status}</title></html>").encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Type", "text/plain" if body else "text/html")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, instance):
        """Where an instance's agent finds it."""
        return f"http://127.0.0.1:{self.server.server_port}/{instance}"

    def interrupt(self, instance, seconds=120):
        """Puts a spot notice in."""
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        self.notices[instance] = json.dumps({"action": "terminate", "time": end})

    def stop(self):
        self.server.shutdown()

    def token(self, path, headers):
        instance, _, rest = path.strip("/").partition("/")
        if rest != "latest/api/token":
            return (405,)
        if "X-Forwarded-For" in headers:
            return (403,)
        ttl = headers.get(TTL, "")
        if not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            return (400,)
        token = secrets.token_urlsafe(32)
        self.tokens[token] = (instance, time.time() + int(ttl))
        return 200, token, [(TTL, ttl)]

    def read(self, path, headers):
        instance, _, rest = path.strip("/").partition("/")
        owner, end = self.tokens.get(headers.get(TOKEN, ""), ("", 0))
        if owner != instance or time.time() > end:
            return (401,)
        paths = {
            "instance-id": instance,
            "instance-life-cycle": "spot",
            "events/maintenance/scheduled": "[]",
        }
        if instance in self.notices:
            paths["spot/instance-action"] = self.notices[instance]
        name = rest.removeprefix("latest/meta-data/")
        if name not in paths:
            return (404,)
        if name == "spot/instance-action":
            self.notice_reads.setdefault(instance, time.time())
        return 200, paths[name]
