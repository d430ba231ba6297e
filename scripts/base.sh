# Sourced by all scripts: changes to the project's folder, and defines `fail` and `target` (the folder for output).

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "Rust toolchain not found; install cargo and rustc 1.90 or newer"

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
