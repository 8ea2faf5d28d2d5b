#!/bin/sh
# Builds .venv from the hashed lock files: deploy/install.sh [runtime|demo|dev]
# A second run with unchanged locks does nothing; a changed lock installs again.
set -eu
cd "$(dirname "$0")/.."

set_name=${1:-demo}
lock=deploy/requirements/$set_name.txt
# A user-wide pip setting must not put the packages outside .venv.
export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

fail() {
    printf 'install: %s\n' "$1" >&2
    exit 1
}

version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

has_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

# Sets $python, or ends with one sentence that says what is missing.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        version=$(version_of "$PYTHON") || fail "PYTHON=$PYTHON does not run as Python; name a Python 3.11 or newer."
        new_enough "$PYTHON" || fail "PYTHON=$PYTHON is Python $version, but 3.11 or newer is needed."
        has_venv "$PYTHON" || no_venv "$PYTHON"
        python=$PYTHON
        return
    fi
    newest= without_venv=
    for candidate in python3.13 python3.12 python3.11 python3; do
        version=$(version_of "$candidate") || continue
        newest=${newest:-$version}
        new_enough "$candidate" || continue
        if has_venv "$candidate"; then
            python=$candidate
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    [ -z "$without_venv" ] || no_venv "$without_venv"
    [ -z "$newest" ] || fail "Python $newest is too old: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3."
    fail "no Python was found: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3."
}

no_venv() {
    fail "$1 lacks the modules venv and ensurepip: install them (Debian and Ubuntu: apt install python$(version_of "$1")-venv) or name another Python with PYTHON=."
}

[ -f "$lock" ] || fail "there is no set $set_name: use runtime, demo or dev."

# The directory counts too: a copied .venv still points to where it came from.
stamp_of() {
    echo "$PWD $(cat "deploy/requirements/$1.txt" pyproject.toml deploy/install.sh | cksum)"
}

is_current() {
    [ -x .venv/bin/python ] && [ -f ".venv/installed-$1" ] && [ "$(cat ".venv/installed-$1")" = "$(stamp_of "$1")" ] &&
        { [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON" || true)" = "$(version_of .venv/bin/python)" ]; }
}

# The dev set holds everything.
if is_current "$set_name" || is_current dev; then
    exit 0
fi

find_python
version=$(version_of "$python")
home=$(cat .venv/installed-for 2>/dev/null || true)
if [ "$home" != "$PWD $version" ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    "$python" -m venv .venv || fail "$python could not create .venv; its message is above."
    echo "$PWD $version" >.venv/installed-for
fi
rm -f .venv/installed-runtime .venv/installed-demo .venv/installed-dev

echo "Installing the $set_name packages into .venv with Python $version; this takes about a minute, once." >&2
.venv/bin/python -m pip install --quiet --require-hashes -r "$lock" ||
    fail "pip could not install the packages (its message is above): check the network, or set HTTPS_PROXY or PIP_INDEX_URL, and run it again."
# setuptools warns at length about editable installations, on some Pythons only; a failure shows it all.
output=$(.venv/bin/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable . 2>&1) || {
    printf '%s\n' "$output" >&2
    fail "pip could not install the project itself; its message is above."
}
stamp_of "$set_name" >".venv/installed-$set_name"
