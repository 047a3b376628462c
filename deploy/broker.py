"""Apache Kafka on this machine: one KRaft node, broker and controller, in the background.

Its data stay under `data_dir/kafka/data` and survive a restart, also after kill -9.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from deploy.kafka_jars import LOG4J, find_java, jars
from deploy.processes import Background
from models.errors import StackError
from models.settings import Settings

ANSWERS_WITHIN_S: Final = 300.0  # 4 s on an idle machine, and a minute has been seen on a busy one
STOP_WITHIN_S: Final = 20.0
MAIN_CLASS: Final = "kafka.Kafka"


class Broker:
    """Start, find and stop the broker that `settings` describe. All calls block."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = settings.data_dir.absolute() / "kafka"
        self.data = self.home / "data"
        self.properties = self.home / "server.properties"

    def start(self, say: Callable[[str], None] = lambda _: None) -> None:
        """Start it and wait until it answers; nothing if it runs already. `say` hears what it does.

        Raises StackError if Java or Maven is missing or too old, the port is taken, the disk is
        full, or the broker ends instead of answering (with the end of its log).
        """
        if self.running():
            return
        host, port = self._address()
        java = find_java()
        libs = jars(self.settings, lambda what: say(f"its jars: {what}"))
        self._require_disk()
        require_free(host, port)
        self._write_properties(host, port)
        say("starting")
        self._format(java, libs)
        process = self._background(java, libs)
        process.start()
        self._wait(process, host, port)

    def stop(self) -> str:
        """SIGTERM, and SIGKILL if it does not end in 20 s. What happened, in words."""
        process = self._background()
        if not self.running():  # whatever has that pid now is not ours to stop
            process.pid_file.unlink(missing_ok=True)
            return "was not running"
        return process.stop(STOP_WITHIN_S)

    def running(self) -> bool:
        """Whether our broker runs; a pid file left by a dead or another process does not count."""
        return self.pid() is not None

    def pid(self) -> int | None:
        """Process id of our broker, or None."""
        process = self._background().process()
        if process is None:
            return None
        with contextlib.suppress(psutil.Error):  # it ended while we looked, or is another user's
            if MAIN_CLASS in process.cmdline():
                return int(process.pid)
        return None

    def _address(self) -> tuple[str, int]:
        kafka = self.settings.kafka
        if not kafka.embedded:
            raise StackError(
                f"kafka.embedded is false: the cluster at {kafka.bootstrap} is not ours to start"
            )
        if kafka.security_protocol != "PLAINTEXT":
            raise StackError(
                f"the embedded broker speaks PLAINTEXT, not {kafka.security_protocol}; for a "
                "cluster with TLS or SASL set kafka.embedded = false"
            )
        host, _, port = kafka.bootstrap.partition(":")
        if not port.isdigit():
            raise StackError(f"kafka.bootstrap must be one host:port, not {kafka.bootstrap!r}")
        return host, int(port)

    def _require_disk(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.data).free // 2**20
        least = self.settings.kafka.broker_min_free_mb
        if free < least:
            raise StackError(
                f"disk full: {free} MiB free at {self.data}, the broker wants {least} "
                "(kafka.broker_min_free_mb); make room or set data_dir to another disk"
            )

    def _write_properties(self, host: str, port: int) -> None:
        listener = f"PLAINTEXT://{host}:{port}"
        controller = f"127.0.0.1:{free_port()}"
        lines = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{listener},CONTROLLER://{controller}",
            "advertised.listeners": listener,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.data,
            "auto.create.topics.enable": "false",  # with the wrong partition count
            "message.max.bytes": self.settings.kafka.max_message_bytes,
            "log.index.size.max.bytes": 1_048_576,  # of files that are allocated in advance
            "offsets.topic.num.partitions": 4,
            "offsets.retention.minutes": 525_600,  # of a stack that is down for a while: a year
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1_000,
        }
        self.properties.write_text("".join(f"{k}={v}\n" for k, v in lines.items()))

    def _format(self, java: str, libs: Path) -> None:
        """Give the data folder a cluster id, once in its life."""
        if (self.data / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = [java, "-Xmx128m", f"-Dlog4j2.configurationFile={LOG4J}", "-cp", f"{libs}/*"]
        command = [*tool, "kafka.tools.StorageTool", "format", "--cluster-id=" + cluster]
        command += ["--config", str(self.properties)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"cannot format {self.data}: {(done.stderr or done.stdout)[-400:]}")

    def _background(self, java: str = "java", libs: Path = Path("libs")) -> Background:
        heap = f"-Xmx{self.settings.kafka.broker_heap_mb}m"
        options = [heap, "-XX:+ExitOnOutOfMemoryError", f"-Dlog4j2.configurationFile={LOG4J}"]
        return Background(
            name="kafka",
            command=[java, *options, "-cp", f"{libs}/*", MAIN_CLASS, str(self.properties)],
            environment={},
            pid_file=self.settings.data_dir / "run" / "kafka.json",
            log_file=self.settings.data_dir / "logs" / "kafka.log",
        )

    def _wait(self, process: Background, host: str, port: int) -> None:
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while not (listens(host, port) and asyncio.run(_answers(f"{host}:{port}"))):
            if process.process() is None:
                raise StackError(_why_ended(process))
            if time.monotonic() > deadline:
                process.stop(STOP_WITHIN_S)
                raise StackError(
                    f"the broker did not answer at {host}:{port} within {ANSWERS_WITHIN_S:.0f} s; "
                    f"see {process.log_file}"
                )
            time.sleep(0.1)


async def _answers(bootstrap: str) -> bool:
    """Whether the broker has joined its own cluster, so that topics can be made."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()


def _why_ended(process: Background) -> str:
    lines = process.last_lines()
    full = any("No space left on device" in line for line in lines)
    cause = "the disk is full: make room and start again" if full else "mend the cause"
    tail = "\n".join(f"    {line}" for line in lines)
    return f"the broker ended while starting; {cause}. The end of {process.log_file}:\n{tail}"


def listens(host: str, port: int) -> bool:
    """Whether anything accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False


def require_free(host: str, port: int) -> None:
    """Raise StackError, naming the program if the system tells, if the port is taken."""
    if not listens(host, port):
        return
    raise StackError(
        f"port {port} is taken by {_listener(port)}; stop that, or choose another port: "
        f"PALATE_KAFKA__BOOTSTRAP={host}:{port + 1}, or use that cluster: "
        f"KAFKA_BOOTSTRAP={host}:{port}"
    )


def _listener(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):  # other users' sockets may be hidden
        for connection in psutil.net_connections("tcp"):
            _, at = connection.laddr or ("", None)
            if connection.status == psutil.CONN_LISTEN and at == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on now, and that no client is given meanwhile.

    Systems take the ports of outgoing connections from 32768 (Linux) or 49152 on.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
