#!/usr/bin/env bash
# What the fabric should hold for a namespace, by kubectl and jq alone: a line for each subnet, "EPG PREFIX". It is
# another reading of the rules than the daemon's, and simpler: all annotations are valid, and no address is had twice.
set -euo pipefail
namespace=$1
get() { kubectl --namespace "$namespace" get "$1" --output json; }
jq --null-input --raw-output \
    --argjson deployments "$(get deployments | jq .items)" \
    --slurpfile pods <(get pods | jq .items) --slurpfile services <(get services | jq .items) '
    def prefix: . + (if contains(":") then "/128" else "/32" end);
    def hash: .metadata.labels["pod-template-hash"];
    $deployments[] | select(.metadata.annotations["aci.haystacknetworks.com/l3o"])
    | . as $deployment
    | (.metadata.annotations["aci.haystacknetworks.com/l3o"] | fromjson | .epg) as $epg
    | [ $pods[0][]
        | select([.metadata.ownerReferences[]? | select(.controller) | .name] == ["\($deployment.metadata.name)-\(hash)"]) ]
      as $own
    | ( $own[]
        | select((.spec.hostNetwork | not) and (.status.phase != "Failed") and (.status.phase != "Succeeded"))
        | .status.podIPs[]?.ip ),
      ( $services[0][] | select(.spec.type == "LoadBalancer" and .spec.selector) | . as $service
        | select([$deployment.spec.template, $own[]] | any(.metadata.labels | contains($service.spec.selector)))
        | .status.loadBalancer.ingress[]?.ip )
    | "\($epg) \(prefix)"' | sort -u
