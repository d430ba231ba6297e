# Sourced by scripts that try the Debian package in a small Debian: `make_root`. Expects `fail` of base.sh.

# Unpacks a minimal Debian 12 with systemd into DIR, which must not exist. It has no procps. The first call makes it from the
# mirror of the machine's apt, and keeps it in the cache.
make_root() { # DIR
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/aci-sync mirror try
    local cached=$cache/debian-12.tar
    [ "$(id -u)" = 0 ] || fail "a Debian root needs root privileges"
    command -v debootstrap >/dev/null || fail "debootstrap not found; Debian: apt-get install debootstrap"
    mkdir -p "$cache"
    (
        flock 9
        if [ -e "$cached" ]; then exit; fi
        mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Origin: Debian" "Component: main" "Codename: bookworm" | head -n 1)
        [ -n "$mirror" ] || fail "apt has no source of Debian 12; is this Debian 12?"
        eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
        export http_proxy
        # An attempt that was killed may have left one.
        rm -rf "$cached.work"
        for try in 1 2 3; do
            echo "making a Debian root from the machine's apt source (attempt $try of 3) ..."
            # An interruption leaves no mount of debootstrap behind: they are in a namespace of its own.
            if unshare --mount debootstrap --variant=minbase --include=systemd bookworm "$cached.work" "$mirror" >"$cache/debian-12.log" 2>&1 &&
                rm -f "$cached.work"/var/cache/apt/archives/*.deb &&
                tar --create --numeric-owner --file="$cached.part" --directory="$cached.work" . &&
                mv "$cached.part" "$cached"; then
                rm -rf "$cached.work"
                exit
            fi
            rm -rf "$cached.work"
        done
        tail -n 20 "$cache/debian-12.log" >&2
        fail "debootstrap failed; its log is $cache/debian-12.log"
    ) 9>"$cache/debian-12.lock" || return
    mkdir "$1"
    tar --extract --numeric-owner --file="$cached" --directory="$1"
}
