# What the scripts share that make what is shipped. The same commit gives the same bits. To be sourced.

source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

# No language, no time zone and no umask of a machine gets into anything.
export LC_ALL=C TZ=UTC
umask 022

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
dist=$target/dist
source_name=aci-sync-$version-source

# The time of everything that is made here is the commit's. A source tarball has it in a file; it is looked for first,
# because a tarball may be unpacked inside of somebody else's repository.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    if [ -e commit-time ]; then
        SOURCE_DATE_EPOCH=$(cat commit-time)
    else
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) || fail "this is neither a git repository nor a source tarball"
    fi
fi
export SOURCE_DATE_EPOCH

# What is shipped is what a commit holds.
need_checkout() {
    need git:git
    [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$PWD" ] || fail "this needs a git checkout of aci-sync, and $PWD is none"
}
clean() {
    local status
    status=$(git status --porcelain) || fail "git does not tell what has changed here"
    [ -z "$status" ]
}

need() { # PROGRAM:PACKAGE...
    local each missing=()
    for each in "$@"; do
        command -v "${each%:*}" >/dev/null || missing+=("${each#*:}")
    done
    [ ${#missing[@]} -eq 0 ] || fail "something is missing here; Debian: apt-get install ${missing[*]}"
}

# Packs the folder DIR/NAME: sorted, of one owner, one time and plain modes, with no name or time in the gzip header.
pack() { # DIR NAME FILE
    tar --create --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
        --mtime="@$SOURCE_DATE_EPOCH" --directory="$1" "$2" | gzip --no-name --best >"$3.part"
    mv "$3.part" "$3"
}
