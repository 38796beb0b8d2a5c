"""From nothing to running pods."""

import json
import re
from pathlib import Path

from cluster import condition, instance_of, is_running
from parts import CHECKOUT
from stage import until

MANIFESTS = Path(__file__).parent / "manifests"
CRDS = CHECKOUT / "deploy" / "crds"
RBAC = {"drover-agent": "10-agent-rbac.yaml", "drover-leader": "20-leader-rbac.yaml"}
# Groups that the rig does not serve; the sandbox's tests apply their objects.
NOT_SERVED = ("admissionregistration.k8s.io/", "networking.k8s.io/")


def start(stage):
    """the rig starts"""
    stage.start()
    stage.cloud.furnish()


def apply_crds(stage):
    """our CRDs apply: schemas, and rules within the API server's cost estimate"""
    stage.cluster.kubectl("apply", "--server-side", "-f", CRDS)
    kinds = [file.stem.split("_")[1] + "." + file.stem.split("_")[0] for file in CRDS.iterdir()]
    for kind in kinds:
        stage.cluster.kubectl("wait", "--for=condition=Established", f"crd/{kind}", "--timeout=30s")
        made = stage.cluster.call("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind}")[1]
        assert condition(made, "NonStructuralSchema") is None, made["status"]["conditions"]
    return f"{len(kinds)} kinds"


def apply_manifests(stage):
    """our manifests apply, field by field"""
    folder = CHECKOUT / "deploy" / "manifests"
    stage.cluster.kubectl("apply", "-f", folder / "00-namespace.yaml")
    text = "\n---\n".join(file.read_text() for file in sorted(folder.iterdir()))
    documents = [one for one in re.split(r"^---$", text, flags=re.MULTILINE) if "apiVersion:" in one]
    served = [one for one in documents if not re.search(rf"^apiVersion: ({'|'.join(NOT_SERVED)})", one, re.MULTILINE)]
    # Not stored: the workloads would wait for nodes, and their pods would be planned for.
    applied = stage.cluster.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin="\n---\n".join(served)
    )
    assert len(applied.splitlines()) == len(served), applied
    return f"{len(served)} objects, {len(documents) - len(served)} of kinds that the rig does not serve"


def limit_powers(stage):
    """Drover gets the rights of its manifests, and no others"""
    rules = {}
    for user, file in RBAC.items():
        path = CHECKOUT / "deploy" / "manifests" / file
        documents = json.loads(stage.cluster.kubectl("apply", "-f", path, "-o", "json"))["items"]
        # The rig's rules know no names of resources.
        rules[user] = [
            {
                "verbs": rule["verbs"],
                "apiGroups": rule["apiGroups"],
                "resources": rule["resources"],
                "namespaces": [role["metadata"]["namespace"]] if role["kind"] == "Role" else [],
            }
            for role in documents
            if role["metadata"]["name"].startswith(user) and role["kind"] in ("Role", "ClusterRole")
            for rule in role["rules"]
        ]
        assert rules[user], documents
    stage.write_tokens(rules)
    stage.restart_api()
    return ", ".join(f"{len(granted)} rules for {user}" for user, granted in rules.items())


def elect(stage):
    """three leaders elect one, which takes Karpenter's lease"""
    stage.start_leaders()
    stage.follow_nodes()
    replica, _ = until("a leader", stage.leading)
    until("the lease is held", lambda: (stage.leading() or (0, {}))[1].get("lease") == "held")
    lease = stage.cluster.get("leases", "karpenter-leader-election")
    return f"replica {replica}; the lease is {lease['spec']['holderIdentity']}'s"


def resolve_class(stage):
    """NodePool and EC2NodeClass become ready"""
    stage.cluster.kubectl("apply", "-f", MANIFESTS / "pool.yaml")

    def ready():
        found = stage.cluster.get("ec2nodeclasses", "default"), stage.cluster.get("nodepools", "general")
        states = [condition(one, "Ready") for one in found]
        return found if states == ["True", "True"] else []

    found, _ = until("class and pool are ready", ready)
    status = found["status"]
    return f"{len(status['subnets'])} subnets, image {status['amis'][0]['id']}"


def place_pods(stage):
    """pending pods get instances, nodes join and register, pods run"""
    stage.cluster.kubectl("apply", "-f", MANIFESTS / "workload.yaml")
    until("6 pods run", lambda: running(stage) == 6)
    until("every NodeClaim is Ready", lambda: claims_ready(stage))
    return describe(stage)


def ask_for_powers(stage):
    """the API server allows agents all that they ask for"""
    told = {instance: stage.validate(instance) for instance in list(stage.agents)}
    assert told
    for instance, lines in told.items():
        assert [line for line in lines if not line.startswith("valid:")] == [], (instance, lines)
    return f"{len(told)} agents"


def running(stage, app="web"):
    """How many pods of an app are ready."""
    pods = stage.cluster.list("pods")
    return sum(pod["metadata"]["labels"].get("app") == app and is_running(pod) for pod in pods)


def claims_ready(stage):
    """Whether there are NodeClaims, and each is Launched, Registered, Initialized and Ready, with a
    node of its own instance that is free of our taint."""
    claims = stage.cluster.list("nodeclaims")
    nodes = {instance_of(node): node for node in stage.cluster.list("nodes")}
    for claim in claims:
        node = nodes.get(instance_of(claim))
        kinds = ("Launched", "Registered", "Initialized", "Ready")
        if node is None or any(condition(claim, kind) != "True" for kind in kinds):
            return False
        assert claim["status"]["nodeName"] == node["metadata"]["name"]
        assert "karpenter.sh/termination" in node["metadata"]["finalizers"], node["metadata"]
        assert node["metadata"]["labels"]["karpenter.sh/registered"] == "true"
        taints = [taint["key"] for taint in node["spec"].get("taints", [])]
        if "karpenter.sh/unregistered" in taints:
            return False
    return bool(claims)


def describe(stage):
    """Nodes by type, for people."""
    types = sorted(one["type"] for one in stage.cloud.running())
    return f"{running(stage)} pods on {', '.join(types)}"


STEPS = [start, apply_crds, apply_manifests, limit_powers, elect, resolve_class, place_pods, ask_for_powers]
