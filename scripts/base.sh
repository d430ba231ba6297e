# What all scripts share: where the project is, where its output goes, and how to give up. To be sourced.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "there is no Rust toolchain here; install cargo and rustc 1.90 or newer"

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
