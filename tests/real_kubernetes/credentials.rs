//! The daemon's identity at the API server: the ServiceAccount of `scripts/kubernetes-rbac.yaml`, by every kind of
//! credential.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::e2e_world::output;
use crate::world::World;

/// K3: a token in the kubeconfig, in a file beside it, a static one, and client certificates in every form of a key.
#[test]
fn every_kind_of_credential() {
    let world = World::new();
    for kind in ["service-account", "token-file", "static-token", "pkcs8", "pkcs1", "sec1"] {
        let done = output(world.command(world.cluster.file(&format!("{kind}.kubeconfig")), &["plan"]));
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(0), "{kind}: {words}");
    }
}

/// K3: a token that is no longer valid is logged; once the file holds a valid one the daemon goes on by itself.
#[test]
fn a_token_file_is_read_again() {
    let world = World::new();
    let (good, file) = (world.cluster.file("service-account.token"), world.cluster.file("rotated.token"));
    let kubeconfig = fs::read_to_string(world.cluster.file("token-file.kubeconfig")).unwrap();
    let own = world.cluster.file("rotated.kubeconfig");
    fs::write(&own, kubeconfig.replace("service-account.token", "rotated.token")).unwrap();
    fs::write(&file, "none-of-theirs").unwrap();
    let daemon = world.run_as("rotated.kubeconfig", &[]);
    daemon.until_logged("(401)");
    world.deploy("web", Some("E"), 1);
    fs::copy(good, file).unwrap();
    world.until_follows("E", "web", 1, &[]);
    fs::remove_file(own).unwrap();
}

/// K3: a token expires under a running daemon, whose file holds the next one by then: its watches go on, and its next
/// request is answered. Nothing is listed again for it.
#[test]
fn a_token_expires_under_a_running_daemon() {
    let world = World::new();
    let cluster = &world.cluster;
    // A token can be bound to a Secret, and ends with it.
    cluster.kubectl(&["--namespace=kube-system", "create", "secret", "generic", "bond"]);
    let path = "{.metadata.uid}";
    let uid =
        cluster.kubectl(&["--namespace=kube-system", "get", "secret", "bond", &format!("--output=jsonpath={path}")]);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "bond", "uid": uid}}});
    let url = "/api/v1/namespaces/kube-system/serviceaccounts/aci-sync/token";
    let answer = cluster.kubectl_with(&["create", "--filename", "-", "--raw", url], &request.to_string());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let (file, own) = (cluster.file("bound.token"), cluster.file("bound.kubeconfig"));
    fs::write(&file, answer["status"]["token"].as_str().unwrap()).unwrap();
    let kubeconfig = fs::read_to_string(cluster.file("token-file.kubeconfig")).unwrap();
    fs::write(&own, kubeconfig.replace("service-account.token", "bound.token")).unwrap();
    let is_good = || {
        let words = ["--kubeconfig", own.to_str().unwrap(), "get", "--raw", "/version"];
        cluster.command(&words).output().unwrap().status.success()
    };
    let mut daemon = world.run_as("bound.kubeconfig", &[]);
    world.deploy("web", Some("E"), 1);
    world.until_follows("E", "web", 1, &[]);
    let listed = daemon.count("relisting");

    assert!(is_good());
    cluster.kubectl(&["--namespace=kube-system", "delete", "secret", "bond"]);
    world.until("the token has ended", || !is_good());
    fs::copy(cluster.file("service-account.token"), file).unwrap();
    world.deploy("api", Some("F"), 1);
    world.until_follows("F", "api", 1, &[]);
    let described = || world.kubectl(&["describe", "deployment", "api"]).contains("Synced");
    world.until("its Event is there", described);
    assert_eq!(daemon.count("relisting"), listed, "{}", daemon.log());
    assert_eq!(daemon.stop().0, Some(0));
}

/// K3: an exec plugin, with what it needs to know of the cluster.
#[test]
fn an_exec_plugin() {
    let world = World::new();
    let token = world.cluster.file("service-account.token");
    let script = format!(
        "#!/bin/sh\ncase $KUBERNETES_EXEC_INFO in *'\"server\":\"https://127.0.0.1:'*) ;; *) exit 3 ;; esac\n\
         printf '{{\"apiVersion\":\"client.authentication.k8s.io/v1beta1\",\"kind\":\"ExecCredential\",\
         \"status\":{{\"token\":\"%s\"}}}}' \"$(cat {})\"\n",
        token.display()
    );
    let plugin = world.cluster.file("plugin.sh");
    fs::write(&plugin, script).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o700)).unwrap();
    let kubeconfig = fs::read_to_string(world.cluster.file("token-file.kubeconfig")).unwrap();
    let exec =
        "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin.sh, provideClusterInfo: true}}";
    let own = world.cluster.file("exec.kubeconfig");
    fs::write(&own, kubeconfig.replace("{tokenFile: service-account.token}", exec)).unwrap();
    let daemon = world.run_as("exec.kubeconfig", &[]);
    world.deploy("web", Some("E"), 1);
    world.until_follows("E", "web", 1, &[]);
    let token = fs::read_to_string(token).unwrap();
    assert!(!daemon.log().contains(token.trim()));
}

/// K3: several files of KUBECONFIG are one, and the first word on a name counts.
#[test]
fn several_files() {
    let world = World::new();
    let whole = fs::read_to_string(world.cluster.file("token-file.kubeconfig")).unwrap();
    let (users, rest): (Vec<&str>, Vec<&str>) = whole.lines().partition(|it| it.starts_with("users:"));
    let head = "apiVersion: v1\nkind: Config\n";
    let files = [
        ("users.kubeconfig", format!("{head}{}\n", users.join("\n"))),
        ("rest.kubeconfig", rest.join("\n")),
        ("late.kubeconfig", format!("{head}users: [{{name: real, user: {{token: none-of-theirs}}}}]\n")),
    ];
    let paths = files.map(|(name, text)| {
        fs::write(world.cluster.file(name), text).unwrap();
        world.cluster.file(name)
    });
    let list = std::env::join_paths(&paths).unwrap();
    let mut command = world.command(world.cluster.file("none"), &["plan"]);
    command.env_remove("ACI_SYNC_KUBECONFIG").env("KUBECONFIG", list);
    let done = output(command);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
}
