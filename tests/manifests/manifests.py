"""Tests the manifests of deploy/ as kustomize builds them: manifests.py KUBECTL OLD_KUBECTL FOLDER, run by
scripts/test-manifests. OLD_KUBECTL may be empty. The groups of the PrometheusRule are written to FOLDER/rules.yaml.
"""

import copy
import functools
import pathlib
import re
import shutil
import subprocess
import sys

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SITE = "deploy/examples/site"
COMPONENTS = "deploy/components"
# Custom resources, whose schemas belong to the Prometheus operator.
WITHOUT_SCHEMA = {"PodMonitor", "PrometheusRule"}
SELECTOR = {"app.kubernetes.io/name": "aci-sync", "app.kubernetes.io/component": "controller"}


def fail(text):
    sys.exit(f"test-manifests: {text}")


def build(kubectl, folder):
    """The objects of a kustomization, or the words of the error."""
    made = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    if made.returncode != 0:
        return made.stderr
    if made.stderr:
        fail(f"{folder}: {made.stderr}")
    return [it for it in yaml.safe_load_all(made.stdout) if it]


def load(file):
    return list(yaml.safe_load_all((ROOT / file).read_text()))


def only(objects, kind, name="aci-sync"):
    found = [it for it in objects if it["kind"] == kind and it["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind} {name}"
    return found[0]


def pod(objects):
    return only(objects, "Deployment")["spec"]["template"]["spec"]


def container(objects):
    (one,) = pod(objects)["containers"]
    return one


def variables(objects):
    return {it["name"]: it["value"] for it in container(objects)["env"]}


def settings(objects):
    (one,) = [it for it in objects if it["kind"] == "ConfigMap" and it["metadata"]["name"].startswith("aci-sync-settings-")]
    assert [it["configMapRef"]["name"] for it in container(objects)["envFrom"]] == [one["metadata"]["name"]]
    return one["data"]


def names(objects):
    return {(it["kind"], it["metadata"]["name"]) for it in objects}


# --- what every variant has to hold --------------------------------------------------------------------------------


def is_in_kube_system(objects):
    clusterwide = {"ClusterRole", "ClusterRoleBinding"}
    for it in objects:
        assert it["kind"] in clusterwide or it["metadata"]["namespace"] == "kube-system", it["metadata"]


def role_names_the_lease(objects):
    """kustomize rewrites references to names that it generates, and a Role's resourceNames are such references."""
    name = next((it["value"] for it in container(objects)["env"] if it["name"] == "ACI_SYNC_LEASE_NAME"), "aci-sync")
    name = settings(objects).get("ACI_SYNC_LEASE_NAME", name)
    named = [it for it in only(objects, "Role")["rules"] if "resourceNames" in it]
    assert [(it["resources"], it["resourceNames"], it["verbs"]) for it in named] == [(["leases"], [name], ["get", "update"])]


def rights_are_those_of_the_file(objects):
    kinds = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    by_name = lambda all: sorted((it for it in all if it["kind"] in kinds), key=lambda it: (it["kind"], it["metadata"]["name"]))
    # G1: only with the setting that needs them are there more.
    more = load("scripts/kubernetes-rbac-workloads.yaml") if "ACI_SYNC_WORKLOADS" in settings(objects) else []
    assert by_name(objects) == by_name(load("scripts/kubernetes-rbac.yaml") + more)
    assert pod(objects)["serviceAccountName"] == "aci-sync"


def is_restricted(objects):
    """Pod Security, level restricted: pod-security-admission's policy of Kubernetes 1.25 and later."""
    spec, one = pod(objects), container(objects)
    of_pod, of_container = spec["securityContext"], one["securityContext"]
    assert not any(spec.get(it) for it in ("hostNetwork", "hostPID", "hostIPC", "initContainers"))
    assert not any("hostPort" in it for it in one["ports"])
    assert of_pod["runAsNonRoot"] is True and of_pod["runAsUser"] == 65532
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container["allowPrivilegeEscalation"] is False and not of_container.get("privileged")
    assert of_container["capabilities"] == {"drop": ["ALL"]}
    assert not {"runAsUser", "runAsNonRoot", "seccompProfile", "procMount"} & of_container.keys()
    assert all(it.keys() - {"name"} <= {"secret", "configMap"} for it in spec["volumes"])
    # Beyond what that level demands.
    assert of_container["readOnlyRootFilesystem"] is True


def is_highly_available(objects):
    deployment, spec = only(objects, "Deployment")["spec"], pod(objects)
    assert deployment["replicas"] == 2 and variables(objects)["ACI_SYNC_LEADER_ELECT"] == "true"
    assert deployment["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}
    (term,) = spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"] == SELECTOR
    assert {it["key"] for it in spec["tolerations"]} == {f"node-role.kubernetes.io/{it}" for it in ("control-plane", "master")}
    assert spec["priorityClassName"] == "system-cluster-critical"
    budget = only(objects, "PodDisruptionBudget")["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": SELECTOR}}


def selectors_choose_the_pods(objects):
    deployment = only(objects, "Deployment")
    assert deployment["spec"]["selector"] == {"matchLabels": SELECTOR}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert SELECTOR.items() <= labels.items() and labels == deployment["metadata"]["labels"]
    assert only(objects, "NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": SELECTOR}


def has_probes_and_limits(objects):
    one = container(objects)
    live, ready = one["livenessProbe"], one["readinessProbe"]
    assert (live["httpGet"]["path"], live["periodSeconds"], live["failureThreshold"]) == ("/livez", 10, 6)
    assert (ready["httpGet"]["path"], ready["periodSeconds"], ready["failureThreshold"]) == ("/readyz", 5, 3)
    (port,) = one["ports"]
    assert {live["httpGet"]["port"], ready["httpGet"]["port"]} == {port["name"]} and "startupProbe" not in one
    assert variables(objects)["ACI_SYNC_LISTEN"].rsplit(":")[-1] == str(port["containerPort"])
    assert one["resources"] == {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}
    assert pod(objects)["terminationGracePeriodSeconds"] == 10


def secret_is_a_file(objects):
    """Password or private key are no variables, and their folder, no single file, is mounted: kubelet never changes a subPath."""
    (volume,) = [it for it in pod(objects)["volumes"] if "secret" in it]
    assert volume["secret"] == {"secretName": "aci-sync-apic", "defaultMode": 0o440}
    assert pod(objects)["securityContext"]["fsGroup"] == 65532
    (mount,) = [it for it in container(objects)["volumeMounts"] if it["name"] == volume["name"]]
    found = variables(objects)
    secret = [found[it] for it in ("ACI_SYNC_PASSWORD_FILE", "ACI_SYNC_APIC_PRIVATE_KEY_FILE") if it in found]
    by_certificate = "ACI_SYNC_APIC_CERTIFICATE_DN" in settings(objects)
    assert secret == [f"{mount['mountPath']}/{'private-key.pem' if by_certificate else 'password'}"]
    assert not any("subPath" in it or not it["readOnly"] for it in container(objects)["volumeMounts"])
    assert not any("secret" in str(it).lower() for it in container(objects)["env"] + container(objects)["envFrom"])


def knows_its_settings(objects):
    """Every variable is one of the service's settings or in its unit, and none comes from a Service named aci-sync."""
    assert pod(objects)["enableServiceLinks"] is False
    text = (ROOT / "systemd/aci-sync.env").read_text()
    known = set(re.findall(r"^#?([A-Z0-9_]+)=", text, re.MULTILINE))
    known |= set(re.findall(r"^Environment=([A-Z0-9_]+)=", (ROOT / "systemd/aci-sync.service").read_text(), re.MULTILINE))
    assert settings(objects).keys() | variables(objects).keys() <= known
    assert settings(objects)["ACI_SYNC_POLICY"] == "observe"


def has_the_version(objects):
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    assert container(objects)["image"] == f"localhost/aci-sync:{version}"
    assert only(objects, "Deployment")["metadata"]["labels"]["app.kubernetes.io/version"] == version


COMMON = [
    is_in_kube_system,
    role_names_the_lease,
    rights_are_those_of_the_file,
    is_highly_available,
    selectors_choose_the_pods,
    has_probes_and_limits,
    secret_is_a_file,
    knows_its_settings,
    has_the_version,
]


# --- schemas -------------------------------------------------------------------------------------------------------


def releases():
    """The releases whose schemas are there, newest first. The package has no function for that."""
    folder = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    found = {it.name.split("-")[0].lstrip("v") for it in folder.iterdir() if it.name.endswith("-local-strict")}
    return sorted(found, key=lambda it: [int(part) for part in it.split(".")], reverse=True)


def schema_errors(objects, release):
    errors = []
    for it in objects:
        if it["kind"] not in WITHOUT_SCHEMA:
            try:
                kubernetes_validate.validate(it, release, strict=True)
            except kubernetes_validate.ValidationError as error:
                errors.append(f"{it['kind']}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError:
                errors.append(f"{it['kind']}: {it['apiVersion']} is unknown")
    return errors


# --- mutants -------------------------------------------------------------------------------------------------------


def errors_of(objects, checks):
    errors = []
    for check in checks:
        try:
            check(objects)
        except (AssertionError, KeyError, ValueError):
            errors.append(check.__name__)
    return errors


def mutants():
    """What changes a manifest for the worse, and the check that must notice; `schema` is the newest schema."""

    def template(change):
        return lambda objects: change(pod(objects))

    def of_container(change):
        return lambda objects: change(container(objects))

    def rename_lease(objects):
        only(objects, "Role")["rules"][0]["resourceNames"] = ["aci-sync-settings-abc"]

    def remove(path, key):
        return lambda objects: functools.reduce(lambda it, part: it[part], path, pod(objects)).pop(key)

    def subpath(one):
        one["volumeMounts"][0]["subPath"] = "password"

    return [
        ("schema", of_container(lambda it: it.update(redinessProbe=it.pop("readinessProbe")))),
        ("schema", template(lambda it: it.update(terminationGracePeriodSecond=3))),
        ("schema", lambda it: only(it, "PodDisruptionBudget")["spec"].update(maxUnavailabel=1)),
        ("schema", lambda it: only(it, "NetworkPolicy").update(apiVersion="extensions/v1beta1")),
        ("is_in_kube_system", lambda it: only(it, "Deployment")["metadata"].update(namespace="default")),
        ("role_names_the_lease", rename_lease),
        ("rights_are_those_of_the_file", lambda it: only(it, "ClusterRole")["rules"][0]["verbs"].append("delete")),
        ("rights_are_those_of_the_file", lambda it: only(it, "ClusterRole")["rules"][0]["resources"].append("statefulsets")),
        ("is_restricted", remove(["securityContext"], "seccompProfile")),
        ("is_restricted", remove(["securityContext"], "runAsNonRoot")),
        ("is_restricted", of_container(lambda it: it["securityContext"].pop("capabilities"))),
        ("is_restricted", of_container(lambda it: it["securityContext"].update(allowPrivilegeEscalation=True))),
        ("is_restricted", of_container(lambda it: it["securityContext"].update(readOnlyRootFilesystem=False))),
        ("is_restricted", template(lambda it: it.update(hostNetwork=True))),
        ("is_restricted", template(lambda it: it["volumes"].append({"name": "x", "hostPath": {"path": "/"}}))),
        ("is_highly_available", lambda it: only(it, "Deployment")["spec"].update(replicas=1)),
        ("is_highly_available", lambda it: only(it, "PodDisruptionBudget").update(spec={"minAvailable": 1})),
        ("selectors_choose_the_pods", lambda it: only(it, "NetworkPolicy")["spec"]["podSelector"].clear()),
        ("has_probes_and_limits", of_container(lambda it: it["ports"][0].update(containerPort=9848))),
        ("secret_is_a_file", of_container(subpath)),
        ("secret_is_a_file", lambda it: pod(it)["volumes"][0]["secret"].update(defaultMode=0o444)),
        # A5: half of a login by certificate, and both ways to log in.
        ("secret_is_a_file", lambda it: settings(it).update(ACI_SYNC_APIC_CERTIFICATE_DN="x")),
        ("secret_is_a_file", of_container(lambda it: it["env"].append({"name": "ACI_SYNC_APIC_PRIVATE_KEY_FILE", "value": "x"}))),
        ("knows_its_settings", remove([], "enableServiceLinks")),
        ("knows_its_settings", lambda it: settings(it).update(ACI_SYNC_POLICY="sync")),
        ("knows_its_settings", lambda it: settings(it).update(ACI_SYNC_POLICI="observe")),
        ("has_the_version", of_container(lambda it: it.update(image="localhost/aci-sync:latest"))),
    ]


# --- the variants --------------------------------------------------------------------------------------------------


def variant(kubectl, folder, number, components=(), egress=False, edit=None):
    """The example of a site with some of its comments removed, built in a copy."""
    copy_of = pathlib.Path(folder) / f"variant-{number}"
    shutil.copytree(ROOT / "deploy", copy_of / "deploy")
    site = copy_of / SITE
    (site / "password").write_text("a password\n")
    (site / "apic-ca.pem").write_text("a certificate\n")
    file = site / "kustomization.yaml"
    text = file.read_text()
    lines = [f"  #- {it}" if it == "egress.yaml" else f"#  - ../../components/{it}" for it in components]
    lines += ["  #- egress.yaml"] if egress else []
    lines += ["#components:"] if components else []
    for line in lines:
        assert text.count(line) == 1, f"{SITE}/kustomization.yaml has no line {line!r}"
        text = text.replace(line, line.replace("#", "", 1))
    file.write_text(text)
    if edit:
        edit(copy_of)
    return build(kubectl, site)


def edits_for_certificate():
    """Which lines of the overlay become which others, from the table of the document; that of the component aside."""
    text = (ROOT / "docs/credentials-and-permissions.md").read_text()
    section = text.split("\n### In Pods\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `\w+` \| `(.*?)` \| `(.*?)`", section, re.MULTILINE)
    component = ("#  - ../../components/certificate", "  - ../../components/certificate")
    assert len(rows) == 3 and component in rows, rows
    return [it for it in rows if it != component]


def with_certificate(folder):
    site = folder / SITE
    (site / "password").rename(site / "private-key.pem")
    file = site / "kustomization.yaml"
    lines = file.read_text().split("\n")
    for old, new in edits_for_certificate():
        (at,) = [at for at, line in enumerate(lines) if line.strip() == old]
        lines[at] = lines[at].replace(old, new)
    file.write_text("\n".join(lines))


def compare(expected, found, what):
    if expected != found:
        fail(f"{what}: expected {expected}, found {found}")


def without_hash(objects):
    """As text in an order of its own, without the hashes, which differ between releases of kustomize."""
    objects = [copy.deepcopy(it) for it in objects]
    for it in objects:
        # Old releases add empty maps.
        it["metadata"] = {key: value for key, value in it["metadata"].items() if value}
    text = (yaml.safe_dump(it, sort_keys=True) for it in objects)
    return sorted(re.sub(r"aci-sync-settings-[a-z0-9]{10}", "aci-sync-settings-HASH", it) for it in text)


def main(kubectl, old, folder):
    base = build(kubectl, ROOT / "deploy/base")
    assert isinstance(base, list), base
    if old:
        compare(without_hash(base), without_hash(build(old, ROOT / "deploy/base")), f"the base, as {old} builds it")
        print("deploy/base: the kustomize of another kubectl builds the same")

    make = functools.partial(variant, kubectl, folder)
    site = make(1)
    assert isinstance(site, list), site
    monitored = make(2, ["prometheus-operator"], egress=True)
    on_host = make(3, ["host-network"])
    every_workload = make(5, ["workloads"])
    by_certificate = make(6, ["certificate"], edit=with_certificate)
    variants = {
        "deploy/base": base,
        SITE: site,
        "with prometheus-operator and egress": monitored,
        "with host-network": on_host,
        "with workloads": every_workload,
        "with certificate": by_certificate,
    }
    newest = releases()
    for name, objects in variants.items():
        checks = COMMON + ([] if objects is on_host else [is_restricted])
        compare([], errors_of(objects, checks), name)
        for release in newest:
            compare([], schema_errors(objects, release), f"{name}, Kubernetes {release}")
        print(f"{name}: {len(objects)} objects, {len(checks)} checks, valid for Kubernetes {newest[-1]} to {newest[0]}")

    # The Secret is never in the base, and keeps its name in the overlay, so that its content can change below a running Pod.
    compare(set(), {it for it in names(base) if it[0] == "Secret"}, "Secrets in the base")
    compare({("Secret", "aci-sync-apic")}, {it for it in names(site) if it[0] == "Secret"}, "Secrets of a site")
    (ca,) = [it["configMap"] for it in pod(site)["volumes"] if "configMap" in it]
    assert ca["optional"] and ("ConfigMap", ca["name"]) in names(site), ca
    (mount,) = [it for it in container(site)["volumeMounts"] if it["name"] == "apic-ca"]
    compare(f"{mount['mountPath']}/apic-ca.pem", settings(site)["ACI_SYNC_APIC_CA"], "the CA of a site")

    # What the components and the egress add, and nothing else.
    added = {("PodMonitor", "aci-sync"), ("PrometheusRule", "aci-sync"), ("NetworkPolicy", "aci-sync-egress")}
    compare(added, names(monitored) - names(site), "what the component adds")
    monitor = only(monitored, "PodMonitor")["spec"]
    compare(SELECTOR, monitor["selector"]["matchLabels"], "the PodMonitor's selector")
    compare([("http", "/metrics")], [(it["port"], it["path"]) for it in monitor["podMetricsEndpoints"]], "what is scraped")
    rules = only(monitored, "PrometheusRule")["spec"]
    (groups,) = load("deploy/prometheus/aci-sync.rules.yaml")
    compare(groups, rules, "the PrometheusRule")
    (pathlib.Path(folder) / "rules.yaml").write_text(yaml.safe_dump(rules))
    added = {("ClusterRole", "aci-sync-workloads"), ("ClusterRoleBinding", "aci-sync-workloads")}
    but_settings = lambda objects: {it for it in names(objects) if not it[1].startswith("aci-sync-settings-")}
    compare(added, but_settings(every_workload) - but_settings(site), "what the component workloads adds")
    workloads = {"ACI_SYNC_WORKLOADS": "deployments,statefulsets,daemonsets"}
    compare({**settings(site), **workloads}, settings(every_workload), "the settings with workloads")
    # A5: the same objects and no password, neither in the settings nor in the Secret.
    compare(but_settings(site), but_settings(by_certificate), "the objects with certificate")
    compare({"private-key.pem"}, only(by_certificate, "Secret", "aci-sync-apic")["data"].keys(), "the Secret with certificate")
    assert "ACI_USERNAME" not in settings(by_certificate)
    compare(names(site), names(on_host), "the objects with host-network")
    assert pod(on_host)["hostNetwork"] and variables(on_host)["ACI_SYNC_LISTEN"] == "127.0.0.1:9847"
    for probe in ("livenessProbe", "readinessProbe"):
        compare("127.0.0.1", container(on_host)[probe]["httpGet"]["host"], probe)

    # The trap: a generated ConfigMap of the Lease's name changes the Role. Without that the check would show nothing.
    trap = make(4, edit=lambda it: rename_settings(it, "aci-sync"))
    role = only(trap, "Role")["rules"][0]["resourceNames"]
    assert role != ["aci-sync"], "kustomize does not rewrite resourceNames any more; the comment in the base is wrong"

    compare({it.__name__ for it in COMMON + [is_restricted]}, {it for it, _ in mutants()} - {"schema"}, "checks with a mutant")
    for number, (noticed_by, change) in enumerate(mutants()):
        changed = copy.deepcopy(site)
        change(changed)
        if noticed_by == "schema":
            assert schema_errors(changed, newest[0]), f"the schema does not notice mutant {number}"
        else:
            found = errors_of(changed, COMMON + [is_restricted])
            assert noticed_by in found, f"mutant {number}: noticed by {found} instead of {noticed_by}"
    print(f"{len(mutants())} changed manifests were noticed")


def rename_settings(folder, name):
    for file in (folder / "deploy").rglob("*.yaml"):
        file.write_text(file.read_text().replace("name: aci-sync-settings", f"name: {name}"))


main(*sys.argv[1:])
