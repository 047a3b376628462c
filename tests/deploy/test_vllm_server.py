from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import get_args

import orjson
import pytest

from deploy import vllm_server
from deploy.vllm_server import VllmOptions, VllmServer, command, environment, has_gpu, options_of
from models.errors import StackError
from models.settings import Settings, load_settings


def adapter(folder: Path, rank: object = 8, **others: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(orjson.dumps({"r": rank, **others}))
    return folder


def options(**changes: object) -> VllmOptions:
    values = {"model": Path("m"), "name": "m", "port": 1, "gpu": False, "max_model_len": 99}
    return VllmOptions(**(values | changes))  # type: ignore[arg-type]


def value_of(flag: str, line: list[str]) -> str:
    return line[line.index(flag) + 1]


def test_prompts_of_the_profilers_length_fit(tmp_path: Path) -> None:
    settings = load_settings(profile={"max_prompt_tokens": 1000, "max_new_tokens": 200})
    made = options_of(settings, tmp_path, gpu=False)
    assert made.max_model_len >= 1200
    assert made.url == "http://127.0.0.1:18000"
    assert value_of("--max-model-len", command(made)) == str(made.max_model_len)


def test_the_port_is_that_of_the_profilers_engine_unless_another_is_given(tmp_path: Path) -> None:
    settings = load_settings(profile={"base_url": "http://0.0.0.0:1234/v1"})
    assert options_of(settings, tmp_path, gpu=False).port == 1234
    assert options_of(settings, tmp_path, gpu=False, port=99).port == 99


def test_on_cpu_nothing_is_compiled_no_prompt_split_and_the_cache_is_small() -> None:
    cpu, gpu = options(), options(gpu=True)
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} <= set(command(cpu))
    assert "--no-enable-chunked-prefill" not in command(gpu)
    assert "VLLM_CPU_KVCACHE_SPACE" in environment(cpu)
    assert "--enforce-eager" not in command(gpu)
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment(gpu)


def test_only_a_hub_id_may_reach_for_the_network() -> None:
    assert environment(options(model=Path("folder")))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(options(model="owner/name"))


def test_there_are_slots_for_live_previous_canary_and_one_more(tmp_path: Path) -> None:
    one = {"a": adapter(tmp_path / "a")}
    many = one | {f"b{n}": adapter(tmp_path / f"b{n}", rank=12) for n in range(6)}
    assert value_of("--max-loras", command(options(loras=one))) == "4"
    assert value_of("--max-lora-rank", command(options(loras=one))) == "8"
    line = command(options(loras=many))
    assert value_of("--max-loras", line) == "8"
    assert value_of("--max-lora-rank", line) == "16"
    assert f"a={tmp_path / 'a'}" in line
    assert environment(options(loras=one))["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "true"


def test_without_a_lora_nothing_is_kept_for_one() -> None:
    assert "--enable-lora" not in command(options())
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment(options())


def test_room_is_kept_for_adapters_that_come_later() -> None:
    line = command(options(later_rank=12))
    assert value_of("--max-lora-rank", line) == "16"
    assert "--lora-modules" not in line
    assert value_of("--max-lora-rank", command(options(later_rank=512))) == "512"
    with pytest.raises(StackError, match="rank 513"):
        command(options(later_rank=513))


@pytest.mark.parametrize(
    ("rank", "others", "slots"),
    [
        (1, {}, "1"),
        (2, {}, "8"),
        (8, {"rank_pattern": {"q_proj": 64}}, "64"),
        (64, {"rank_pattern": {"q_proj": 4}, "lora_alpha": 900}, "64"),
        (8, {"rank_pattern": {"q_proj": 65, "k_proj": 9}, "alpha_pattern": {"q_proj": 512}}, "128"),
        (8, {"rank_pattern": None}, "8"),
        (257, {}, "320"),
        (320, {}, "320"),
        (321, {}, "512"),
        (512, {}, "512"),
    ],
)
def test_the_slots_hold_the_greatest_rank_of_any_module(
    tmp_path: Path, rank: int, others: dict[str, object], slots: str
) -> None:
    line = command(options(loras={"a": adapter(tmp_path / "a", rank, **others)}))
    assert value_of("--max-lora-rank", line) == slots


def test_slots_are_of_sizes_that_the_installed_vllm_takes() -> None:
    lora = pytest.importorskip("vllm.config.lora")
    assert get_args(lora.MaxLoRARanks) == vllm_server.LORA_RANKS


def test_a_module_of_more_than_vllm_serves_is_refused_with_a_way_out(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", 8, rank_pattern={"q_proj": 600})
    with pytest.raises(StackError, match=r"rank 600 .*--merge"):
        command(options(loras={"a": folder}))


@pytest.mark.parametrize("pattern", [[64], "64", {"q_proj": "64"}, {"q_proj": 0}, {"q": True}])
def test_ranks_that_are_none_are_refused(tmp_path: Path, pattern: object) -> None:
    folder = adapter(tmp_path / "a", 8, rank_pattern=pattern)
    with pytest.raises(StackError, match="no LoRA adapter"):
        command(options(loras={"a": folder}))


@pytest.mark.parametrize("rank", [None, "x", 1024, 8.5, -8, True])
def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path, rank: object) -> None:
    folder = adapter(tmp_path / "a", rank) if rank else tmp_path
    with pytest.raises(StackError, match=str(folder)):
        command(options(loras={"a": folder}))


def test_vllm_that_is_not_installed_is_named_with_its_install_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_server, "_installed", lambda package: False)
    with pytest.raises(StackError, match="vllm-cpu"):
        has_gpu()


def server_that_runs(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int = 1
) -> VllmServer:
    monkeypatch.setattr(vllm_server, "command", lambda _: [sys.executable, "-c", script])
    settings: Settings = load_settings(data_dir=tmp_path)
    return VllmServer(settings, options(port=port))


def test_a_server_that_ends_while_it_starts_is_reported_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_that_runs("print('no such model'); raise SystemExit(3)", tmp_path, monkeypatch)
    server.start()
    with pytest.raises(StackError, match=r"has ended.*\n.*no such model"):
        server.wait_ready()


def test_a_server_is_ready_when_health_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.ports import free_port

    port = free_port()
    script = (
        "import http.server as h\n"
        "class A(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200 if self.path == '/health' else 404)\n"
        "        self.end_headers()\n"
        f"h.HTTPServer(('127.0.0.1', {port}), A).serve_forever()\n"
    )
    server = server_that_runs(script, tmp_path, monkeypatch, port)
    server.start()
    try:
        server.wait_ready()
        server.start()  # runs already: nothing, though the port is taken
        assert server.running()
    finally:
        server.stop()
    assert not server.running()


def test_a_port_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = server_that_runs("", tmp_path, monkeypatch, port)
        with pytest.raises(StackError, match=f"port {port} is taken"):
            server.start()
