//! The commands that people type on a machine with the service: they take its settings and credentials.

use std::process::Command;

use sim::pki::{KeyForm, user_certificate};

use crate::world::{E, World, bare_command, output};

/// What `scripts/install` and an administrator put into `/etc/aci-sync`, in the folder of the world.
fn install(world: &World, more: &str) {
    let (user, apic) = (world.apic.username(), world.apic.apic());
    let settings = format!(
        "# The settings of the service.\nACI_USERNAME={user}\nACI_APIC='{apic}'\n\
         ACI_SYNC_APIC_CA=/run/credentials/aci-sync.service/apic-ca.pem\nACI_SYNC_CLUSTER_ID=me\n\
         ACI_SYNC_APIC_RATE=off\n{more}\n"
    );
    world.folder.file("aci-sync.env", &settings);
    world.folder.file("apic-password", world.apic.password());
}

/// A command without any setting, on a machine with that folder.
fn typed(world: &World, words: &[&str]) -> Command {
    let mut command = bare_command(words);
    command.env("CONFIGURATION_DIRECTORY", world.folder.path());
    command
}

fn run(command: Command) -> (Option<i32>, String, String) {
    let done = output(command);
    (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
}

/// T13, A1, K3: `plan` and `check` need no flag and no variable beside a service: settings, kubeconfig, password and CA
/// are its own. What is given wins, and a command line that names a peer means other settings.
#[test]
fn the_settings_of_the_service_are_used() {
    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    install(&world, "ACI_SYNC_EXPOSE=services");
    let (code, plan, err) = run(typed(&world, &["plan"]));
    assert_eq!((code, plan.lines().last()), (Some(2), Some("Plan: 1 to create, 0 to change, 0 to delete.")), "{err}");

    let (code, plan, err) = run(typed(&world, &["plan", "--expose", "pods"]));
    assert_eq!((code, plan.lines().last()), (Some(2), Some("Plan: 2 to create, 0 to change, 0 to delete.")), "{err}");
    let mut command = typed(&world, &["plan"]);
    command.env("ACI_SYNC_EXPOSE", "pods");
    assert_eq!(run(command).1, plan, "a variable wins, too");

    let (code, explained, err) = run(typed(&world, &["explain", "a/web"]));
    assert!(code == Some(2) && explained.starts_with("Deployment a/web"), "{explained}{err}");
    let (code, purge, err) = run(typed(&world, &["purge"]));
    assert_eq!((code, &*purge), (Some(0), "Nothing to delete, and nothing is left.\n"), "{err}");
    let password = world.folder.path().join("apic-password");
    std::fs::remove_file(&password).unwrap();
    let (code, _, err) = run(typed(&world, &["plan"]));
    let missing = format!("missing APIC password; write it into {}, or set", password.display());
    assert!(code == Some(78) && err.contains(&missing), "{err}");
    world.folder.file("apic-password", world.apic.password());
    let (code, check, _) = run(typed(&world, &["check"]));
    assert_eq!(code, Some(0), "{check}");
    let from = format!("all settings are valid; those of the service are in {}", world.folder.path().display());
    assert!(check.contains(&from), "{check}");

    for (words, variable) in [
        (&["plan", "--apic", "other.invalid"][..], None),
        (&["plan"], Some("ACI_USERNAME")),
        (&["plan"], Some("ACI_SYNC_CLUSTER_ID")),
    ] {
        let mut command = typed(&world, words);
        command.envs(variable.map(|name| (name, "other")));
        let (code, _, err) = run(command);
        assert!(code == Some(78) && err.contains("aci-sync: missing APIC "), "{words:?} {variable:?}: {code:?} {err}");
    }
}

/// T13, A5: the certificate of the service's settings is used with the key of its folder, and a command line that names a
/// certificate means other settings.
#[test]
fn the_certificate_of_the_service_is_used() {
    let world = World::new();
    let user = user_certificate("aci-sync", 30);
    let dn = world.apic.add_certificate("aci-sync", "one", &user);
    let key = "/run/credentials/aci-sync.service/apic-private-key.pem";
    install(&world, &format!("ACI_SYNC_APIC_CERTIFICATE_DN={dn}\nACI_SYNC_APIC_PRIVATE_KEY_FILE={key}"));
    world.folder.file("apic-private-key.pem", &user.key_pem(KeyForm::Pkcs8));
    let (code, _, err) = run(typed(&world, &["plan"]));
    assert!(code == Some(78) && err.contains("not together with the credential apic-password"), "{err}");
    std::fs::remove_file(world.folder.path().join("apic-password")).unwrap();
    let (code, plan, err) = run(typed(&world, &["plan"]));
    assert_eq!((code, &*plan), (Some(0), "No changes: the fabric is in sync with the cluster.\n"), "{err}");
    assert!(world.apic.journal().iter().all(|it| it.path != "/api/aaaLogin.json"));
    let (code, _, err) = run(typed(&world, &["plan", "--apic-certificate-dn", &dn]));
    assert!(code == Some(78) && err.contains("missing APIC controllers"), "{code:?} {err}");
}

/// T5, T13: `status` asks where the service's settings say that the daemon listens.
#[test]
fn status_finds_the_daemon() {
    let world = World::new();
    let socket = format!("unix:{}", world.folder.path().join("socket").display());
    install(&world, &format!("ACI_SYNC_LISTEN={socket}"));
    let daemon = world.run(&["--listen", &socket]);
    daemon.until_logged("full sync complete");
    let (code, status, err) = run(typed(&world, &["status"]));
    assert!(code == Some(0) && status.contains(": in sync"), "{status}{err}");
}

/// T13, X4: `run` never reads the settings of the service, and an error in them names file and line, and no value of the file.
#[test]
fn errors_name_the_line() {
    let world = World::new();
    install(&world, "");
    let (code, _, err) = run(typed(&world, &["run"]));
    assert!(code == Some(78) && err.contains("missing APIC controllers"), "{err}");

    let file = world.folder.path().join("aci-sync.env");
    for (line, code, why) in [
        ("ACI_SYNC_RESNYC=5m", 64, "unknown variable ACI_SYNC_RESNYC"),
        ("ACI_SYNC_RESYNC=soon", 78, "ACI_SYNC_RESYNC: \"soon\" is not a duration"),
        ("ACI_SYNC_KEEP_CONTRACTED=yes", 78, "ACI_SYNC_KEEP_CONTRACTED: \"yes\" is neither true nor false"),
        (
            "ACI_PASSWORD=it's hunter2",
            78,
            "has a quote or a backslash; put the value of ACI_PASSWORD into single quotes",
        ),
        ("hunter2", 78, "is not NAME=VALUE"),
    ] {
        install(&world, line);
        let (got, out, err) = run(typed(&world, &["plan"]));
        let at = format!("{}: line 7", file.display());
        assert!(got == Some(code) && err.contains(&at) && err.contains(why), "{line}: {got:?} {err}");
        assert!(out.is_empty() && !err.contains("hunter2") && err.lines().count() == 1, "{out}{err}");
    }
}
