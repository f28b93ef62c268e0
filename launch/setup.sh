#!/usr/bin/env bash
# Makes .venv in the repository's root and installs the pinned packages and the project into it.
#
#   launch/setup.sh          what training needs
#   launch/setup.sh --dev    linter, type checker and tests as well
#
# GRPO_STACK=cpu|cuda   overrides the choice, which is CUDA where nvidia-smi lists a GPU. Say cuda on a login
#                       node that has none.
# PYTHON=...            the interpreter to use, 3.11 or newer.
# pip's own variables hold: where the default index serves torch's CUDA build (some GB), PIP_EXTRA_INDEX_URL
# with an index of CPU builds makes the CPU stack small.
#
# Safe to run again at any time: it does nothing when all is in place and goes on where it was interrupted.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
venv=$root/.venv
python=$venv/bin/python
log=$venv/setup.log
SECONDS=0

say() { printf 'setup: [%3d s] %s\n' "$SECONDS" "$*"; }
die() { printf 'setup: %s\n' "$@" >&2; exit 1; }

dev=
for arg in "$@"; do
    case $arg in
        --dev) dev=yes ;;
        -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit ;;
        *) die "unknown argument '$arg' (only --dev is known)" ;;
    esac
done

# True if $1 runs at all (version managers leave names behind that do not) and is new enough.
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        new_enough "$PYTHON" || die "PYTHON=$PYTHON does not run or is older than 3.11"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.11 python3.12 python3.13 python; do
        if new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python launch/setup.sh"
}

# A venv made for CUDA stays so where no GPU is seen: the same folder may serve login and GPU nodes.
choose_stack() {
    local gpus
    case ${GRPO_STACK:-} in
        cpu | cuda) printf '%s\n' "$GRPO_STACK"; return ;;
        '') ;;
        *) die "GRPO_STACK=$GRPO_STACK is neither cpu nor cuda" ;;
    esac
    gpus=$(nvidia-smi -L 2>/dev/null || true)
    if [[ $gpus == *'GPU '* ]]; then
        echo cuda
    elif [[ -f $venv/.made-for ]]; then
        sed -n 's/^stack //p' "$venv/.made-for"
    else
        echo cpu
    fi
}

# What an installation depends on, as text; a stamp is the checksum of it. One set of lists per stamp.
fingerprint() { { cat "$venv/.made-for" "$@" launch/setup.sh | cksum; } 2>/dev/null || echo none; }
in_place() { [[ -f $1 && $(<"$1") == "$2" ]]; }

# Two set-ups at once would write over each other. The lock sits on a file that is there anyhow; opened for
# writing, as network file systems want it, but never written. It lasts as long as this process: run this
# script, do not source it.
lock() {
    command -v flock >/dev/null && [[ -w pyproject.toml ]] || return 0
    exec 9<>pyproject.toml
    if ! flock -n 9; then
        say "another set-up is at work here, waiting for it"
        flock 9
    fi
}

# Runs one step with its output in the log; the end of the log is shown when the step fails.
step() {
    local what=$1 from
    shift
    say "$what"
    printf '\n### %s\n' "$*" >>"$log"
    from=$(wc -l <"$log")
    if ! "$@" >>"$log" 2>&1; then
        tail -n +"$((from + 1))" "$log" | { grep -Ev '^(WARNING: Location|Requirement already) ' || true; } | tail -n 25 >&2
        die "failed: $what" "the whole log is in $log"
    fi
}
pip_install() { "$python" -m pip --disable-pip-version-check --no-input install --no-compile "$@"; }

# pip would compile on one core, and the hundreds of model classes of which a run imports one. Some packages
# carry files for other Python versions: what does not compile is no failure.
compile_all() { "$python" -m compileall -q -j 0 -x '/transformers/models/(?!auto/)|/tests?/' "$venv"/lib/python*/site-packages || true; }

make_venv() {
    local interpreter made_for
    # A folder that moved or changed its stack starts anew: scripts hold paths, and the two vLLM builds
    # write the same files.
    made_for=$(printf 'stack %s\nroot %s' "$stack" "$root")
    if [[ -f $venv/.made-for && $(<"$venv/.made-for") != "$made_for" ]] || ! new_enough "$python" ||
        ! "$python" -c 'import pip' 2>/dev/null; then
        interpreter=$(find_python)
        say "$("$interpreter" --version), $stack stack: making .venv"
        if ! "$interpreter" -m venv --clear "$venv" >/dev/null 2>&1; then
            die "'$interpreter -m venv' failed, most often because Python came without its venv and ensurepip modules" \
                "Debian and Ubuntu: apt install python3-venv; elsewhere: PYTHON=/path/to/a/full/python"
        fi
    else
        say "$("$python" --version), $stack stack: .venv is there"
    fi
    printf '%s\n' "$made_for" >"$venv/.made-for.new"
    mv "$venv/.made-for.new" "$venv/.made-for" # whole or not at all
    : >"$log"
    # pip names itself the INSTALLER when all else of a package is in place: without that file, an
    # interrupted run left a part only, which pip would take for the whole.
    find "$venv"/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' \
        ! -exec test -e '{}/INSTALLER' ';' -exec rm -rf '{}' + 2>>"$log"
}

lock
stack=$(choose_stack)
lists=(launch/requirements/base.txt "launch/requirements/$stack.txt")
dev_lists=("${lists[@]}" launch/requirements/dev.txt)
all_in_place() {
    [[ -f $venv/.made-for ]] && grep -qx "stack $stack" "$venv/.made-for" && grep -qx "root $root" "$venv/.made-for" &&
        in_place "$venv/.stamp" "$(fingerprint "${lists[@]}" pyproject.toml)" &&
        { [[ -z $dev ]] || in_place "$venv/.stamp-dev" "$(fingerprint "${dev_lists[@]}")"; } &&
        new_enough "$python"
}

if all_in_place; then
    say "all in place ($stack stack)"
    exit
fi

make_venv
if ! in_place "$venv/.stamp" "$(fingerprint "${lists[@]}" pyproject.toml)"; then
    rm -f "$venv/.stamp" "$venv/.stamp-dev"
    # torch with its dependencies, as builds differ in what they need (CUDA's libraries, say); the rest
    # without, as the lists are complete and leave out some packages on purpose.
    step "torch" pip_install "$(grep '^torch==' launch/requirements/base.txt)" "${lists[@]/#/--constraint=}"
    step "$(cat "${lists[@]}" | grep -c '==') packages (the longest step)" pip_install --no-deps "${lists[@]/#/--requirement=}"
    step "the project itself" pip_install --no-deps --no-build-isolation --editable .
    step "byte code" compile_all
    if [[ $stack == cpu && $(uname -s) == Linux ]] && ! "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
        say "note: vLLM needs the system's libnuma (Debian and Ubuntu: apt install libnuma1)"
    fi
    fingerprint "${lists[@]}" pyproject.toml >"$venv/.stamp"
fi
if [[ -n $dev ]]; then
    step "linter, type checker and tests" pip_install --no-deps --requirement=launch/requirements/dev.txt
    fingerprint "${dev_lists[@]}" >"$venv/.stamp-dev"
fi
say "done; activate with: source .venv/bin/activate"
