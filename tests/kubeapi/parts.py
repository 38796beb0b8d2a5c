"""What the run needs from this machine: the rig, Go, kubectl, moto_server, and Drover's binaries."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", CHECKOUT / "target"))
MOTO = "moto[server,ec2,ssm]==5.2.5"
# As in the provider's tests, which install it, too.
MOTO_FOLDER = TARGET / "tmp" / "moto-5.2.5"


class Missing(Exception):
    """Something that this machine lacks."""


def rig_folder():
    """Where the rig's run.sh is."""
    folder = Path(os.environ.get("DROVER_KUBEAPI", CHECKOUT.parent / "shared" / "kubeapi"))
    if not (folder / "run.sh").is_file():
        raise Missing(f"the rig ({folder}/run.sh; DROVER_KUBEAPI names another folder)")
    return folder


def check_tools():
    """Everything that is on PATH."""
    for tool, purpose in [
        ("go", "builds the rig"),
        ("curl", "is used by the rig"),
        ("kubectl", "applies the manifests"),
        ("cargo", "builds Drover"),
    ]:
        if shutil.which(tool) is None:
            raise Missing(f"{tool}, which {purpose}")


def moto_server():
    """moto_server's path, after installing it where it is not."""
    server = MOTO_FOLDER / "bin" / "moto_server"
    if not server.exists():
        if subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode:
            raise Missing("Python's venv (Debian: apt-get install python3-venv), which moto is installed with")
        run([sys.executable, "-m", "venv", "--clear", MOTO_FOLDER])
        run([MOTO_FOLDER / "bin" / "pip", "install", "--quiet", MOTO])
    return server


def run(command):
    """Runs a part of moto's installation; only an index that can't be reached is something missing."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    shutil.rmtree(MOTO_FOLDER, ignore_errors=True)
    if "(from versions: none)" in done.stderr:
        raise Missing("a package index that can be reached, for moto")
    sys.exit(f"moto was not installed:\n{done.stdout}{done.stderr}")


def build_rig(folder, cache):
    """Builds the rig into the cache; 6 CPU-minutes the first time."""
    environment = dict(os.environ, KUBEAPI_CACHE=str(cache))
    built = subprocess.run([folder / "run.sh", "build"], env=environment, capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit(f"the rig was not built:\n{built.stderr}")


def build_drover():
    """Builds the three binaries, with the features that the tests' build has; returns their folder."""
    command = ["cargo", "build", "--locked", "--quiet"]
    subprocess.run(command, cwd=CHECKOUT, check=True)
    return TARGET / "debug"


def free_ports(count):
    """Ports below the range of outgoing connections, so that what is restarted finds its own again."""
    found = []
    start = os.getpid() * 97 % 18000
    for step in range(18000):
        port = 12000 + (start + step) % 18000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    sys.exit(f"cannot find {count} free ports")
