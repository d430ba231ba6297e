//! docs/in-cluster.md, word for word: the commands of its blocks, in their order, on the real API server.

use std::collections::BTreeMap;

use crate::site::{OVERLAY, Site};

/// The blocks of a shell by heading.
fn blocks() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/in-cluster.md")).unwrap();
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let (heading, section) = section.split_once('\n').unwrap();
        let blocks = section.split("```sh\n").skip(1).map(|it| it.split("```").next().unwrap().to_owned());
        all.insert(heading.to_owned(), blocks.collect());
    }
    all
}

/// A release as `scripts/dist` packs it, as far as this needs it.
fn release(site: &Site, version: &str) {
    let (root, name) = (env!("CARGO_MANIFEST_DIR"), format!("aci-sync-{version}-x86_64-linux"));
    site.shell(&format!(
        "mkdir {name} && cp -r {root}/deploy {name}
         find {name} -type f -exec sed -i 's/{}/{version}/' {{}} +
         tar czf {name}.tar.gz {name} && rm -r {name}",
        env!("CARGO_PKG_VERSION").replace('.', "\\.")
    ));
}

/// A program that asks for a password, on a machine without people.
fn answer(site: &Site, password: &str) {
    use std::os::unix::fs::PermissionsExt;
    let file = site.file("bin/systemd-ask-password");
    std::fs::write(&file, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// K3, K4, W5, T3: installed, looked at, switched to writing, with a new password, upgraded, and removed.
#[test]
fn the_document_is_followed() {
    let mut blocks = blocks();
    let mut take = |heading: &str| blocks.remove(heading).unwrap_or_else(|| panic!("no block below {heading:?}"));
    let site = Site::new();
    let world = &site.world;
    world.deploy("web", Some("E"), 2);
    world.until("its Pods run", || world.addresses("web").len() == 2);

    let install = take("Install");
    let [unpack, password] = install.as_slice() else { panic!("{install:?}") };
    release(&site, env!("CARGO_PKG_VERSION"));
    site.shell(unpack);
    answer(&site, world.apic.password());
    site.shell(password);
    let made = std::fs::read_to_string(site.file(OVERLAY).join("password")).unwrap();
    assert_eq!(made.trim(), world.apic.password());
    site.fill_in();

    let look = take("Look at what it would do");
    let [apply, commands] = look.as_slice() else { panic!("{look:?}") };
    assert!(site.shell(apply).contains("would change"));
    site.until_ready(2);
    for (line, code, text) in [
        ("check", 0, "ok    secrets"),
        ("plan", 2, "Plan: 3 to create, 0 to change, 0 to delete."),
        ("status", 2, "policy observe"),
    ] {
        let command = commands.lines().find(|it| it.ends_with(&format!("/aci-sync {line}"))).unwrap();
        let output = site.try_shell(command);
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{command}: {out}");
        assert!(out.contains(text), "{command}: {out}");
    }
    assert_eq!(commands.lines().count(), 3);
    assert!(world.apic.writes().is_empty());

    for block in take("Let it write") {
        assert!(site.shell(&block).contains("aci-sync-"), "the Lease's holder is a Pod");
    }
    world.until_follows("E", "web", 2, &[]);
    site.until_ready(2);

    let before = site.ready();
    answer(&site, "another password");
    for block in take("Rotate the password") {
        site.shell(&block);
    }
    world.apic.set_password(world.apic.username(), "another password");
    assert_eq!(site.ready(), before);

    release(&site, "0.2.0");
    for block in take("Upgrade") {
        site.shell(&block);
    }
    site.until_ready(2);
    let image = "jsonpath={.items[*].spec.containers[*].image}";
    let label = "--selector=app.kubernetes.io/version=0.2.0";
    let images = world.cluster.kubectl(&["--namespace=kube-system", "get", "pods", label, "--output", image]);
    assert_eq!(images, "localhost/aci-sync:0.2.0 localhost/aci-sync:0.2.0");
    site.until_led();
    world.kubectl(&["scale", "deployment", "web", "--replicas=3"]);
    world.until_follows("E", "web", 3, &[]);

    let remove = take("Remove");
    let [stop, delete] = remove.as_slice() else { panic!("{remove:?}") };
    site.shell(stop);
    world.until("the Pods are gone", || site.pods().is_empty());
    let deleted = site.try_shell(delete);
    // Other stories need the rights, and a token of the new ServiceAccount.
    world.cluster.restore_rights();
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    let kinds = "deployments,replicasets,poddisruptionbudgets,networkpolicies,configmaps,secrets,leases";
    let left = world.cluster.kubectl(&["--namespace=kube-system", "get", kinds, "--output", "name"]);
    let left: Vec<&str> = left.lines().filter(|it| it.contains("aci-sync") && !it.contains("token")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(world.subnets("E").len(), 3, "what is on the fabric stays");
    blocks.retain(|_, blocks| !blocks.is_empty());
    assert!(blocks.is_empty(), "not followed: {blocks:?}");
}
