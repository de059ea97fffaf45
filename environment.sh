# Sourced by quickstart.sh and test.sh: makes the virtual environment .venv and installs the
# project with the extras in $extras, such as "[dev]". PYTHON chooses the interpreter (3.11 or newer).

python=${PYTHON:-python3}
stamp=".venv/installed$extras"

if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "$python is missing or older than 3.11; set PYTHON to a newer one." >&2
        exit 1
    }
    echo "Making a virtual environment in .venv ..." >&2
    "$python" -m venv .venv || {
        echo "The venv module is missing; on Debian: apt install python3-venv" >&2
        exit 1
    }
fi
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "Installing (about 1 GB, once) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$extras"
    touch "$stamp"
fi
