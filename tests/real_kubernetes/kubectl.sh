#!/usr/bin/env bash
# kubectl for the commands of docs/in-cluster.md. Two of them need a kubelet with a port, and one an API server that is newer
# than the suite's; they are played here, all others are the real kubectl's.
#
#   exec, logs     enter the namespaces of the process that kubelet.rs runs, or show its log; PODS is its folder
#   apply, delete  a PodDisruptionBudget of policy/v1, since Kubernetes 1.21, becomes one of policy/v1beta1, which is the same
set -euo pipefail
kubectl() { "$CURRENT_KUBECTL" "$@" 2> >(grep --invert-match 'version difference' >&2); }

words=("$@")
word=
for ((at = 0; at < $#; at++)); do
    case ${words[at]} in
        exec | logs | apply | delete)
            word=${words[at]}
            break
            ;;
    esac
done
# The folders of the Pods that run.
running=()
for file in "$PODS"/*/pid; do if [ -e "/proc/$(cat "$file")" ]; then running+=("$(dirname "$file")"); fi; done
case $word in
    exec)
        while [ "$1" != -- ]; do shift; done
        pid=$(cat "${running[0]}/pid")
        mapfile -d '' -t environment <"/proc/$pid/environ"
        # As a container runtime does, and as user and groups of the container.
        exec nsenter --target "$pid" --mount --net --uts --ipc --root --wd=/ /usr/bin/setpriv --reuid 65532 --regid 65532 --groups 65532 \
            --no-new-privs --bounding-set=-all --inh-caps=-all -- /usr/bin/env --ignore-environment "${environment[@]}" "${@:2}"
        ;;
    logs) for pod in "${running[@]}"; do cat "$pod/log"; done ;;
    apply | delete)
        # `-k FOLDER` follows the word.
        if [ "${words[at + 1]:-}" = -k ]; then
            kubectl kustomize "${words[at + 2]}" | sed 's|^apiVersion: policy/v1$|apiVersion: policy/v1beta1|' |
                kubectl "$word" "${words[@]:at+3}" -f -
        else
            kubectl "$@"
        fi
        ;;
    *) kubectl "$@" ;;
esac
