# Sourced by the scripts that make release files, reproducibly: the same commit gives the same bytes.

source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

# The results must not depend on the language, the time zone and the umask of the machine.
export LC_ALL=C TZ=UTC
umask 022

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
dist=$target/dist
source_name=aci-sync-$version-source

# All files get the time of the commit. A source tarball has it in the file commit-time, which is looked for first, because
# a tarball may be unpacked inside another git repository.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    if [ -e commit-time ]; then
        SOURCE_DATE_EPOCH=$(cat commit-time)
    else
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) || fail "this folder is neither a git repository nor a source tarball"
    fi
fi
export SOURCE_DATE_EPOCH

# Release files are made from a commit.
need_checkout() {
    need git:git
    [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$PWD" ] || fail "$PWD is not a git checkout of aci-sync"
}
clean() {
    local status
    status=$(git status --porcelain) || fail "git status failed"
    [ -z "$status" ]
}

# A binary of another commit must not be packed as this one.
need_own() { # BINARY
    [ -x "$1" ] || fail "binary not found: $1; run scripts/build-static"
    local commit
    commit=$("$1" version | sed -n 's/^commit *//p')
    if [ -e .git ] && [ "${commit%-dirty}" != "$(git rev-parse HEAD)" ]; then
        fail "$1 is of commit $commit; run scripts/build-static"
    fi
}

need() { # PROGRAM:PACKAGE...
    local each missing=()
    for each in "$@"; do
        command -v "${each%:*}" >/dev/null || missing+=("${each#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || fail "missing programs; Debian: apt-get install ${missing[*]}"
}

# Prints a tar archive of these files below DIR: sorted, with one owner, one time and plain modes.
tarball() { # DIR NAME...
    tar --create --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
        --mtime="@$SOURCE_DATE_EPOCH" --directory="$1" "${@:2}"
}

# Packs the folder DIR/NAME, without name and time in the gzip header.
pack() { # DIR NAME FILE
    tarball "$1" "$2" | gzip --no-name --best >"$3.part"
    mv "$3.part" "$3"
}
