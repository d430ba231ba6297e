//! K3, F35: exec plugins, and credentials that change while they are used.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::world::{Daemon, E, LIMIT, World, output};
use aci_sync::kube::plugin;
use aci_sync::kube::{Client, ClusterConfig, ConfigError, Error, Pool, load};
use aci_sync::model::kubernetes::Kind;
use serde_json::{Value, json};
use sim::folder::Folder;
use sim::kube::{Credential, Options, SimKube, TOKEN};
use sim::net::{Fault, Trouble};
use sim::pki::KeyForm;

const V1: &str = "client.authentication.k8s.io/v1";
const BETA: &str = "client.authentication.k8s.io/v1beta1";

/// A plugin that notes its run and its environment, and prints the file `answer`.
const PLUGIN: &str = "echo run >> \"$1/runs\"; printf %s \"$KUBERNETES_EXEC_INFO\" > \"$1/info\"; \
                      printf %s \"$GREETING\" > \"$1/greeting\"; cat \"$1/answer\"";

/// A kubeconfig whose user is this.
fn kubeconfig(kube: &SimKube, user: &Value) -> String {
    let mut config: Value = serde_json::from_str(&kube.kubeconfig(Credential::Nothing)).unwrap();
    config["users"][0]["user"] = user.clone();
    config.to_string()
}

/// A user whose credential comes from a shell script.
fn exec(folder: &Folder, script: &str) -> Value {
    json!({"exec": {"apiVersion": V1, "interactiveMode": "Never", "command": "/bin/sh",
        "args": ["-c", script, "plugin", folder.path()], "env": [{"name": "GREETING", "value": "hello"}]}})
}

/// What a plugin prints.
fn answer(version: &str, status: &Value) -> String {
    json!({"apiVersion": version, "kind": "ExecCredential", "status": status}).to_string()
}

fn read(file: &Path) -> Result<ClusterConfig, ConfigError> {
    load(Some(file), None, &|name| std::env::var_os(name))
}

/// A client as the daemon has it: its kubeconfig is read again when that is called for.
fn client(file: &Path) -> Client {
    let file = file.to_owned();
    Client::renewable(Box::new(move || read(&file))).unwrap()
}

/// How often the plugin ran.
fn runs(folder: &Folder) -> usize {
    std::fs::read_to_string(folder.path().join("runs")).unwrap_or_default().lines().count()
}

/// Waits until something is true.
#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "it never came about that {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The text of a file, once it is there and whole.
fn line_in(file: &Path) -> String {
    let text = || std::fs::read_to_string(file).unwrap_or_default();
    until("the file is written", || text().ends_with('\n'));
    text().trim().to_owned()
}

/// Whether a process runs. A zombie does not.
fn is_running(process: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The end of a time of day from now, as RFC 3339.
fn in_seconds(seconds: &str) -> String {
    let date = std::process::Command::new("date").args(["-u", "-d", seconds, "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().to_owned()
}

/// K3: a plugin gives a token, a certificate, or both, in both versions of the protocol; it gets its arguments, its
/// environment, and what it may know of the cluster.
#[test]
fn a_plugin_provides_the_credential() {
    let kube = SimKube::start(Options::default());
    let folder = Folder::new();
    let pair = kube.client("by-plugin", KeyForm::Sec1);
    let certificate =
        json!({"clientCertificateData": pair.certificate_pem(), "clientKeyData": pair.key_pem(KeyForm::Sec1)});
    let mut both = certificate.clone();
    both["token"] = json!(TOKEN);
    for (version, status, user) in [
        (V1, json!({"token": TOKEN}), "system:serviceaccount:sim"),
        (
            BETA,
            json!({"token": TOKEN, "expirationTimestamp": "2199-01-01T00:00:00.5+01:00"}),
            "system:serviceaccount:sim",
        ),
        (V1, certificate, "by-plugin"),
        (BETA, both, "system:serviceaccount:sim"),
    ] {
        folder.file("answer", &answer(version, &status));
        let mut user_entry = exec(&folder, PLUGIN);
        user_entry["exec"]["apiVersion"] = json!(version);
        client(&folder.file("config", &kubeconfig(&kube, &user_entry))).cluster_uid().unwrap();
        assert_eq!(kube.journal().last().unwrap().user, user, "{version} {status}");
        let info: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("info")).unwrap()).unwrap();
        assert_eq!(info, json!({"kind": "ExecCredential", "apiVersion": version, "spec": {"interactive": false}}));
        assert_eq!(std::fs::read_to_string(folder.path().join("greeting")).unwrap(), "hello");
    }

    // With what it may know; beside the kubeconfig, and out of PATH.
    folder.file("answer", &answer(V1, &json!({"token": TOKEN})));
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    std::os::unix::fs::symlink("/bin/sh", folder.path().join("bin/plugin")).unwrap();
    for command in ["bin/plugin", "sh"] {
        let mut user = exec(&folder, PLUGIN);
        user["exec"]["command"] = json!(command);
        user["exec"]["provideClusterInfo"] = json!(true);
        let mut config: Value = serde_json::from_str(&kubeconfig(&kube, &user)).unwrap();
        let own = json!({"name": "client.authentication.k8s.io/exec", "extension": {"audience": "us"}});
        config["clusters"][0]["cluster"]["extensions"] = json!([{"name": "other", "extension": 1}, own]);
        client(&folder.file("config", &config.to_string())).cluster_uid().unwrap();
        let info: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("info")).unwrap()).unwrap();
        let cluster = &info["spec"]["cluster"];
        let ca = sim::pki::base64(&kube.ca_pem());
        assert_eq!(
            *cluster,
            json!({"server": kube.url(), "certificate-authority-data": ca, "config": {"audience": "us"}})
        );
    }
}

/// K3: a plugin is run once for all who wait, and again when its credential has ended, not before.
#[test]
fn a_plugin_is_run_again_when_its_credential_expires() {
    let kube = SimKube::start(Options::default());
    let folder = Folder::new();
    folder.file("answer", &answer(V1, &json!({"token": TOKEN, "expirationTimestamp": in_seconds("+1 hour")})));
    let file = folder.file("config", &kubeconfig(&kube, &exec(&folder, &format!("{PLUGIN}; sleep 0.3"))));
    let first = client(&file);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| first.cluster_uid().unwrap());
        }
    });
    assert_eq!(runs(&folder), 1, "one run for eight requests at once");
    first.cluster_uid().unwrap();
    assert_eq!(runs(&folder), 1);

    folder.file("answer", &answer(V1, &json!({"token": TOKEN, "expirationTimestamp": in_seconds("+2 seconds")})));
    let second = client(&file);
    until("the credential ended and there is another one", || {
        second.cluster_uid().unwrap();
        runs(&folder) == 4
    });
    assert!(kube.journal().len() >= 12, "several requests for each run");
}

/// K3, W8: a rejected credential costs one run for all requests; one that stays rejected costs fewer and fewer runs.
#[test]
fn a_rejected_credential_runs_the_plugin_once() {
    let kube = SimKube::start(Options::default());
    let folder = Folder::new();
    folder.file("answer", &answer(V1, &json!({"token": TOKEN})));
    let client = client(&folder.file("config", &kubeconfig(&kube, &exec(&folder, PLUGIN))));
    client.cluster_uid().unwrap();
    kube.accept_tokens(&["second"]);
    folder.file("answer", &answer(V1, &json!({"token": "second"})));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client.cluster_uid().unwrap());
        }
    });
    assert_eq!(runs(&folder), 2);

    kube.accept_tokens(&["third"]);
    let begun = Instant::now();
    for _ in 0..200 {
        assert_eq!(client.cluster_uid().unwrap_err(), Error::Unauthorized);
    }
    // Pauses of half a second at least, doubling.
    let most = 3 + (begun.elapsed().as_secs_f64() + 1.0).log2().ceil() as usize + 1;
    assert!(runs(&folder) <= most, "{} runs in {:?}", runs(&folder), begun.elapsed());
    folder.file("answer", &answer(V1, &json!({"token": "third"})));
    until("it heals", || client.cluster_uid().is_ok());
}

/// K3, A4: a plugin that fails, prints rubbish or is gone is one clear sentence without what it printed, is not run
/// again at once, and heals.
#[test]
fn a_failing_plugin_is_logged_and_retried() {
    let kube = SimKube::start(Options::default());
    let good = answer(V1, &json!({"token": TOKEN}));
    let pair = kube.client("x", KeyForm::Pkcs8);
    let (certificate, key) = (pair.certificate_pem(), pair.key_pem(KeyForm::Pkcs8));
    let other = kube.client("y", KeyForm::Pkcs8).key_pem(KeyForm::Pkcs8);
    let status = |status: Value| answer(V1, &status);
    let cat = "cat \"$1/answer\"";
    let loud = "cat \"$1/answer\"; printf 'please\\nlog in' >&2; head -c 100000 /dev/zero >&2; exit 3";
    for (script, printed, complaint) in [
        (loud, good.clone(), "failed (exit status: 3); stderr: please log in"),
        ("cat \"$1/answer\"; kill -9 $$", good.clone(), "failed (signal: 9"),
        (cat, "S3CRET".to_owned(), "printed no ExecCredential"),
        (cat, String::new(), "printed no ExecCredential: empty output; run it by hand"),
        (cat, format!("S3CRET {good}"), "printed no ExecCredential: text before it"),
        (cat, format!("{good}S3CRET"), "printed no ExecCredential: text after it"),
        (cat, good.replace("ExecCredential", "S3CRET"), "printed no ExecCredential"),
        (cat, good.replace(V1, BETA), "answered in another version than client.authentication.k8s.io/v1 "),
        (cat, good.replace("status", "S3CRET"), "without a status"),
        (cat, status(json!({})), "neither a token nor a certificate"),
        (cat, status(json!({"token": "S3CRET\r\nX: y"})), "invalid characters"),
        (
            cat,
            status(json!({"token": "S3CRET", "expirationTimestamp": "S3CRET"})),
            "printed an invalid expirationTimestamp",
        ),
        (cat, status(json!({"clientCertificateData": certificate})), "a certificate without a key"),
        (cat, status(json!({"clientCertificateData": certificate, "clientKeyData": "S3CRET"})), "without a password"),
        (cat, status(json!({"clientCertificateData": certificate, "clientKeyData": other})), "do not match"),
        (cat, status(json!({"clientCertificateData": "S3CRET", "clientKeyData": key})), "client certificate"),
        ("yes S3CRET", String::new(), "printed more than 1048576 bytes"),
    ] {
        let folder = Folder::new();
        folder.file("answer", &printed);
        let user = exec(
            &folder,
            &format!("if [ -e \"$1/healed\" ]; then {PLUGIN}; exit; fi; echo run >> \"$1/runs\"; {script}"),
        );
        let client = client(&folder.file("config", &kubeconfig(&kube, &user)));
        let Err(Error::Credentials(why)) = client.list(Kind::Pod, &mut Pool::default()) else { panic!("{complaint}") };
        assert!(why.starts_with("credential plugin \"/bin/sh\": ") && why.contains(complaint), "{complaint}: {why}");
        assert!(!why.contains("S3CRET") && !why.contains("PRIVATE") && !why.contains(TOKEN), "{why}");
        assert!(why.len() < 600 && !why.chars().any(char::is_control), "{why}");
        assert_eq!(
            client.list(Kind::Pod, &mut Pool::default()).unwrap_err(),
            Error::Credentials(why),
            "the same, without another run"
        );
        assert_eq!(runs(&folder), 1);
        folder.file("answer", &good);
        folder.file("healed", "");
        until("it heals", || client.list(Kind::Pod, &mut Pool::default()).is_ok());
    }
    assert!(kube.journal().iter().all(|it| !it.user.is_empty()), "nothing was asked for without a credential");

    let folder = Folder::new();
    folder.file("answer", &good);
    let program = folder.path().join("plugin");
    std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
    let mut user = exec(&folder, PLUGIN);
    user["exec"]["command"] = json!("./plugin");
    user["exec"]["installHint"] = json!("get it\nfrom us");
    let client = client(&folder.file("config", &kubeconfig(&kube, &user)));
    std::fs::remove_file(&program).unwrap();
    let why = client.list(Kind::Pod, &mut Pool::default()).unwrap_err().to_string();
    assert!(why.contains("plugin\": not found; get it from us"), "{why}");
    std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
    until("it is there again", || client.list(Kind::Pod, &mut Pool::default()).is_ok());
}

/// K3, X3: a plugin that hangs is killed with all that it started; meanwhile it is not started again, and afterwards
/// the daemon goes on.
#[test]
fn a_plugin_that_hangs_is_killed() {
    let world = World::new();
    // A run after the end of the first one is not counted.
    let script = format!(
        "if [ -e \"$1/healed\" ]; then {PLUGIN}; exit; fi; \
         [ -e \"$1/processes\" ] && ! kill -0 $(cut -d' ' -f1 \"$1/processes\") || echo run >> \"$1/runs\"; \
         sleep 1000 & echo $$ $! > \"$1/processes\"; wait"
    );
    world.folder.file("answer", &answer(V1, &json!({"token": TOKEN})));
    world.folder.file("kubeconfig", &kubeconfig(&world.kube, &exec(&world.folder, &script)));
    let daemon = world.run(&[]);
    let processes = line_in(&world.folder.path().join("processes"));
    let processes: Vec<&str> = processes.split(' ').collect();
    assert!(processes.iter().all(|it| is_running(it)), "{processes:?}");
    daemon.until_logged("failed to get credentials for the API server: credential plugin ");
    until("all of it is gone", || processes.iter().all(|it| !is_running(it)));
    assert_eq!(runs(&world.folder), 1, "three watchers, one run");
    world.folder.file("healed", "");
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
}

/// K3: a plugin that has ended, with a process of its own that keeps its output open, has an error of its own.
#[test]
fn a_plugin_whose_output_stays_open_is_an_error() {
    let kube = SimKube::start(Options::default());
    let folder = Folder::new();
    folder.file("answer", &answer(V1, &json!({"token": TOKEN})));
    let user = exec(&folder, "sleep 1000 & echo run >> \"$1/runs\"; cat \"$1/answer\"");
    let client = client(&folder.file("config", &kubeconfig(&kube, &user)));
    let why = client.list(Kind::Pod, &mut Pool::default()).unwrap_err().to_string();
    assert!(why.contains("ended, but a process that it started kept its output open for 20 s"), "{why}");
}

/// X2: a stop does not wait for a plugin that hangs, and leaves nothing of it behind. A reload on demand does not wait
/// either.
#[test]
fn a_shutdown_does_not_wait_for_a_plugin() {
    let world = World::new();
    let script = "sleep 1000 & echo $$ $! > \"$1/processes\"; wait";
    world.folder.file("kubeconfig", &kubeconfig(&world.kube, &exec(&world.folder, script)));
    let mut daemon = world.run(&[]);
    let processes = line_in(&world.folder.path().join("processes"));
    daemon.signal("HUP");
    daemon.until_logged("credentials read again");
    let (code, time) = daemon.stop();
    assert_eq!((code, daemon.count("threads still running")), (Some(0), 0), "{}", daemon.log());
    assert!(time < Duration::from_secs(10), "{time:?}");
    until("all of it is gone", || processes.split(' ').all(|it| !is_running(it)));
}

/// K3, X4: an invalid plugin entry is an error at the start.
#[test]
fn bad_plugin_entries() {
    let world = World::new();
    for (change, complaint) in [
        (json!({"apiVersion": null}), "missing apiVersion"),
        (json!({"apiVersion": "client.authentication.k8s.io/v1alpha1"}), "v1alpha1\\\" is not supported"),
        (json!({"interactiveMode": "Always"}), "interactiveMode Always is not supported: a daemon has no terminal"),
        (json!({"interactiveMode": null}), "missing interactiveMode; v1 needs"),
        (json!({"interactiveMode": "Sometimes"}), "invalid interactiveMode; use Never or IfAvailable"),
        (json!({"command": ""}), "missing command"),
        (
            json!({"command": "no-such-plugin", "installHint": "get it from us"}),
            "program \\\"no-such-plugin\\\" not found; get it from us",
        ),
        (json!({"command": "./no-such-plugin"}), "not found"),
        (json!({"command": "kubeconfig"}), "not found"),
        (json!({"args": "x"}), "args must be a list"),
        (json!({"env": [{"value": "x"}]}), "env has an entry without a valid name"),
    ] {
        let mut user = exec(&world.folder, PLUGIN);
        for (key, value) in change.as_object().unwrap() {
            user["exec"][key] = value.clone();
        }
        world.folder.file("kubeconfig", &kubeconfig(&world.kube, &user));
        let done = world.output(&["run"]);
        let err = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(78), "{change}: {err}");
        let complaint = complaint.replace('\\', "");
        assert!(err.contains("exec of user \"sim\"") && err.contains(&complaint), "{change}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    let mut user = exec(&world.folder, PLUGIN);
    user["token"] = json!("S3CRET");
    world.folder.file("kubeconfig", &kubeconfig(&world.kube, &user));
    let err = String::from_utf8(world.output(&["plan"]).stderr).unwrap();
    assert!(err.contains("beside a token or a client-certificate; remove one") && !err.contains("S3CRET"), "{err}");
    let mut command = world.command(&["plan"]);
    world.folder.file("kubeconfig", &kubeconfig(&world.kube, &exec(&world.folder, "echo S3CRET; exit 1")));
    command.env("RUST_LOG", "trace");
    let done = output(command);
    let err = String::from_utf8(done.stderr).unwrap();
    assert!(err.contains("credential plugin \"/bin/sh\": failed (exit status: 1)") && !err.contains("S3CRET"), "{err}");
    assert_eq!(done.status.code(), Some(1));
}

/// K3, X4: what cannot be used, now or ever, ends the start with one sentence and 78.
#[test]
fn unusable_credentials_end_the_start() {
    let world = World::new();
    let pair = world.kube.client("me", KeyForm::Pkcs1);
    world.folder.file("me.crt", &pair.certificate_pem());
    std::fs::create_dir(world.folder.path().join("folder")).unwrap();
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let modern = pair.key.private_key_to_pem_pkcs8_passphrase(cipher, b"word").unwrap();
    let old = pair.key.rsa().unwrap().private_key_to_pem_passphrase(cipher, b"word").unwrap();
    for (name, key) in [("modern.key", modern), ("old.key", old)] {
        world.folder.file(name, &String::from_utf8(key).unwrap());
    }
    let with_key = |key: &str| json!({"client-certificate": "me.crt", "client-key": key});
    for (user, complaint) in [
        (with_key("modern.key"), "failed to read the client key; it must be a PEM private key without a password"),
        (with_key("old.key"), "failed to read the client key; it must be a PEM private key without a password"),
        (with_key("gone.key"), "gone.key: No such file"),
        (with_key("folder"), "folder: Is a directory"),
        (json!({"username": "S3CRET", "password": "S3CRET"}), "username is not supported; use a client certificate"),
        (json!({"auth-provider": {"name": "gcp"}}), "auth-provider is not supported; "),
        (json!({"token": "S3CRET", "as": "other"}), "as is not supported; "),
        (json!({"token": "S3CRET", "as-groups": ["x"]}), "as-groups is not supported; "),
        (json!({"tokenFile": "gone"}), "gone: No such file"),
    ] {
        world.folder.file("kubeconfig", &kubeconfig(&world.kube, &user));
        let done = world.output(&["run"]);
        let err = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), err.lines().count()), (Some(78), 1), "{err}");
        assert!(err.contains(complaint) && !err.contains("S3CRET"), "{err}");
    }
    let mut config: Value = serde_json::from_str(&kubeconfig(&world.kube, &json!({"token": TOKEN}))).unwrap();
    config["clusters"][0]["cluster"]["proxy-url"] = json!("http://user:S3CRET@proxy");
    world.folder.file("kubeconfig", &config.to_string());
    let err = String::from_utf8(world.output(&["run"]).stderr).unwrap();
    assert!(err.contains("cluster \"sim\"") && err.contains("proxy-url is not supported; "), "{err}");
    assert!(!err.contains("S3CRET") && err.lines().count() == 1, "{err}");
    assert_eq!(world.kube.journal().len(), 0, "nothing was asked for");
}

/// X3: whatever a plugin prints, what is taken of it fits into a header and into TLS.
#[test]
fn answers_are_checked() {
    let good = answer(V1, &json!({"token": "t", "expirationTimestamp": "2199-01-01T00:00:00Z"}));
    let read = plugin::decode(good.as_bytes(), V1).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!((read.token.unwrap().expose(), read.expires, read.identity.is_none()), ("t", Some(7_226_582_400), true));
    for end in 0..good.len() {
        assert!(plugin::decode(&good.as_bytes()[..end], V1).is_err(), "cut at {end}");
    }
    let deep = "[".repeat(100_000);
    assert!(plugin::decode(deep.as_bytes(), V1).is_err());
}

/// The users whose requests were served since an instant. An Event that is sent again may be on its way just then.
fn users(world: &World, since: Instant) -> Vec<String> {
    let served = world.kube.journal().into_iter().filter(|it| it.at > since && !it.user.is_empty());
    let served = served.filter(|it| !it.target.contains("/events"));
    served.map(|it| it.user).collect()
}

/// Waits until all three watches were opened by a user since an instant.
#[track_caller]
fn until_watched_by(world: &World, user: &str, since: Instant) {
    let is_watched = |kind: &str| {
        let target = format!("/{kind}?watch=true");
        world.kube.journal().iter().any(|it| it.at > since && it.user == user && it.target.contains(&target))
    };
    until(&format!("{user} watches all"), || ["deployments", "pods", "services"].into_iter().all(is_watched));
}

/// How many lists were asked for.
fn lists(world: &World) -> usize {
    world.kube.journal().iter().filter(|it| it.target.contains("limit=500")).count()
}

fn write_pair(world: &World, user: &str) {
    let pair = world.kube.client(user, KeyForm::Pkcs8);
    world.folder.file("me.crt", &pair.certificate_pem());
    world.folder.file("me.key", &pair.key_pem(KeyForm::Pkcs8));
}

/// F35 (K3): client certificates are renewed under a running daemon: on SIGHUP, and by itself when the old one is
/// refused. Old connections are not used any longer, a half-written pair changes nothing, and nothing is listed again.
#[test]
fn certificates_are_rotated() {
    let world = World::new();
    write_pair(&world, "one");
    let user = json!({"client-certificate": "me.crt", "client-key": "me.key"});
    world.folder.file("kubeconfig", &kubeconfig(&world.kube, &user));
    let daemon = world.run(&["--epg-grace", "0"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);

    let two = world.kube.client("two", KeyForm::Pkcs8);
    world.folder.file("me.crt", &two.certificate_pem());
    daemon.signal("HUP");
    daemon.until_logged("failed to read the Kubernetes credentials");
    daemon.until_logged("client certificate and client key do not match");
    let begun = Instant::now();
    world.kube.server().cut_all();
    until_watched_by(&world, "one", begun);
    assert!(users(&world, begun).iter().all(|it| it == "one"));

    world.folder.file("me.key", &two.key_pem(KeyForm::Pkcs8));
    let begun = Instant::now();
    daemon.signal("HUP");
    daemon.until_logged("credentials read again");
    until_watched_by(&world, "two", begun);
    assert!(users(&world, begun).iter().all(|it| it == "two"));
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);

    let begun = Instant::now();
    write_pair(&world, "three");
    world.kube.refuse_user("two");
    world.kube.server().cut_all();
    until_watched_by(&world, "three", begun);
    world.kube.delete("pods", "a", "web-646c8dfd75-2");
    world.until_holds("E", &["10.0.0.1"]);
    assert_eq!(lists(&world), 3, "nothing was listed again: {}", daemon.log());
    assert!(!daemon.log().contains("PRIVATE"));
}

/// F35 (K3): a kubeconfig that is written again, with its certificate in it, is taken; but never one that names another
/// server: an empty cluster there would look as if everything had been deleted.
#[test]
fn a_kubeconfig_may_change_but_not_its_server() {
    let world = World::new();
    let daemon = world.run(&["--epg-grace", "0"]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    let elsewhere = SimKube::start(Options::default());
    world.folder.file("kubeconfig", &elsewhere.kubeconfig(Credential::Token));
    daemon.signal("HUP");
    daemon.until_logged("names another server");
    world.kube.refuse_user("kubernetes-admin");
    world.kube.server().cut_all();
    daemon.until_logged("error=\"failed to get credentials for the API server: the present ones are rejected (401); ");
    assert_eq!(elsewhere.journal().len(), 0);

    world.folder.file("kubeconfig", &world.kube.kubeconfig(Credential::Token));
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert_eq!((lists(&world), daemon.count("panicked")), (3, 0));
}

/// F35, K2: a 401 within an open watch leads to a new credential, here of a plugin, and to a list of that kind; the
/// other watches go on from where they were. The log holds no secret, and the plugin gets no password to print.
#[test]
fn a_watch_goes_on_with_a_new_credential() {
    let world = World::new();
    world.folder.file("answer", &answer(V1, &json!({"token": TOKEN})));
    let script = format!("echo a deprecated flag $ACI_PASSWORD >&2; {PLUGIN}");
    world.folder.file("kubeconfig", &kubeconfig(&world.kube, &exec(&world.folder, &script)));
    let mut command = world.command(&["run", "--epg-grace", "0"]);
    command.env("RUST_LOG", "trace").env("ACI_PASSWORD", "not-for-others");
    let daemon = Daemon::start(command);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1", "10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);

    let status = json!({"kind": "Status", "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401});
    let line = format!("{}\n", json!({"type": "ERROR", "object": status}));
    world.kube.fault(Fault::on("/pods?watch=true", Trouble::Answer(200, "application/json", line)).times(1));
    world.kube.accept_tokens(&["rotated-token-2"]);
    world.folder.file("answer", &answer(V1, &json!({"token": "rotated-token-2"})));
    world.kube.delete("pods", "a", "web-646c8dfd75-1");
    world.kube.server().cut_all();
    until("the plugin was run again", || runs(&world.folder) == 2);
    world.kube.pod("a", "web", "3", &["10.0.0.3"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.3"]);
    assert_eq!((lists(&world), runs(&world.folder)), (4, 2), "{}", daemon.log());
    daemon.until_logged("credential plugin wrote to stderr name=/bin/sh reason=\"a deprecated flag");
    let log = daemon.log();
    assert!([TOKEN, "rotated-token-2", "not-for-others", world.apic.password()].iter().all(|it| !log.contains(it)));
}

/// F35 (A1, W8): a password that was rotated on the APIC is read again when the old one is no longer good, without a
/// signal and without a login that is refused.
#[test]
fn a_rotated_password_is_found() {
    let world = World::new();
    let daemon = world.run(&[]);
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    world.until_holds("E", &["10.0.0.1"]);
    world.apic.set_password("admin", "Another-word-2");
    world.folder.file("password", "Another-word-2");
    world.apic.expire_tokens();
    world.kube.pod("a", "web", "2", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    let logins = || world.apic.journal().iter().filter(|it| it.path.contains("aaaLogin")).count();
    assert_eq!((logins(), daemon.count("check the credentials")), (2, 0));

    // One that was tried before it was renewed: the new one comes at once, this once.
    world.apic.set_password("admin", "Another-word-3");
    world.apic.then("POST", "aaaLogin", {
        let file = world.folder.path().join("password");
        move |_| std::fs::write(&file, "Another-word-3").unwrap()
    });
    world.apic.drop_websockets();
    daemon.until_logged("APIC login refused; trying the new credentials");
    assert!(!daemon.log().contains("Another-word"));
}
