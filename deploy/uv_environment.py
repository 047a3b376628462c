"""The variables with which uv fetches from where pip fetches on this machine.

uv reads neither pip's files nor its variables. `deploy/setup.sh` runs this with the Python that it
found, before anything is installed, and sets what is printed: one NAME=value a line.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

INDEXES: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
}
CONNECTION: Final = {
    "proxy": "ALL_PROXY",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
OWN_INDEX: Final = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")
SECTIONS: Final = ("global", "install", ":env:")  # the later one counts, as for `pip install`


def uv_environment(listed: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables for uv that `environment` lacks. `listed`: what `pip config list` prints.

    Where uv has an index of its own (a variable, a uv.toml), pip's indexes are not passed on.
    """
    settings = _pip_settings(listed)
    names = CONNECTION if has_own_index(environment) else {**INDEXES, **CONNECTION}
    found = {
        variable: _as_uv_writes_it(name, settings[name])
        for name, variable in names.items()
        if settings.get(name)
    }
    if "UV_EXTRA_INDEX_URL" in found:  # as pip: whichever index has the pinned version
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in found.items() if value and name not in environment}


def has_own_index(environment: Mapping[str, str]) -> bool:
    """Whether somebody told uv itself where to fetch from."""
    home = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME", "/"), ".config")
    files = (Path(home, "uv/uv.toml"), Path("/etc/uv/uv.toml"))
    return any(map(environment.get, OWN_INDEX)) or any(file.exists() for file in files)


def _pip_settings(listed: str) -> dict[str, str]:
    """Name → value, of lines like `global.index-url='https://…'`."""
    sections: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in sections:
            sections[section][name] = str(ast.literal_eval(value))
    return {name: value for section in SECTIONS for name, value in sections[section].items()}


def _as_uv_writes_it(name: str, value: str) -> str:
    """Pip separates by any white space, uv by spaces or commas, and a folder must exist."""
    parts = value.split()
    if name == "find-links":
        return ",".join(part for part in parts if "://" in part or Path(part).exists())
    if name == "no-index":
        return "true" if value.lower() in ("1", "true", "yes", "on") else ""
    return " ".join(parts)


def main() -> None:
    """Ask pip, print the variables. Nothing is printed where Python has no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for name, value in uv_environment(listed, os.environ).items():
        print(f"{name}={value}")


if __name__ == "__main__":
    main()
