# Sourced by the scripts that build and run the project: how OpenSSL is linked, and the separate builds of daemon and lab.

source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

command -v cc >/dev/null || fail "C compiler not found; Debian: apt-get install build-essential, Fedora: dnf install gcc"

# The system's OpenSSL if pkg-config finds it; otherwise OpenSSL is built from source, which takes two minutes more.
features=()
if pkg-config --exists openssl 2>/dev/null; then
    :
elif command -v perl >/dev/null && command -v make >/dev/null; then
    features=(--features vendored)
else
    fail "failed to find OpenSSL's headers, or perl and make to build OpenSSL; Debian: apt-get install pkg-config libssl-dev, Fedora: dnf install pkgconf openssl-devel"
fi

# End-to-end tests mostly wait for a peer, a process or a timer, so many more of them than cores run at the same time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-20}

# ACI_SYNC_BIN names another daemon instead of the one built here. It is unset because the daemon refuses it as a setting.
given=${ACI_SYNC_BIN:-}
unset ACI_SYNC_BIN

# Builds the daemon in a separate cargo run, without the features that only the lab needs, and copies it.
build_daemon() { # [PROFILE]
    local profile=${1:-dev} folder=${1:-debug}
    daemon=$given
    if [ -n "$daemon" ]; then return; fi
    cargo build --quiet --locked --profile "$profile" --package aci-sync --bin aci-sync "${features[@]}"
    mkdir -p "$target/daemon-$folder"
    # The old one may still run.
    cp --remove-destination "$target/$folder/aci-sync" "$target/daemon-$folder/aci-sync"
    daemon=$target/daemon-$folder/aci-sync
}

# Builds the lab in a separate cargo run, and copies it.
build_lab() {
    cargo build --quiet --locked --package sim --bin lab "${features[@]}"
    mkdir -p "$target/lab"
    cp --remove-destination "$target/debug/lab" "$target/lab/lab"
    lab="$target/lab/lab"
}
