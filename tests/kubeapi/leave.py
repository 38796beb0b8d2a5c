"""A claim of a user's own, then down to nothing, and what is left behind."""

from begin import MANIFESTS
from cluster import condition, instance_of
from stage import until


def launch_by_hand(stage):
    """a NodeClaim of no NodePool is launched, registered, and initialized"""
    stage.cluster.kubectl("apply", "-f", MANIFESTS / "claim.yaml")

    def ready():
        claim = stage.cluster.get("nodeclaims", "by-hand")
        return claim if condition(claim, "Ready") == "True" else None

    claim = until("the NodeClaim is Ready", ready)
    node = stage.cluster.get("nodes", claim["status"]["nodeName"])
    assert node["metadata"]["labels"].get("team") == "own", node["metadata"]
    assert "karpenter.sh/nodepool" not in node["metadata"]["labels"], node["metadata"]
    assert "example.com/own" in [taint["key"] for taint in node["spec"]["taints"]], node["spec"]
    return claim["metadata"]["labels"]["node.kubernetes.io/instance-type"]


def hold_by_volume(stage):
    """its instance ends only when its volumes are off"""
    claim = stage.cluster.get("nodeclaims", "by-hand")
    instance = instance_of(claim)
    attachment = {
        "metadata": {"name": "rig-volume"},
        "spec": {
            "attacher": "ebs.csi.aws.com",
            "nodeName": claim["status"]["nodeName"],
            "source": {"persistentVolumeName": "rig-volume"},
        },
    }
    status, answer = stage.cluster.call("POST", "/apis/storage.k8s.io/v1/volumeattachments", attachment)
    assert status == 201, answer
    stage.cluster.kubectl("delete", "nodeclaim", "by-hand", "--wait=false")

    def waits():
        conditions = stage.cluster.get("nodeclaims", "by-hand")["status"]["conditions"]
        return "AwaitingVolumeDetachment" in [one["reason"] for one in conditions]

    until("the claim waits for its volume", waits)
    assert instance in {one["id"] for one in stage.cloud.running()}, "the instance was terminated"
    stage.cluster.delete("volumeattachments", "rig-volume")
    until("the claim is gone", lambda: stage.cluster.get("nodeclaims", "by-hand") is None)
    assert instance not in {one["id"] for one in stage.cloud.running()}, "the instance was left"


def scale_down(stage):
    """fewer pods need fewer nodes; the rest are removed and their instances terminated"""
    before = len(stage.cluster.list("nodes"))
    stage.cluster.scale("web", 0)
    until("no NodeClaim is left", lambda: not stage.cluster.list("nodeclaims"))
    until("no Node is left", lambda: not stage.cluster.list("nodes"))
    until("no instance runs", lambda: not stage.cloud.running())
    return f"{before} nodes before"


def audit(stage):
    """no instance served two claims or none, and Drover was never refused a right"""
    instances = stage.cloud.instances()
    by_claim = {}
    for one in instances:
        for key in ("karpenter.sh/nodeclaim", "drover.dev/intent", "drover.dev/cluster-uid"):
            assert one["tags"].get(key), f"{one['id']} bears no {key}"
        by_claim.setdefault(one["tags"]["karpenter.sh/nodeclaim"], []).append(one["id"])
    twice = {claim: ids for claim, ids in by_claim.items() if len(ids) > 1}
    assert not twice, twice
    forbidden = stage.cluster.requests(code="403")
    assert forbidden == 0, f"{forbidden} requests were forbidden"
    logs = [stage.agent_log(one["id"]) for one in instances] + [one.log for one in stage.leaders.values()]
    panics = [log.name for log in logs if log.exists() and "panicked" in log.read_text(errors="replace")]
    assert not panics, panics
    return f"{len(instances)} instances in all"


STEPS = [launch_by_hand, hold_by_volume, scale_down, audit]
