"""Processes that are started, watched and ended by their ids."""

import os
import signal
import subprocess


class Process:
    """One child, its output in a log file."""

    def __init__(self, name, command, log, environment=None):
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self.environment = dict(os.environ, **(environment or {}))
        self.child = None

    def start(self):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    @property
    def pid(self):
        return self.child.pid

    def is_running(self):
        return self.child is not None and self.child.poll() is None

    def kill(self):
        """Without a goodbye."""
        if self.is_running():
            self.child.kill()
        self.child.wait()

    def signal(self, number):
        os.kill(self.pid, number)

    def stop(self, patience=15):
        """Asks, and insists after a while."""
        if self.child is None:
            return
        if self.is_running():
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
