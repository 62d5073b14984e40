# Sourced by the other scripts: the repository's root, and virtual environments that are made once and renewed
# when what they were made from changes. Needs Python 3.11 or newer and pip, nothing else.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Where it is set, each of some thousand processes would compile all that it imports anew.
unset PYTHONDONTWRITEBYTECODE

say() { printf '\n== %s\n' "$*"; }

# Prints the interpreter to make environments with: $PYTHON, or the first that is new enough.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13 python; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "modelpack needs Python 3.11 or newer; set PYTHON to one" >&2
    return 1
}

# make_venv DIR: a new environment with the pinned pip.
make_venv() {
    local python
    python="$(find_python)"
    rm -rf "$1"
    # Some distributions ship Python without ensurepip: then the machine's own pip fills the environment.
    "$python" -m venv "$1" 2>/dev/null || "$python" -m venv --clear --without-pip "$1"
    if [ -x "$1/bin/pip" ]; then
        "$1/bin/python" -m pip install -qq -c "$root/constraints.txt" --upgrade pip
    else
        "$python" -m pip --python "$1/bin/python" install -qq -c "$root/constraints.txt" pip
    fi
}

# fresh DIR FILE...: true if DIR was finished with these very files.
fresh() {
    local dir="$1"
    shift
    [ -f "$dir/.made-from" ] && [ "$(cat "$dir/.made-from")" = "$(cat "$@" | cksum)" ]
}

# finished DIR FILE...: remembers that DIR is complete.
finished() {
    local dir="$1"
    shift
    cat "$@" | cksum > "$dir/.made-from"
}

# mlflow_venv: an environment with MLflow, which nothing here depends on; it takes a minute or two. Sets $mlflow.
mlflow_venv() {
    mlflow="$root/.venv-mlflow"
    fresh "$mlflow" "$root/tests/interop/requirements.txt" && return
    say "installing MLflow into .venv-mlflow"
    make_venv "$mlflow"
    "$mlflow/bin/pip" install -qq -r "$root/tests/interop/requirements.txt"
    finished "$mlflow" "$root/tests/interop/requirements.txt"
}

# lend_to_mlflow: what .venv has, behind what MLflow's own environment has: modelpack and the models' frameworks.
lend_to_mlflow() {
    python - "$mlflow" <<'LEND'
import pathlib, sys, sysconfig
folder = sysconfig.get_path("purelib", vars={"base": sys.argv[1]})
pathlib.Path(folder, "lent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
LEND
}

# Spark's tests need a Java runtime; where there is none it is installed, as root or by sudo.
need_java() {
    command -v java > /dev/null || [ -x "${JAVA_HOME:-}/bin/java" ] && return
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    say "installing a Java runtime"
    if ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless; }; then
        echo "the tests of Spark ML need Java 17 or 21: install it and put java on PATH" >&2
        return 1
    fi
}

# The development environment: the package as an editable install, with every extra and every tool.
dev_venv() {
    venv="$root/.venv"
    local sources=("$root/pyproject.toml" "$root/constraints.txt")
    if ! fresh "$venv" "${sources[@]}"; then
        say "installing the development environment into .venv"
        make_venv "$venv"
        (
            cd "$root"
            "$venv/bin/pip" install -qq -c constraints.txt --group dev
            "$venv/bin/pip" install -qq -c constraints.txt --no-build-isolation -e '.[all]'
        )
        finished "$venv" "${sources[@]}"
    fi
    export PATH="$venv/bin:$PATH"
}
