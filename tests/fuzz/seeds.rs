//! Where inputs begin: what a real API server sent, what an APIC is documented to send, what people write.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use openssl::symm::Cipher;
use sim::pki::{Authority, KeyForm};

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|it| it.as_bytes().to_vec()).collect()
}

/// The bodies of all recordings, their framing taken off; nothing of more than a few pages, which only takes longer.
fn bodies() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for folder in super::files(&folder("tests/recordings/kubernetes")) {
        files.extend(super::files(&folder).into_iter().filter(|it| it.extension().is_some_and(|it| it == "http")));
    }
    let bodies: Vec<_> = files.iter().map(|it| body(&std::fs::read(it).unwrap())).collect();
    assert!(bodies.len() > 90, "only {} recordings", bodies.len());
    bodies
}

fn body(answer: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a head");
    let chunked = answer[..end].to_ascii_lowercase().windows(7).any(|it| it == b"chunked");
    let mut rest = &answer[end + 4..];
    if !chunked {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|it| it == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 || rest.len() < line + 2 + size + 2 {
            break;
        }
        body.extend(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
    body
}

/// Every line that a watch ever sent, but of many that look the same only some.
pub fn watch_lines() -> Vec<Vec<u8>> {
    let streams = bodies().into_iter().filter(|it| it.starts_with(b"{\"type\""));
    let mut lines: Vec<Vec<u8>> =
        streams.flat_map(|it| it.split(|it| *it == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()).collect();
    lines.retain(|it| !it.is_empty());
    lines.sort();
    lines.dedup_by_key(|it| it.len() / 16);
    assert!(lines.len() > 50, "only {} watch lines", lines.len());
    lines
}

/// The beginnings of streams.
pub fn watch_streams() -> Vec<Vec<u8>> {
    let mut streams: Vec<_> = bodies().into_iter().filter(|it| it.starts_with(b"{\"type\"")).collect();
    streams.iter_mut().for_each(|it| it.truncate(6000));
    streams.push(b"\n\n{}\n".to_vec());
    streams
}

/// Lists.
pub fn lists() -> Vec<Vec<u8>> {
    let lists: Vec<_> = bodies().into_iter().filter(|it| it.windows(7).any(|it| it == b"\"items\"")).collect();
    assert!(lists.len() >= 30, "only {} lists", lists.len());
    lists
}

/// Statuses and whatever else stands in the place of one.
pub fn statuses() -> Vec<Vec<u8>> {
    let all: Vec<_> = bodies().into_iter().filter(|it| it.len() < 1500).collect();
    assert!(all.len() > 20, "only {} statuses", all.len());
    all
}

/// Leases.
pub fn leases() -> Vec<Vec<u8>> {
    let leases: Vec<_> = bodies().into_iter().filter(|it| it.starts_with(br#"{"kind":"Lease""#)).collect();
    assert!(leases.len() >= 5, "only {} Leases", leases.len());
    leases
}

/// Answers, refusals and events of an APIC: those of SimApic, and those of traces that others published.
pub fn apic() -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder("tests/fuzz/seeds/apic.txt")).unwrap();
    texts(&text.lines().collect::<Vec<_>>())
}

/// DNs and other text out of a fabric.
pub fn dns() -> Vec<Vec<u8>> {
    texts(&[
        "uni/tn-T/out-L",
        "uni/tn-T/out-L/instP-E",
        "uni/tn-TEN.k8_1/out-L3.OUT:a-b/instP-E.P:G_1-x",
        "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]",
        "uni/tn-T/out-L/instP-E/extsubnet-[fd00:10:244:1::c8/128]",
        "uni/tn-T/out-L/instP-E/extsubnet-[10.0.0.1/32]/annotationKey-[a/b]",
        "uni/tn-T/out-L/annotationKey-[aci-sync:prod-1:E]",
        "uni/tn-T/out-L/annotationKey-aci-sync:prod-1:E",
        "uni/tn-T/out-L/lnodep-N/lifp-I/rspathL3OutAtt-[topology/pod-1/protpaths-101-102/pathep-[vpcgrp]]",
        "uni/tn-T/out-L/rsectx",
        "uni/tn-common/ctx-V",
        "topology/pod-1/node-101/local/svc-policyelem-id-0/uni/epp/rtd-[uni/tn-T/out-L/instP-E]/nwissues/fault-F0467",
    ])
}

/// Prefixes.
pub fn prefixes() -> Vec<Vec<u8>> {
    texts(&["10.0.0.1/32", "0.0.0.0/0", "fd00:10:244:1:0:0:0:C8/128", "::/0", "::ffff:10.0.0.1/128", "192.168.39.5/24"])
}

/// Annotations.
pub fn bindings() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"tenant":"T","l3out":"L","epg":"E"}"#,
        r#"{"l3out": "L3.OUT:a-b", "tenant": "TEN.k8_1", "epg": "E.P:G_1-x", "expose": ["pods", "services"]}"#,
        r#"{"tenant":"T","l3out":"L","epg":"E","extra":{"a":[1,2.5,null,true]}}"#,
        r#"{"tenant":"T/out-X","l3out":"..","epg":"E\"]"}"#,
        r#"{"tenant":"T","tenant":"U","l3out":"L","epg":7}"#,
        "{}",
        "T/L/E",
    ])
}

/// What plugins print: the forms of the API's documentation, and one that has nothing in it.
pub fn plugin_answers() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false},
         "status":{"token":"k8s-aws-v1.aHR0cHM6","expirationTimestamp":"2026-11-23T17:30:20.5-08:00"}}"#,
        r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"",
         "clientCertificateData":"-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----",
         "clientKeyData":"-----BEGIN EC PRIVATE KEY-----\nYQ==\n-----END EC PRIVATE KEY-----"}}"#,
        r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":null}"#,
    ])
}

/// kubeconfigs as tools and people write them. No file that they name is there.
pub fn kubeconfigs() -> Vec<Vec<u8>> {
    texts(&[
        "apiVersion: v1\nkind: Config\npreferences: {}\ncurrent-context: c\ncontexts:\n- name: c\n  context:\n    cluster: k\n    \
         user: u\n    namespace: default\nclusters:\n- name: k\n  cluster:\n    server: https://10.0.0.1:6443/prefix\n    \
         certificate-authority-data: LS0tLS1CRUdJTg==\n    tls-server-name: kubernetes\nusers:\n- name: u\n  user:\n    \
         token: abc.def-ghi\n",
        "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
         clusters: [{name: k, cluster: {server: 'https://k8s.example/', insecure-skip-tls-verify: true}}]\n\
         users: [{name: u, user: {client-certificate-data: YQ==, client-key-data: |\n  Yg==\n}}]\n",
        r#"{"current-context":"c","contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}],"clusters":[{"name":"k",
         "cluster":{"server":"https://[fd00::1]:6443"}}],"users":[{"name":"u","user":{"username":"a","password":"b"}}]}"#,
        "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
         clusters: [{name: k, cluster: {server: 'https://k8s.example'}}]\nusers:\n- name: u\n  user:\n    exec:\n      \
         apiVersion: client.authentication.k8s.io/v1\n      command: /bin/sh\n      args: [-c, 'true']\n      \
         env:\n      - {name: A, value: b}\n      interactiveMode: IfAvailable\n      provideClusterInfo: true\n",
        "current-context: \"c\"\ncontexts:\n  - name: >-\n      c\n    context: {cluster: k, user: ''}\nclusters:\n\
         # a comment\n- cluster: {server: \"https://h\\u006fst\", proxy-url: null}\n  name: k\nusers: ~\n...\n",
        "users:\n- name: &a u\n  user: *a\n--- {}\n",
    ])
}

/// PEM bundles, certificate and key in one file. They are generated for each run: no key is kept in the project.
pub fn certificates() -> Vec<Vec<u8>> {
    static MADE: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let authority = Authority::new("fuzz");
        let mut all: Vec<Vec<u8>> = Vec::new();
        for form in [KeyForm::Sec1, KeyForm::Pkcs1, KeyForm::Pkcs8] {
            let pair = authority.client("me", &[], form);
            all.push((pair.certificate_pem() + &pair.key_pem(form)).into_bytes());
        }
        let pair = authority.client("me", &[], KeyForm::Pkcs8);
        let key = pair.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"a password").unwrap();
        all.push([pair.certificate_pem().into_bytes(), key].concat());
        all
    });
    MADE.clone()
}

/// Command lines, a word a line; `NAME=value` in front of them is a variable.
pub fn command_lines() -> Vec<Vec<u8>> {
    let fingerprint = "SHA256 Fingerprint=AA:".to_owned() + &"0f:".repeat(30) + "FF";
    let fingerprint = format!("run\n--apic\nhttps://[fd00::1]:8443/\n--apic-fingerprint\n{fingerprint}");
    texts(&[
        "run\n--apic\napic1.example,10.0.0.1:443,[fd00::1]:444,fd00::2\n--resync\n10m\n--epg-grace=1h\n--batch\n7",
        "run\n--apic\na\n--allow\nteam-*=T/L/E?,shop=infra/L\n--max-deletes\n30%\n--expose=pods\n--foreign-epg\nrefuse",
        "plan\n--apic=a\n--cluster-id\nprod-1\n--adopt-id\na,b\n--adopt-id\nc\n--subnet-scope\nimport-security,shared-rtctrl",
        "run\n--once\n--apic\na\n--policy\nupsert-only\n--keep-contracted=false\n--apic-insecure\n--context\nother",
        "ACI_SYNC_RESYNC=90s\nACI_SYNC_BATCH=1000\nACI_APIC=apic1\nACI_SYNC_POLICY=observe\nrun",
        "ACI_SYNC_APIC=https://apic1,https://apic2\nACI_SYNC_SUBNET_SCOPE=export-rtctrl\nACI_SYNC_ADOPT_ID=x\nplan",
        "run\n--apic=a\n--addresses\n10.244.0.0/16,fd00:10::/47\n--addresses=192.0.2.1/32",
        "help",
        "--version",
        fingerprint.as_str(),
    ])
}
