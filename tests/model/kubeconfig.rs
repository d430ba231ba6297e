//! K3: the API server and the credentials for it, from files of all kinds.

use std::ffi::OsString;
use std::path::Path;

use aci_sync::kube::{Client, ClusterConfig, ConfigError, Error, Pool, Token, load};
use aci_sync::model::kubernetes::Kind;
use aci_sync::net::{Roots, Verify};
use aci_sync::secret::Secret;
use sim::folder::Folder;
use sim::kube::{Credential, Options, SimKube, TOKEN};
use sim::pki::{Authority, KeyForm, base64};

fn from(file: &Path) -> Result<ClusterConfig, ConfigError> {
    load(Some(file), None, &|_| None)
}

fn config(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
         clusters:\n- name: k\n  cluster: {{{cluster}}}\nusers:\n- name: u\n  user: {{{user}}}\n"
    )
}

/// Every credential that a server hands out works against it: certificates with keys in all forms, and tokens.
#[test]
fn every_credential_is_accepted() {
    let kube = SimKube::start(Options { prefix: "/k8s/clusters/c-x".to_owned(), ..Options::default() });
    kube.deploy("a", "web", Some("{}"), &["10.0.0.1"]);
    let folder = Folder::new();
    for credential in [
        Credential::Certificate(KeyForm::Pkcs8),
        Credential::Certificate(KeyForm::Pkcs1),
        Credential::Certificate(KeyForm::Sec1),
        Credential::Token,
    ] {
        let file = folder.file("config", &kube.kubeconfig(credential));
        let client = Client::new(&from(&file).unwrap()).unwrap();
        let (pods, version) =
            client.list(Kind::Pod, &mut Pool::default()).unwrap_or_else(|error| panic!("{credential:?}: {error}"));
        assert_eq!((pods.len(), version.is_empty()), (1, false), "{credential:?}");
        assert_eq!(client.cluster_uid().unwrap(), kube.namespace_uid("kube-system"));
    }
    let file = folder.file("config", &kube.kubeconfig(Credential::Nothing));
    let error = Client::new(&from(&file).unwrap()).unwrap().list(Kind::Pod, &mut Pool::default()).unwrap_err();
    assert!(matches!(&error, Error::Forbidden { message } if message.contains("system:anonymous")), "{error}");
}

/// Files beside the kubeconfig are found from wherever it is read; a token file that was renewed is read again.
#[test]
fn files_are_relative_to_the_kubeconfig() {
    let kube = SimKube::start(Options::default());
    let folder = Folder::new();
    let pair = kube.client("other", KeyForm::Sec1);
    folder.file("pki/ca.crt", &kube.ca_pem());
    folder.file("pki/me.crt", &pair.certificate_pem());
    folder.file("pki/me.key", &pair.key_pem(KeyForm::Sec1));
    let cluster = format!("server: '{}', certificate-authority: pki/ca.crt", kube.url());
    let file = folder.file("config", &config(&cluster, "client-certificate: pki/me.crt, client-key: pki/me.key"));
    Client::new(&from(&file).unwrap()).unwrap().cluster_uid().unwrap();

    let token = folder.file("token", &format!("{TOKEN}\n"));
    let file = folder.file("config", &config(&cluster, "token: ignored, tokenFile: token"));
    let read = from(&file).unwrap();
    assert_eq!(read.token, Some(Token::File(token)));
    let client = Client::new(&read).unwrap();
    client.cluster_uid().unwrap();
    kube.accept_tokens(&["renewed"]);
    assert_eq!(client.cluster_uid().unwrap_err(), Error::Unauthorized);
    folder.file("token", "renewed");
    client.cluster_uid().unwrap();
}

/// The server's certificate is checked: by chain and name, by the name that was asked for, or, loudly, not at all.
#[test]
fn servers_are_verified() {
    let kube = SimKube::start(Options { names: vec!["kubernetes.example".to_owned()], ..Options::default() });
    let folder = Folder::new();
    let uid = |cluster: &str| {
        let cluster = format!("server: '{}', {cluster}", kube.url());
        let file = folder.file("config", &config(&cluster, &format!("token: {TOKEN}")));
        Client::new(&from(&file).unwrap()).unwrap().cluster_uid()
    };
    let ours = format!("certificate-authority-data: {}", base64(&kube.ca_pem()));
    let Error::Unreachable(why) = uid(&ours).unwrap_err() else { panic!() };
    assert!(why.contains("hostname mismatch") || why.contains("IP address mismatch"), "{why}");
    assert!(why.contains("kubernetes.example") && why.contains("SHA-256"), "what was presented: {why}");
    assert!(why.contains("requested name: \"127.0.0.1\"") && why.contains("names \"kubernetes.example\""), "{why}");
    assert!(why.contains("tls-server-name") && !why.contains("give its CA"), "the remedy: {why}");
    uid(&format!("{ours}, tls-server-name: kubernetes.example")).unwrap();
    let other = format!("certificate-authority-data: {}", base64(&Authority::new("other").pem()));
    assert!(matches!(uid(&format!("{other}, tls-server-name: kubernetes.example")), Err(Error::Unreachable(_))));
    assert!(matches!(uid("tls-server-name: kubernetes.example"), Err(Error::Unreachable(_))), "system roots");
    uid("insecure-skip-tls-verify: true").unwrap();
    assert!(kube.journal().iter().all(|it| it.user == "system:serviceaccount:sim"), "no other got through");
    assert_eq!(kube.journal().len(), 2, "no request reached a server that was not verified");
}

/// Several files of KUBECONFIG count as one: the first entry of a name wins whole, the first current-context counts.
#[test]
fn files_are_merged() {
    let folder = Folder::new();
    let one = folder
        .file("one", "current-context: ''\nclusters:\n- {name: k, cluster: {server: 'https://first'}}\nusers: null\n");
    let two = folder.file("two", &config("server: 'https://second', tls-server-name: x", "token: t"));
    let list = std::env::join_paths(["", one.to_str().unwrap(), "/no/such/file", two.to_str().unwrap()]).unwrap();
    let read = load(None, None, &|name| (name == "KUBECONFIG").then(|| list.clone())).unwrap();
    assert_eq!(read.server, "https://first");
    assert_eq!(read.tls.server_name, None, "entries are not merged field by field");
    assert_eq!(read.token, Some(Token::Fixed(Secret::new("t"))));
    assert!(matches!((read.tls.roots, read.tls.verify), (Roots::System, Verify::Chain)));

    let home = folder.file(".kube/config", &config("server: 'https://home'", "token: t"));
    let home = home.parent().unwrap().parent().unwrap().as_os_str().to_owned();
    let read = load(None, None, &|name| (name == "HOME").then(|| home.clone())).unwrap();
    assert_eq!(read.server, "https://home");
}

/// K3: fields that would change who we are may be there with nothing in them, as templates leave them.
#[test]
fn empty_fields_are_no_fields() {
    let folder = Folder::new();
    let cluster = "server: 'https://h', proxy-url: '', tls-server-name: ''";
    let user = "token: t, tokenFile: '', username: '', password: null, as: '', as-groups: [], client-key-data: ''";
    let read = from(&folder.file("config", &config(cluster, user))).unwrap();
    assert_eq!((read.token, read.tls.server_name), (Some(Token::Fixed(Secret::new("t"))), None));
}

/// K3, X4: what cannot be used is one sentence with the thing and the remedy.
#[test]
fn bad_kubeconfigs() {
    let folder = Folder::new();
    let good_cluster = "server: 'https://h:6443/prefix/'";
    let exec = "apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: /bin/true";
    for (text, complaint) in [
        (config(good_cluster, "exec: {command: x}"), "exec of user \"u\"|missing apiVersion"),
        (config(good_cluster, "auth-provider: {name: x}"), "auth-provider is not supported"),
        (config(good_cluster, "username: a, password: b"), "username is not supported"),
        (config(good_cluster, "as: other"), "as is not supported"),
        (config("server: 'https://h', proxy-url: 'http://p'", "token: t"), "cluster \"k\"|proxy-url is not supported"),
        (config("server: 'http://h'", "token: t"), "must begin with https://"),
        (config("server: 'https:///x'", "token: t"), "must be https://host"),
        (config("server: 'https://u:p4ssw0rd@h'", "token: t"), "must be https://host"),
        (config("server: 'p4ssw0rd@h'", "token: t"), "without a user"),
        (config("server: 'https://h:65536'", "token: t"), "must be https://host"),
        (config("server: \"https://h\\t\"", "token: t"), "must be https://host"),
        (config("server: 'https://h?x'", "token: t"), "must be https://host"),
        (config("", "token: t"), "must begin with https://"),
        (
            config("server: 'https://h', insecure-skip-tls-verify: true, certificate-authority-data: eA==", ""),
            "exclude each other",
        ),
        (config("server: 'https://h', certificate-authority: gone.crt", ""), "gone.crt: No such file"),
        (config("server: 'https://h', certificate-authority-data: '%%%'", ""), "not base64"),
        (config(good_cluster, "client-certificate-data: eA=="), "client-certificate without client-key"),
        (config(good_cluster, "client-key-data: eA=="), "client-key without client-certificate"),
        (config(good_cluster, "tokenFile: gone"), "gone: No such file"),
        (config(good_cluster, "token: 'a b'"), "invalid characters"),
        (config(good_cluster, "token: [1]"), "token is not text"),
        ("a: b: c".to_owned(), "invalid YAML"),
        ("{}".to_owned(), "no current-context; choose one with --context"),
        (String::new(), "the file is empty"),
        ("current-context: x".to_owned(), "context \"x\" not found"),
        ("x".repeat((1 << 20) + 1), "larger than 1048576 bytes"),
        ("a: 1\na: 2".to_owned(), "duplicate key \"a\""),
        (config(good_cluster, "token: t") + "- name: u\n  user: {}\n", "user \"u\" is defined twice"),
        (config("server: 'https://h', insecure-skip-tls-verify: \"true\"", ""), "cluster \"k\"|true or false, without"),
        (
            config(good_cluster, &format!("exec: {{{exec}, provideClusterInfo: 'no'}}")),
            "exec of user \"u\"|true or false",
        ),
        (
            config(good_cluster, &format!("exec: {{{exec}, env: [{{name: A, value: true}}]}}")),
            "the value of \"A\" in env",
        ),
        (config(good_cluster, &format!("exec: {{{exec}, args: [true]}}")), "args must be text"),
        (config(good_cluster, &format!("exec: {{{exec}, env: {{A: b}}}}")), "must be a list"),
        ("clusters: {k: {}}".to_owned(), "clusters is not a list"),
        ("current-context: true".to_owned(), "current-context is not text"),
        ("a: &x 1\nb: *x".to_owned(), "anchors, aliases and tags|kubectl config view --raw --flatten"),
        (base64(&config(good_cluster, "token: t")), "encoded as base64"),
        (
            config(&format!("{good_cluster}, certificate-authority-data: {}", base64(&base64("-----BEGIN X"))), ""),
            "certificate-authority-data is encoded as base64 twice|kubectl config view --raw --flatten",
        ),
        (Authority::new("ca").pem(), "a certificate or key in PEM"),
    ] {
        let file = folder.file("config", &text);
        let why = from(&file).map(|_| ()).unwrap_err().0;
        for part in complaint.split('|') {
            assert!(why.contains(part), "{text}\n{why}");
        }
        assert!(!why.contains('\n') && !why.contains("p4ssw0rd"), "{why}");
    }
    for (environment, complaint) in [
        (("NOTHING", ""), "use --kubeconfig or KUBECONFIG"),
        (("KUBECONFIG", "/no/such/file"), "no file of KUBECONFIG exists"),
    ] {
        let lookup = |name: &str| (name == environment.0).then(|| OsString::from(environment.1));
        assert!(load(None, None, &lookup).map(|_| ()).unwrap_err().0.contains(complaint));
    }
    assert!(
        from(Path::new("/no/such/file"))
            .map(|_| ())
            .unwrap_err()
            .0
            .contains("failed to read the kubeconfig /no/such/file: ")
    );
}

/// K3: files that are no UTF-8 text say what they are, and what writes a plain one.
#[test]
fn files_in_other_formats() {
    let folder = Folder::new();
    let text = config("server: 'https://h'", "token: t");
    let wide = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let der = Authority::new("ca").0.certificate.to_der().unwrap();
    for (bytes, complaint) in [
        ([&[0xff, 0xfe][..], &wide(u16::to_le_bytes)].concat(), "UTF-16 text"),
        ([&[0xfe, 0xff][..], &wide(u16::to_be_bytes)].concat(), "UTF-16 text"),
        (wide(u16::to_le_bytes), "UTF-16 text"),
        (der.clone(), "in DER"),
        (b"a: \xff".to_vec(), "not UTF-8 text"),
    ] {
        let file = folder.path().join("config");
        std::fs::write(&file, bytes).unwrap();
        let why = from(&file).map(|_| ()).unwrap_err().0;
        assert!(why.contains(complaint) && why.contains("`kubectl config view --raw --flatten`"), "{why}");
    }
    let file = folder.path().join("ca.der");
    std::fs::write(&file, der).unwrap();
    let file = folder.file("config", &config("server: 'https://h', certificate-authority: ca.der", "token: t"));
    let why = Client::new(&from(&file).unwrap()).map(|_| ()).unwrap_err().0;
    assert!(why.contains("DER instead of PEM; convert it with `openssl x509 -inform der`"), "{why}");
}

/// K3: what kubectl reads is read: further documents, a byte order mark, a scheme in capitals, a final dot.
#[test]
fn files_as_kubectl_reads_them() {
    let folder = Folder::new();
    for (text, server) in [
        (config("server: 'https://h'", "token: t") + "---\n", "https://h"),
        (config("server: 'https://h'", "token: t") + "---\nclusters: {}\n", "https://h"),
        (format!("\u{feff}{}", config("server: 'https://h'", "token: t")), "https://h"),
        (config("server: 'HTTPS://10.0.0.1:6443/'", "token: t"), "https://10.0.0.1:6443"),
        (config("server: 'https://kube.example.com.:6443'", "token: t"), "https://kube.example.com.:6443"),
    ] {
        assert_eq!(from(&folder.file("config", &text)).unwrap().server, server);
    }
}

/// X4: a certificate or a key that cannot be used is an error before anything is sent, without its content.
#[test]
fn bad_certificates_and_keys() {
    let folder = Folder::new();
    let ca = Authority::new("ca");
    let (one, two) = (ca.client("one", &[], KeyForm::Pkcs8), ca.client("two", &[], KeyForm::Pkcs8));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgx\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (certificate, key, complaint) in [
        (one.certificate_pem(), "rubbish".to_owned(), "must be a PEM private key without a password"),
        (one.certificate_pem(), encrypted.to_owned(), "must be a PEM private key without a password"),
        (one.certificate_pem(), two.key_pem(KeyForm::Pkcs8), "do not match"),
        ("rubbish".to_owned(), one.key_pem(KeyForm::Pkcs8), "client certificate"),
    ] {
        folder.file("c", &certificate);
        folder.file("k", &key);
        let file = folder.file("config", &config("server: 'https://h'", "client-certificate: c, client-key: k"));
        let why = Client::new(&from(&file).unwrap()).map(|_| ()).unwrap_err().0;
        assert!(why.contains(complaint), "{why}");
        assert!(!why.contains("BEGIN") && !why.contains("rubbish"), "{why}");
    }
    folder.file("ca", "rubbish");
    let file = folder.file("config", &config("server: 'https://h', certificate-authority: ca", "token: t"));
    assert!(Client::new(&from(&file).unwrap()).map(|_| ()).unwrap_err().0.contains("CA bundle"));
}
