from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import orjson
import psutil
import pytest

from deploy import broker as module
from deploy.broker import Broker, free_port, require_free
from deploy.kafka_jars import find_java, jars, java_version
from models.errors import StackError
from streams.kafka.clients import producer, start_client
from streams.kafka.topics import ensure_topics


@pytest.fixture
def own(make_settings, tmp_path):
    """Settings of an embedded broker that nobody else uses; no Java is started by itself."""

    def make(**kafka):
        address = f"127.0.0.1:{free_port()}"
        return make_settings(kafka={"bootstrap": address, "embedded": True} | kafka)

    return make


def program(folder: Path, name: str, script: str) -> Path:
    """An executable shell script, for a PATH on which only it is found."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# -- what is missing on this machine -----------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_401"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("no java here", None),
    ],
)
def test_the_version_is_read_from_what_java_prints(printed, version):
    assert java_version(printed) == version


def test_missing_java_is_named_with_the_install_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"needs Java 17 or newer, none found; .*apt-get install"):
        find_java()


def test_java_that_is_too_old_is_named_with_its_version(monkeypatch, tmp_path):
    java = program(tmp_path / "bin", "java", "echo 'openjdk version \"11.0.2\"' >&2")
    monkeypatch.setenv("PATH", str(java.parent))
    with pytest.raises(StackError, match=rf"{java} is version 11; .*KAFKA_BOOTSTRAP=host:9092"):
        find_java()


def test_missing_maven_is_named_with_the_install_line(monkeypatch, tmp_path, own):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(StackError, match=r"mvn not found; .*apt-get install .*maven"):
        jars(own(broker_jars=tmp_path / "jars"))


def test_what_maven_reports_reaches_the_user_and_leaves_no_half_filled_folder(
    monkeypatch, tmp_path, own
):
    maven = program(tmp_path / "bin", "mvn", "echo '[ERROR] Unknown host repository'; exit 1")
    monkeypatch.setenv("PATH", str(maven.parent))
    cache = tmp_path / "jars"
    with pytest.raises(StackError, match=r"\[ERROR\] Unknown host repository\); run: .*mvn -q"):
        jars(own(broker_jars=cache))
    assert [path.name for path in cache.iterdir()] == ["jars.lock"]


def test_jars_are_fetched_once_and_then_found(monkeypatch, tmp_path, own):
    script = """for last; do :; done; to=${last#-DoutputDirectory=}
        /bin/mkdir -p "$to"; : > "$to/kafka_2.13-4.1.0.jar" """
    maven = program(tmp_path / "bin", "mvn", script)
    settings = own(broker_jars=tmp_path / "jars")
    monkeypatch.setenv("PATH", str(maven.parent))
    said: list[str] = []
    folder = jars(settings, said.append)
    assert [path.name for path in folder.iterdir()] == ["kafka_2.13-4.1.0.jar"]
    maven.unlink()
    assert jars(settings, said.append) == folder
    assert said == ["fetching 43 MB with Maven, once"]


# -- what stands in the way --------------------------------------------------------------------


@pytest.fixture
def java_found(monkeypatch, tmp_path):
    """The tools are there, so that what comes after them can be seen."""
    monkeypatch.setattr(module, "find_java", lambda: "java")
    monkeypatch.setattr(module, "jars", lambda settings, say: tmp_path)


def test_a_taken_port_is_refused_with_who_has_it(java_found, own):
    settings = own()
    with socket.socket() as other:
        host, port = settings.kafka.bootstrap.split(":")
        other.bind((host, int(port)))
        other.listen()
        me = rf"{re.escape(psutil.Process().name())} \(pid {os.getpid()}\)"
        with pytest.raises(StackError, match=rf"port {port} is taken by ({me}|another program); "):
            Broker(settings).start()


def refused(port: int) -> bool:
    try:
        require_free("127.0.0.1", port)
    except StackError:
        return True
    return False


def test_a_port_is_refused_while_it_is_taken_and_not_after():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused(port)
    assert not refused(port)


def test_a_full_disk_is_refused_before_anything_is_written(java_found, own):
    settings = own(broker_min_free_mb=10**9)
    with pytest.raises(
        StackError, match=r"disk full: \d+ MiB free at .*, the broker wants 1000000"
    ):
        Broker(settings).start()
    assert list(Broker(settings).data.iterdir()) == []


def test_a_cluster_of_ones_own_is_not_started(own):
    with pytest.raises(StackError, match=r"kafka\.embedded is false: the cluster at "):
        Broker(own(embedded=False)).start()


def test_the_embedded_broker_does_not_pretend_to_speak_tls(own):
    with pytest.raises(StackError, match="speaks PLAINTEXT, not SSL"):
        Broker(own(security_protocol="SSL")).start()


@pytest.mark.parametrize("bootstrap", ["a:1,b:2", "somewhere", "host:port"])
def test_an_address_that_cannot_be_listened_on_is_refused(bootstrap, own):
    with pytest.raises(StackError, match=r"must be one host:port, not "):
        Broker(own(bootstrap=bootstrap)).start()


# -- stale processes ---------------------------------------------------------------------------


def write_pid(broker: Broker, pid: int, created: float) -> Path:
    path = broker.settings.data_dir / "run" / "kafka.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(orjson.dumps({"pid": pid, "created": created, "name": "kafka"}))
    return path


def test_a_pid_file_of_a_dead_process_does_not_count(own):
    broker = Broker(own())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    created = psutil.Process(ended.pid).create_time()
    ended.wait()
    write_pid(broker, ended.pid, created)
    assert not broker.running()


def test_a_pid_that_another_program_has_now_is_left_alone(own):
    broker = Broker(own())
    pid_file = write_pid(broker, os.getpid(), psutil.Process().create_time())
    assert not broker.running()
    assert broker.stop() == "was not running"  # and this process is still here
    assert not pid_file.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"12345", b'{"pid": "x", "created": 1}', b"\xff"])
def test_a_pid_file_that_makes_no_sense_does_not_count(content, own):
    broker = Broker(own())
    write_pid(broker, 1, 0.0).write_bytes(content)
    assert not broker.running()


# -- a real broker -----------------------------------------------------------------------------


async def send(settings, value: bytes) -> int:
    """Offset of the record in the one partition of topic interactions."""
    await ensure_topics(settings)
    sender = await start_client(lambda: producer(settings))
    try:
        sent = await sender.send_and_wait(settings.topic("interactions"), value, key=b"u")
        return int(sent.offset)
    finally:
        await sender.stop()


@pytest.mark.service
def test_its_life_start_again_kill_restart_stop(needs_java, own):
    settings = own(partitions=1)
    broker = Broker(settings)
    broker.start()
    try:
        first = broker.pid()
        assert os.getsid(first) != os.getsid(0)  # Ctrl-C here does not reach it
        broker.start()
        assert broker.pid() == first
        assert Broker(settings).pid() == first  # another command finds it
        assert asyncio.run(send(settings, b"before")) == 0

        os.kill(first, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(first)])
        assert not broker.running()
        broker.start()
        assert asyncio.run(send(settings, b"after a kill")) == 1

        assert broker.stop() == "stopped"
        assert not broker.running()
        broker.start()
        assert asyncio.run(send(settings, b"after a stop")) == 2
    finally:
        broker.stop()
    assert broker.stop() == "was not running"


@pytest.mark.service
def test_a_broker_that_ends_while_starting_shows_the_end_of_its_log(needs_java, own):
    settings = own()
    broker = Broker(settings)
    broker.data.mkdir(parents=True)
    (broker.data / "meta.properties").write_text("version=1\nnode.id=77\ncluster.id=x\n")
    with pytest.raises(StackError, match=r"ended while starting; mend the cause(?s:.)*77"):
        broker.start()
    assert not broker.running()
