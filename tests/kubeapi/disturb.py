"""What must not disturb: expired watches, restarts, conflicts, an interruption, a killed leader."""

import threading
import time

from begin import claims_ready, describe, running
from cluster import instance_of, is_running
from stage import until

FIELDS = {"subresource": "eviction", "resource": "pods"}


def settle(stage, replicas):
    """Waits until so many pods of the web deployment run, and every claim is ready."""
    until(f"{replicas} pods run", lambda: running(stage) == replicas)
    until("every NodeClaim is Ready", lambda: claims_ready(stage))


def expire_watches(stage):
    """the API server restarts with its history compacted: watches resume, expire (410) and list anew"""
    stage.gate.shut()
    # History moves on behind the gate, so that every watch holds a version from before it begins.
    for n in range(20):
        stage.cluster.call(
            "POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": f"history-{n}"}}
        )
    status, answer = stage.cluster.call("POST", "/rig/compact", {})
    assert status == 200, answer
    stage.restart_api()
    stage.cluster.scale("web", 9)
    cut = stage.gate.reopen()
    settle(stage, 9)
    expired = len(stage.leaders_said("Watch expired; listing."))
    assert expired > 0, "no watch expired"
    return f"{cut} connections cut, {expired} watches expired; {describe(stage)}"


def meddle(stage):
    """another writer changes every Node and NodeClaim again and again; conflicts are got over"""
    done = threading.Event()
    writes = [0]

    def write():
        while not done.is_set():
            for kind in ("nodes", "nodeclaims"):
                for thing in stage.cluster.list(kind):
                    change = {"metadata": {"annotations": {"example.com/touched": str(writes[0])}}}
                    stage.cluster.patch(kind, thing["metadata"]["name"], change)
                    writes[0] += 1

    before = stage.cluster.requests(code="409")
    writers = [threading.Thread(target=write, daemon=True) for _ in range(4)]
    for writer in writers:
        writer.start()
    conflicts = 0
    try:
        # Each further node is a chance that two write at once.
        for replicas in range(12, 27, 3):
            stage.cluster.scale("web", replicas)
            settle(stage, replicas)
            conflicts = stage.cluster.requests(code="409") - before
            if conflicts > 0:
                break
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert conflicts > 0, "nothing conflicted"
    return f"{writes[0]} foreign writes, {conflicts} conflicts; {describe(stage)}"


def interrupt(stage):
    """a spot notice in IMDS: the node's agent cordons it, and drains it past its budget's wait"""
    pods = [pod for pod in stage.cluster.list("pods") if pod["metadata"]["labels"].get("app") == "web"]
    nodes = {node["metadata"]["name"]: node for node in stage.cluster.list("nodes")}
    count = {name: sum(pod["spec"].get("nodeName") == name for pod in pods) for name in nodes}
    name = max(count, key=count.get)
    assert count[name] >= 2, f"no node holds two pods: {count}"
    instance = instance_of(nodes[name])
    claims = {claim["metadata"]["name"] for claim in stage.cluster.list("nodeclaims")}
    refused = stage.cluster.requests(code="429", **FIELDS)
    fewest = len(pods)
    began = time.monotonic()
    stage.imds.interrupt(instance)

    def cordoned():
        node = stage.cluster.get("nodes", name)
        return node is None or node["spec"].get("unschedulable")

    until("the node is cordoned", cordoned, pause=0.05)
    after = time.monotonic() - began
    assert stage.imds.notice_reads.get(instance), "the agent has not read the notice"
    assert stage.agent_said(instance, "Notice is in force"), stage.agent_log(instance)

    def gone():
        nonlocal fewest
        web = [pod for pod in stage.cluster.list("pods") if pod["metadata"]["labels"].get("app") == "web"]
        fewest = min(fewest, sum(is_running(pod) for pod in web))
        return stage.cluster.get("nodes", name) is None

    until("the node is gone", gone)
    took = time.monotonic() - began
    until("its instance is terminated", lambda: instance not in {one["id"] for one in stage.cloud.running()})
    refused = stage.cluster.requests(code="429", **FIELDS) - refused
    settle(stage, len(pods))
    replaced = {claim["metadata"]["name"] for claim in stage.cluster.list("nodeclaims")} - claims
    assert replaced, "no NodeClaim replaced the one that left"
    assert refused > 0, "no eviction had to wait for the budget"
    assert fewest >= len(pods) - 1, f"{fewest} of {len(pods)} pods ran: the budget was passed"
    drained = stage.agent_said(instance, "Drain goes on")
    assert drained and "forced=0" in drained[-1], drained
    return f"cordoned after {after:.1f} s, gone after {took:.0f} s; {count[name]} pods, {refused} refusals"


def kill_leader(stage):
    """the leader is killed while only EC2 knows what it launched; the next one finishes the launch"""
    before = {one["id"] for one in stage.cloud.instances()}
    # More than what is there has room for, however far the steps before this one had to go.
    replicas = running(stage) + 6
    stage.tap.hold = True
    stage.cluster.scale("web", replicas)
    assert stage.tap.held.wait(60), "nothing was launched"
    killed, _ = stage.leading()
    stage.leaders[killed].kill()
    stage.tap.release.set()
    began = time.monotonic()
    taken, _ = until("another replica leads", stage.leading)
    took = time.monotonic() - began
    stage.leaders[killed].start()
    settle(stage, replicas)
    launched = [one for one in stage.cloud.instances() if one["id"] not in before]
    claims = {one["tags"].get("karpenter.sh/nodeclaim") for one in launched}
    # moto launches again for a token that it has seen: a replay would show.
    assert len(claims) == len(launched), f"launched twice: {launched}"
    tokens = stage.tap.fleets
    assert len(tokens) == len(set(tokens)), f"a launch was replayed: {tokens}"
    return f"replica {killed} killed, {taken} leads after {took:.1f} s; {len(launched)} instances"


STEPS = [expire_watches, meddle, interrupt, kill_leader]
