"""The API server as kubectl and plain HTTPS see it."""

import json
import os
import re
import ssl
import subprocess
import urllib.error
import urllib.request

PATHS = {
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/namespaces/default/pods",
    "nodeclaims": "/apis/karpenter.sh/v1/nodeclaims",
    "nodepools": "/apis/karpenter.sh/v1/nodepools",
    "ec2nodeclasses": "/apis/karpenter.k8s.aws/v1/ec2nodeclasses",
    "deployments": "/apis/apps/v1/namespaces/default/deployments",
    "volumeattachments": "/apis/storage.k8s.io/v1/volumeattachments",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
}
MERGE = "application/merge-patch+json"


class Cluster:
    """One user's access to the API server."""

    def __init__(self, url, certificate, token, kubeconfig):
        self.url = url
        self.token = token
        self.kubeconfig = kubeconfig
        self.tls = ssl.create_default_context(cafile=certificate)

    def call(self, method, path, body=None, kind="application/json"):
        """Returns the status and what was answered (an object, or text)."""
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Content-Type": kind, "Accept": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=30) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        return status, json.loads(text) if text.startswith("{") else text

    def list(self, kind):
        status, answer = self.call("GET", PATHS[kind])
        if status != 200:
            raise RuntimeError(f"list of {kind}: {status} {answer}")
        return answer["items"]

    def get(self, kind, name):
        """The object; None if it is not there."""
        status, answer = self.call("GET", f"{PATHS[kind]}/{name}")
        return answer if status == 200 else None

    def patch(self, kind, name, change):
        return self.call("PATCH", f"{PATHS[kind]}/{name}", change, MERGE)

    def delete(self, kind, name):
        return self.call("DELETE", f"{PATHS[kind]}/{name}")

    def scale(self, deployment, replicas):
        status, answer = self.patch("deployments", deployment, {"spec": {"replicas": replicas}})
        if status != 200:
            raise RuntimeError(f"scaling {deployment}: {status} {answer}")

    def kubectl(self, *arguments, stdin=None):
        """Output of a kubectl that succeeds."""
        ended = self.try_kubectl(*arguments, stdin=stdin)
        if ended.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(map(str, arguments))}: {ended.stderr.strip()[-2000:]}")
        return ended.stdout

    def try_kubectl(self, *arguments, stdin=None):
        environment = dict(os.environ, KUBECONFIG=str(self.kubeconfig))
        command = ["kubectl", *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=120
        )

    def requests(self, **labels):
        """How many requests of these labels the API server has answered since its start."""
        page = self.call("GET", "/metrics")[1]
        total = 0
        for line in page.splitlines():
            found = re.match(r"apiserver_request_total\{(.*)\} (\S+)$", line)
            if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
                total += float(found[2])
        return int(total)


def condition(thing, kind):
    """The status of a condition: True, False, Unknown or None."""
    for one in thing.get("status", {}).get("conditions", []):
        if one["type"] == kind:
            return one["status"]
    return None


def instance_of(thing):
    """The instance id of a Node or a NodeClaim."""
    identifier = thing.get("spec", {}).get("providerID") or thing.get("status", {}).get("providerID", "")
    return identifier.rpartition("/")[2]


def is_running(pod):
    return condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def kubeconfig(url, certificate, token):
    """A kubeconfig's text."""
    return json.dumps({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "rig", "cluster": {"server": url, "certificate-authority": str(certificate)}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "user"}}],
        "current-context": "rig",
    })
