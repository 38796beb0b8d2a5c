"""Everything that runs: the rig, moto, three leaders, and an agent on every node."""

import json
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import parts
from cloud import REGION, Cloud, Tap
from cluster import Cluster, instance_of, kubeconfig
from gate import Gate
from imds import Imds
from processes import Process

LEADERS = 3
WORLD = "-boot-delay 1500ms -ec2-poll 500ms -cluster-tag kubernetes.io/cluster/rig"


class Stage:
    """The whole system. Start it with `start`, and always `stop` it."""

    def __init__(self, rig, cache, moto, binaries):
        self.rig, self.cache, self.moto, self.binaries = rig, cache, moto, binaries
        self.folder = Path(tempfile.mkdtemp(prefix="drover-kubeapi-"))
        self.imds = Imds()
        self.agents = {}  # instance -> Process
        self.leaders = {}  # replica -> Process
        self.tap = None
        self.gate = None
        self.run = None
        self.stopping = threading.Event()
        self.follower = None

    def start(self):
        api, etcd, moto, *ports = parts.free_ports(3 + 2 * LEADERS)
        self.write_tokens({})
        self.run = subprocess.Popen(
            [self.rig / "run.sh"],
            env=dict(
                os.environ,
                DIR=str(self.folder),
                PORT=str(api),
                ETCD_PORT=str(etcd),
                MOTO_PORT=str(moto),
                MOTO_SERVER=str(self.moto),
                KUBEAPI_CACHE=str(self.cache),
                WORLD_ARGS=WORLD,
            ),
            stdout=subprocess.PIPE,
            stderr=open(self.folder / "rig.log", "wb"),
            text=True,
        )
        self.await_line("READY")
        self.cloud = Cloud(f"http://127.0.0.1:{moto}")
        self.tap = Tap(self.cloud.url)
        self.gate = Gate(api)
        self.url = f"https://127.0.0.1:{api}"
        self.certificate = self.folder / "server.crt"
        self.cluster = Cluster(self.url, self.certificate, self.admin, self.folder / "kubeconfig")
        self.ports = list(zip(ports[::2], ports[1::2]))

    def await_line(self, wanted):
        for line in self.run.stdout:
            if line.strip() == wanted:
                return
        raise RuntimeError(f"the rig ended before it said {wanted}; see {self.folder}/*.log")

    def stop(self):
        self.stopping.set()
        if self.follower:
            self.follower.join()
        for process in [*self.agents.values(), *self.leaders.values()]:
            process.stop()
        for part in (self.tap, self.gate):
            if part:
                part.stop()
        self.imds.stop()
        if self.run and self.run.poll() is None:
            self.run.terminate()
            self.run.wait(60)

    # Users of the API server: an administrator, and Drover with exactly the rules of deploy/.

    admin = secrets.token_hex(16)
    users = {name: secrets.token_hex(16) for name in ("drover-leader", "drover-agent")}

    def write_tokens(self, rules):
        """The first is the rig's own; users without rules may do anything, so none goes without."""
        entries = [{"token": self.admin, "user": "admin", "groups": ["system:masters"]}]
        for name, granted in rules.items():
            entries.append({
                "token": self.users[name],
                "user": f"system:serviceaccount:drover-system:{name}",
                "groups": ["system:serviceaccounts"],
                "rules": granted,
            })
        (self.folder / "tokens.yaml").write_text(json.dumps(entries))

    def restart_api(self):
        """The API server crashes and comes back on its data. Asked to end, as the rig does, it would
        wait a minute for its watches."""
        children = Path(f"/proc/{self.run.pid}/task/{self.run.pid}/children").read_text().split()
        servers = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "kubeapi\n"]
        self.run.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        self.await_line("RESTARTED")

    def access(self, user):
        """A kubeconfig of one of Drover's users, through the gate."""
        path = self.folder / f"{user}.kubeconfig"
        path.write_text(kubeconfig(f"https://127.0.0.1:{self.gate.port}", self.certificate, self.users[user]))
        return path

    # Leaders.

    def start_leaders(self):
        peers = ",".join(
            f"{n}=127.0.0.1:{raft}/{api}" for n, (raft, api) in enumerate(self.ports, 1)
        )
        access = self.access("drover-leader")
        for n, (raft, api) in enumerate(self.ports, 1):
            flags = {
                "node-id": n,
                "peers": peers,
                "raft-listen": f"127.0.0.1:{raft}",
                "api-listen": f"127.0.0.1:{api}",
                "data-dir": self.folder / f"leader-{n}",
                "kubeconfig": access,
                "cluster-name": "rig",
                "cluster-endpoint": self.url,
                "aws-region": REGION,
                "aws-endpoint-url": self.tap.url,
                "aws-access-key-id": "AKIDTEST",
                "aws-secret-access-key": "secret",
                # The rig knows no service accounts' tokens; the sandbox's tests show those.
                "raft-insecure": "true",
                "api-insecure": "true",
                # Watches that expire are everyday life, and told at debug alone.
                "log-level": "info,openraft=warn,kube_client::client::builder=off,drover_kubernetes::watch=debug",
            }
            command = [self.binaries / "drover-leader"]
            command += [word for name, value in flags.items() for word in (f"--{name}", value)]
            self.leaders[n] = Process(f"leader-{n}", command, self.folder / f"leader-{n}.log").start()

    def ask_leader(self, replica, path):
        """A replica's answer to a GET, or None."""
        try:
            url = f"http://127.0.0.1:{self.ports[replica - 1][1]}{path}"
            with urllib.request.urlopen(url, timeout=3) as answer:
                return json.load(answer)
        except (OSError, ValueError):
            return None

    def leading(self):
        """Which replica leads, and its status; None if none says so."""
        for replica, process in self.leaders.items():
            status = self.ask_leader(replica, "/v1/status") if process.is_running() else None
            if status and status.get("role") == "leader":
                return replica, status
        return None

    # Agents.

    def follow_nodes(self):
        """Starts an agent on each node that joins, as a DaemonSet or systemd would."""
        self.follower = threading.Thread(target=self.match_agents, daemon=True)
        self.follower.start()

    def match_agents(self):
        access = self.access("drover-agent")
        leaders = ",".join(f"http://127.0.0.1:{api}" for _, api in self.ports)
        while not self.stopping.wait(0.3):
            try:
                nodes = self.cluster.list("nodes")
            except (OSError, RuntimeError):
                continue  # The API server is being restarted.
            alive = {instance_of(node): node["metadata"]["name"] for node in nodes}
            for instance, name in alive.items():
                if instance not in self.agents:
                    self.agents[instance] = self.agent(instance, name, access, leaders).start()
            for instance in set(self.agents) - set(alive):
                self.agents[instance].stop()

    def validate(self, instance):
        """What `drover-agent validate` says with an agent's own settings, by line."""
        command = [*self.agents[instance].command, "validate"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.splitlines()

    def agent(self, instance, node, access, leaders):
        # Its own machine, though this one's numbers: no bus that could power this one off.
        root = self.folder / f"root-{instance}"
        root.mkdir(exist_ok=True)
        for shared in ("proc", "sys"):
            if not (root / shared).exists():
                (root / shared).symlink_to(f"/{shared}")
        flags = {
            "node-name": node,
            "imds-endpoint": self.imds.url(instance),
            "host-root": root,
            "leaders": leaders,
            "kubeconfig": access,
            "state-dir": self.folder / f"agent-{instance}",
        }
        command = [self.binaries / "drover-agent", "--no-power-off"]
        command += [word for name, value in flags.items() for word in (f"--{name}", value)]
        return Process(instance, command, self.agent_log(instance))

    def agent_log(self, instance):
        return self.folder / f"agent-{instance}.log"

    def agent_said(self, instance, sentence):
        """The lines of an agent's log that hold a sentence."""
        return lines_with(self.agent_log(instance), sentence)

    def leaders_said(self, sentence):
        """The lines of all leaders' logs that hold a sentence."""
        return [line for one in self.leaders.values() for line in lines_with(one.log, sentence)]


def lines_with(log, sentence):
    return [line for line in log.read_text(errors="replace").splitlines() if sentence in line]


def until(what, look, seconds=90, pause=0.2):
    """Looks until it sees something true, and returns that. What it saw last is in the error, where
    `look` returns falsehoods that tell, such as an empty list."""
    end = time.monotonic() + seconds
    while True:
        try:
            seen = look()
        except OSError as error:  # The API server is away for a moment.
            seen, error_seen = None, error
        else:
            error_seen = None
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}; last: {error_seen or seen!r}")
        time.sleep(pause)
