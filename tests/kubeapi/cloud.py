"""moto as EC2 and SSM, and a tap on the leaders' way to it."""

import re
import threading
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REGION = "us-east-1"


class Cloud:
    """moto, asked as an operator would."""

    def __init__(self, url):
        self.url = url

    def ec2(self, action, **parameters):
        """A call of EC2's query protocol; returns the answer without namespaces."""
        form = {"Action": action, "Version": "2016-11-15", **parameters}
        # moto takes the region from the signature's scope and does not check the signature.
        scope = f"AKIDTEST/20260101/{REGION}/ec2/aws4_request"
        headers = {
            "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        request = urllib.request.Request(self.url, urllib.parse.urlencode(form).encode(), headers)
        with urllib.request.urlopen(request, timeout=180) as answer:
            text = answer.read().decode()
        return ElementTree.fromstring(re.sub(r' xmlns="[^"]*"', "", text, count=1))

    def ids(self, action, field):
        return [element.text for element in self.ec2(action).iter(field)]

    def instances(self):
        """Every instance that was ever launched: id, state, type, tags."""
        found = []
        for item in self.ec2("DescribeInstances").iterfind(".//instancesSet/item"):
            tags = {tag.findtext("key"): tag.findtext("value") for tag in item.iterfind("tagSet/item")}
            found.append({
                "id": item.findtext("instanceId"),
                "state": item.findtext("instanceState/name"),
                "type": item.findtext("instanceType"),
                "tags": tags,
            })
        return found

    def running(self):
        return [one for one in self.instances() if one["state"] in ("pending", "running")]

    def launch_templates(self):
        return self.ids("DescribeLaunchTemplates", "launchTemplateName")

    def furnish(self):
        """What a class selects its network by: tags on subnets and security groups."""
        found = self.ids("DescribeSubnets", "subnetId") + self.ids("DescribeSecurityGroups", "groupId")
        form = {f"ResourceId.{n}": name for n, name in enumerate(found, 1)}
        self.ec2("CreateTags", **form, **{"Tag.1.Key": "karpenter.sh/discovery", "Tag.1.Value": "rig"})


class Tap:
    """Passes calls on to moto, notes launches, and can hold back CreateFleet's answer, so that a
    leader can be killed while nobody but EC2 knows what was launched."""

    def __init__(self, url):
        self.fleets = []  # Client tokens of CreateFleet, in order.
        self.hold = False
        self.held = threading.Event()
        self.release = threading.Event()
        tap = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() in ("content-type", "authorization", "x-amz-target", "x-amz-date")
                }
                request = urllib.request.Request(url + self.path, body, headers)
                try:
                    with urllib.request.urlopen(request, timeout=60) as answer:
                        status, content, kind = answer.status, answer.read(), answer.headers["Content-Type"]
                except urllib.error.HTTPError as error:
                    status, content, kind = error.code, error.read(), error.headers["Content-Type"]
                except OSError:
                    self.close_connection = True  # moto ends.
                    return
                tap.note(urllib.parse.parse_qs(body.decode(errors="replace")))
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", kind or "text/plain")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # The caller was killed.

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def note(self, form):
        if form.get("Action") != ["CreateFleet"]:
            return
        self.fleets += form.get("ClientToken", [])
        if self.hold:
            self.hold = False
            self.held.set()
            self.release.wait(60)

    def stop(self):
        self.release.set()
        self.server.shutdown()
