# What all scripts share: where the project is, where its output goes, and how to give up. To be sourced.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "there is no Rust toolchain here; install cargo and rustc 1.90 or newer"

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

# What `aci-sync version` tells of the build and cargo does not know. A source tarball has its commit in a file.
commit() {
    local status
    if [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$PWD" ] && status=$(git status --porcelain); then
        printf '%s%s\n' "$(git rev-parse HEAD 2>/dev/null || echo unknown)" "${status:+-dirty}"
    elif [ -e commit ]; then
        cat commit
    else
        echo unknown
    fi
}
BUILD_COMMIT=$(commit) BUILD_RUSTC=$(rustc --version)
export BUILD_COMMIT BUILD_RUSTC=${BUILD_RUSTC#rustc }
