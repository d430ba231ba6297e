#!/usr/bin/env bash
# Becomes the process of a container. Runs in new namespaces for mounts, network, processes, host name and IPC, which `unshare` made:
#
#   container.sh ROOT HOST ADDRESS USER GROUP GROUPS [mount FROM TO | forward ADDRESS PORT SOCKET]... -- NAME=VALUE... PROGRAM ARGUMENT...
#
# The process sees a read-only root with the program, this machine's libraries, and the mounts; it has no capabilities, and
# reaches only itself and what is forwarded: connections to ADDRESS:PORT go through a socket file to the other side.
set -euo pipefail
umask 022
root=$1 host=$2 address=$3 user=$4 group=$5 groups=$6
shift 6

bind() { # FROM TO
    mkdir -p "$(dirname "$root$2")"
    if [ -d "$1" ]; then mkdir -p "$root$2"; else touch "$root$2"; fi
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro,nosuid "$root$2"
}

hostname "$host"
ip link set lo up
ip address add "$address/32" dev lo
mount --bind "$root" "$root"
# The daemon is linked dynamically here.
for folder in /usr /lib /lib64 /etc/ld.so.cache; do if [ -e "$folder" ]; then bind "$folder" "$folder"; fi; done
mkdir -p "$root/proc"
mount -t proc proc "$root/proc"
mkdir -p "$root/dev"
for device in null urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
while [ "$1" != -- ]; do
    case $1 in
        mount)
            bind "$2" "$3"
            shift 3
            ;;
        forward)
            [ "$2" = 127.0.0.1 ] || ip address add "$2/32" dev lo
            # It ends with this process, which the program becomes: the first one of these namespaces.
            socat "TCP-LISTEN:$3,bind=$2,fork,reuseaddr,backlog=64" "UNIX-CONNECT:$4" >/dev/null 2>&1 &
            until (exec 3<>"/dev/tcp/$2/$3") 2>/dev/null; do sleep 0.02; done
            shift 4
            ;;
    esac
done
shift
mount -o remount,bind,ro,nosuid "$root"
exec chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "$group" --groups "$groups" --no-new-privs --bounding-set=-all \
    --inh-caps=-all -- /usr/bin/env --ignore-environment -- "$@"
