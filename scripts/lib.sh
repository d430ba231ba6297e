# What the scripts share that build and run things here: how OpenSSL can be linked, and what is built by itself. To be sourced.

source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

command -v cc >/dev/null || fail "there is no C compiler here; Debian: apt-get install build-essential, Fedora: dnf install gcc"

# The system's OpenSSL where pkg-config finds it; else one built from source, which takes two minutes more.
features=()
if pkg-config --exists openssl 2>/dev/null; then
    :
elif command -v perl >/dev/null && command -v make >/dev/null; then
    features=(--features vendored)
else
    fail "no way to link OpenSSL; Debian: apt-get install pkg-config libssl-dev, Fedora: dnf install pkgconf openssl-devel"
fi

# Most end-to-end tests wait for a peer, a process or a timer, so more of them than there are cores run side by side.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-20}

# Another daemon than the one that is built here. It is no variable of the daemon's own.
given=${ACI_SYNC_BIN:-}
unset ACI_SYNC_BIN

# Builds the daemon by itself, so that no feature that only the lab needs gets into it, and puts it aside.
build_daemon() { # [PROFILE]
    local profile=${1:-dev} folder=${1:-debug}
    daemon=$given
    if [ -n "$daemon" ]; then return; fi
    cargo build --quiet --locked --profile "$profile" --package aci-sync --bin aci-sync "${features[@]}"
    mkdir -p "$target/daemon-$folder"
    cp "$target/$folder/aci-sync" "$target/daemon-$folder/aci-sync"
    daemon=$target/daemon-$folder/aci-sync
}

# Builds the lab by itself.
build_lab() {
    cargo build --quiet --locked --package sim --bin lab "${features[@]}"
    mkdir -p "$target/lab"
    cp "$target/debug/lab" "$target/lab/lab"
    lab="$target/lab/lab"
}
