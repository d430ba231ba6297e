#!/usr/bin/env python3
"""What scripts/test-monitoring checks beyond promtool.

    mutants                  changes each alert rule in several ways; for each change the unit tests of the rules must fail
    rules                    prints a rule file with one rule for each expression of the dashboard
    peace URL INSTANCES      asks a Prometheus that scrapes so many healthy instances of aci-sync
    down URL                 asks the same Prometheus after all of them have ended
"""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

RULES = "deploy/prometheus/aci-sync.rules.yaml"
TESTS = "deploy/prometheus/aci-sync.rules.test.yaml"
DASHBOARD = "deploy/grafana/aci-sync.json"

# Alert, text of its rule, what to put there. Threshold, join, aggregation and labels; those of `for` and severity follow
# from the rules themselves.
MUTANTS = [
    ("AciSyncDown", "absent(aci_sync_build_info)", "absent(aci_sync_leader)"),
    ("AciSyncDown", "absent(aci_sync_build_info)", 'absent(aci_sync_build_info{instance="l"})'),
    ("AciSyncNoLeader", "max by", "min by"),
    ("AciSyncNoLeader", "by (job)", "by (job, instance)"),
    ("AciSyncNoLeader", "== 0", "== 1"),
    ("AciSyncOutOfSync", "- max by", "- min by"),
    ("AciSyncOutOfSync", "> 900", ">= 900"),
    ("AciSyncOutOfSync", "> 900", "> 960"),
    ("AciSyncOutOfSync", "unless on", "and on"),
    ("AciSyncOutOfSync", 'policy="observe"', 'policy="sync"'),
    ("AciSyncApicSessionDown", "(max by (job) (aci_sync_leader)", "(min by (job) (aci_sync_leader)"),
    ("AciSyncApicSessionDown", "(aci_sync_leader) == 1", "(aci_sync_leader) >= 0"),
    ("AciSyncApicSessionDown", "unless on", "and on"),
    ("AciSyncApicSessionDown", "(max by (job) (aci_sync_apic", "(min by (job) (aci_sync_apic"),
    ("AciSyncApicSessionDown", "up) == 1", "up) >= 0"),
    ("AciSyncViewIncomplete", "min by", "max by"),
    ("AciSyncViewIncomplete", "by (job, kind)", "by (job)"),
    ("AciSyncViewIncomplete", "== 0", "<= 1"),
    ("AciSyncDeletionsBlocked", "max by", "min by"),
    ("AciSyncDeletionsBlocked", "> 0", "> 1"),
    ("AciSyncDeletionsBlocked", "> 0", ">= 0"),
    ("AciSyncNeedsAttention", "by (job, code)", "by (job)"),
    ("AciSyncNeedsAttention", "> 0", "> 1"),
    ("AciSyncNeedsAttention", "> 0", ">= 0"),
    ("AciSyncNeedsAttention", "Rejected|", ""),
    ("AciSyncNeedsAttention", "|ForeignSubnet", ""),
    ("AciSyncNeedsAttention", "|ForeignEpgDeleted", ""),
    ("AciSyncNeedsAttention", "|ForeignEpgRefused", ""),
    ("AciSyncNeedsAttention", "|L3OutNotFound", ""),
    ("AciSyncNeedsAttention", "|WriterConflict", ""),
    ("AciSyncNeedsAttention", "|FabricFault", ""),
    ("AciSyncNeedsAttention", "|WriterConflict", "|.*"),
    ("AciSyncCredentialExpires", "min by", "max by"),
    ("AciSyncCredentialExpires", "by (job, credential)", "by (job)"),
    ("AciSyncCredentialExpires", " > 0", ""),
    ("AciSyncCredentialExpires", "> 0)", "> time())"),
    ("AciSyncCredentialExpires", "14 *", "13 *"),
    ("AciSyncCredentialExpires", "14 *", "15 *"),
    ("AciSyncRestarts", " and on (job, instance) aci_sync_build_info", ""),
    ("AciSyncRestarts", "on (job, instance)", "on (instance)"),
    ("AciSyncRestarts", "[30m]", "[60m]"),
    ("AciSyncRestarts", "[30m]", "[15m]"),
    ("AciSyncRestarts", "> 3", "> 2"),
    ("AciSyncRestarts", "> 3", "> 4"),
    ("AciSyncSlow", "0.99", "0.9"),
    ("AciSyncSlow", "0.99", "0.999"),
    ("AciSyncSlow", "by (job, le)", "by (job, instance, le)"),
    ("AciSyncSlow", "[15m]", "[5m]"),
    ("AciSyncSlow", "> 30", "> 60"),
    ("AciSyncSlow", "> 30", "> 0"),
]


def fail(text):
    sys.exit(f"test-monitoring: {text}")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


# --- mutants ----------------------------------------------------------------------------------------------------------


def mutations(rules):
    """Triples: the alert, what is changed, the changed rules."""
    head, *blocks = re.split(r"^(?=      - alert: )", rules, flags=re.MULTILINE)
    alerts = {re.match(r" *- alert: (\w+)", block)[1]: block for block in blocks}
    if head + "".join(alerts.values()) != rules:
        fail(f"two alerts of {RULES} have one name")
    changes = list(MUTANTS)
    for alert, block in alerts.items():
        if not any(alert == it[0] for it in MUTANTS):
            fail(f"{alert} has no mutants")
        severity = re.search(r"severity: (critical|warning)", block)[0]
        changes.append((alert, severity, "severity: info"))
        duration = re.search(r"^        for: (\d+)([mh])\n", block, flags=re.MULTILINE)
        if duration:
            changes.append((alert, duration[0], ""))
            changes.append((alert, duration[0], f"        for: {2 * int(duration[1])}{duration[2]}\n"))
        else:
            changes.append((alert, "        labels:\n", "        for: 2m\n        labels:\n"))
        changes.append((alert, block, ""))
    for alert, old, new in changes:
        block = alerts.get(alert) or fail(f"the mutants' alert {alert} does not exist")
        if block.count(old) != 1:
            fail(f"{alert}: the mutants' text {old!r} is there {block.count(old)} times")
        what = "without the rule" if old == block else f"{old.strip()!r} -> {new.strip()!r}"
        yield alert, what, rules.replace(block, block.replace(old, new))


def is_killed(rules):
    """Whether the tests notice the changed rules, which must be valid ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, os.path.basename(RULES))
        with open(path, "w", encoding="utf-8") as file:
            file.write(rules)
        subprocess.run(["promtool", "check", "rules", path], check=True, stdout=subprocess.DEVNULL)
        tests = os.path.join(folder, os.path.basename(TESTS))
        os.symlink(os.path.abspath(TESTS), tests)
        done = subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True, check=False)
        return done.returncode != 0 and "FAILED" in done.stdout + done.stderr


def mutants():
    rules = read(RULES)
    if is_killed(rules):
        fail("the tests of the unchanged rules fail")
    all_of_them = list(mutations(rules))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        killed = list(pool.map(lambda it: is_killed(it[2]), all_of_them))
    alive = [f"{alert}: {what}" for (alert, what, _), is_dead in zip(all_of_them, killed) if not is_dead]
    if alive:
        fail("no test notices these changes of rules:\n  " + "\n  ".join(alive))
    print(f"{len(killed)} changed rules, each noticed by a test")


# --- the dashboard ----------------------------------------------------------------------------------------------------


def expressions():
    """Pairs: a name for the expression, and the expression with values for the dashboard's variables."""
    for panel in json.loads(read(DASHBOARD))["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "5m").replace('"$job"', '"aci-sync"').replace("$instance", ".+")
            if "$" in text:
                fail(f"panel {panel['title']!r} uses an unknown variable: {target['expr']}")
            yield f"panel_{panel['id']}_{target['refId']}", text


def rules():
    entries = [{"record": f"dashboard:{name}", "expr": text} for name, text in expressions()]
    # JSON is YAML.
    json.dump({"groups": [{"name": "dashboard", "rules": entries}]}, sys.stdout, indent=1)


# --- a Prometheus -----------------------------------------------------------------------------------------------------


class Prometheus:
    """Asks the HTTP API of a Prometheus on this machine."""

    def __init__(self, url):
        self.url = url
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.deadline = time.monotonic() + 120

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        try:
            with self.opener.open(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                answer = json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 503:
                # It listens, and is not ready yet: it still reads its storage.
                return None
            fail(f"{path} {parameters}: {error}: {error.read(1000)}")
        except OSError:
            # It does not listen yet.
            return None
        if answer["status"] != "success" or answer.get("warnings"):
            fail(f"{path} {parameters}: {answer}")
        return answer["data"]

    def query(self, text):
        data = self.get("query", query=text)
        return data and data["result"]

    def until(self, sentence, condition):
        while not condition():
            if time.monotonic() > self.deadline:
                fail(f"timeout while waiting until {sentence() if callable(sentence) else sentence}")
            time.sleep(0.2)

    def alerts(self):
        """The state of each alert; nothing before all rules of all groups have been evaluated."""
        groups = (self.get("rules") or {"groups": []})["groups"]
        all_rules = [rule for group in groups for rule in group["rules"]]
        broken = [f"{it['name']}: {it.get('lastError')}" for it in all_rules if it["health"] == "err"]
        if broken:
            fail("rules fail:\n  " + "\n  ".join(broken))
        if any(it["health"] != "ok" for it in all_rules):
            return {}
        return {it["name"]: it["state"] for it in all_rules if it["type"] == "alerting"}


def peace(url, instances):
    prometheus = Prometheus(url)
    healthy = f'sum(up == 1) == {instances} and count(aci_sync_state{{state=~"in_sync|standby"}} == 1) == {instances}'
    prometheus.until(f"{instances} healthy instances are scraped", lambda: prometheus.query(healthy))

    # A rate needs two scrapes. What is compared with something may be empty in peace.
    count = 0
    for name, text in expressions():
        comparison = re.search(r" (>|<|==|!=) ", text)
        shows = lambda text=text: prometheus.query(text) or (comparison and prometheus.query("up"))
        prometheus.until(f"{name} shows something: {text}", shows)
        count += 1
    for variable in json.loads(read(DASHBOARD))["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            match = {"match[]": selector.replace("$job", "aci-sync")}
            has_values = lambda label=label, match=match: prometheus.get(f"label/{label}/values", **match)
            prometheus.until(f"the variable {variable['name']} has values", has_values)

    expected = {*re.findall(r"^ *- alert: (\w+)", read(RULES), flags=re.MULTILINE)}
    prometheus.until("the rules have been evaluated", lambda: {*prometheus.alerts()} == expected)
    # The first evaluation may have seen the standby alone. An alert that is wrong in peace stays active.
    active = lambda: {name: state for name, state in prometheus.alerts().items() if state != "inactive"}
    prometheus.until(lambda: f"no alert is active: {active()}", lambda: not active())
    print(f"{instances} instances up, {len(expected)} alerts loaded and inactive, {count} expressions of the dashboard answered")


def down(url):
    prometheus = Prometheus(url)
    prometheus.until("no instance is up", lambda: prometheus.query("sum(up) == 0"))
    prometheus.until("AciSyncDown is pending", lambda: prometheus.alerts().get("AciSyncDown") == "pending")
    print("no instance up, AciSyncDown pending")


match sys.argv[1:]:
    case ["mutants"]:
        mutants()
    case ["rules"]:
        rules()
    case ["peace", url, instances]:
        peace(url, int(instances))
    case ["down", url]:
        down(url)
    case _:
        sys.exit(__doc__)
