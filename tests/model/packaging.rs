//! What is shipped beside the binary agrees with it: the service's environment file has every setting, and no other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use aci_sync::cli;

/// Every setting of the file, whether commented out or not.
fn settings() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/aci-sync.env")).unwrap();
    let is_name =
        |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b'_');
    let mut settings = BTreeMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.strip_prefix('#').unwrap_or(line).split_once('=') else { continue };
        if is_name(name) {
            assert_eq!(settings.insert(name.to_owned(), value.to_owned()), None, "{name} is set twice");
        }
    }
    settings
}

/// A password in there would be in the environment of every plugin.
#[test]
fn the_environment_file_has_every_setting() {
    let mut names: Vec<String> = cli::with_variables().map(|it| cli::variable(it.name)).collect();
    names.extend(["ACI_APIC", "ACI_USERNAME", "KUBECONFIG", "RUST_LOG"].map(str::to_owned));
    names.sort();
    assert_eq!(settings().into_keys().collect::<Vec<_>>(), names);
}

/// If a flag has a default, the file shows that one; what it shows is accepted.
#[test]
fn the_environment_file_shows_the_defaults() {
    let settings = settings();
    for flag in cli::with_variables() {
        let shown = &settings[&cli::variable(flag.name)];
        let quoted = flag.default.strip_prefix('`').and_then(|it| it.strip_suffix('`'));
        if let Some(default) = quoted.or(Some(flag.default).filter(|it| matches!(*it, "true" | "false")))
            && !default.contains('`')
        {
            assert_eq!(shown, default, "{}", flag.name);
        }
    }
    cli::parse([OsString::from("run")], &settings).unwrap();
}

/// K3, T6, G1: the base for kustomize, which reads no file above its folder, grants the rights of the service; what runs there
/// is this version.
#[test]
fn the_base_is_of_this_version() {
    let read = |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    assert_eq!(read("deploy/base/rbac.yaml"), read("scripts/kubernetes-rbac.yaml"));
    assert_eq!(read("deploy/components/workloads/rbac.yaml"), read("scripts/kubernetes-rbac-workloads.yaml"));
    let version = env!("CARGO_PKG_VERSION");
    for (path, line, times) in [
        ("deploy/base/deployment.yaml", format!("app.kubernetes.io/version: {version}\n"), 2),
        ("deploy/base/deployment.yaml", format!("image: localhost/aci-sync:{version}\n"), 1),
        ("deploy/examples/site/kustomization.yaml", format!("newTag: {version}\n"), 1),
        ("docs/in-cluster.md", format!("tar xzf aci-sync-{version}-x86_64-linux.tar.gz\n"), 1),
    ] {
        assert_eq!(read(path).matches(&line).count(), times, "{path}: {line}");
    }
}

/// T4: the archive has what the user documents name below `deploy/` and `systemd/`.
#[test]
fn the_archive_has_what_the_documents_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(root.join("scripts/dist")).unwrap();
    let words = script.split("git ls-files -z -- ").nth(1).unwrap().split('|').next().unwrap();
    let packed: Vec<&str> = words.split_whitespace().filter(|it| !it.contains('{')).collect();
    let documents = std::fs::read_dir(root.join("docs")).unwrap().map(|it| it.unwrap().path());
    let mut count = 0;
    let is_text = |it: &PathBuf| it.extension().is_some_and(|it| it == "md");
    for document in documents.filter(is_text).chain([root.join("README.md")]) {
        let text = std::fs::read_to_string(&document).unwrap();
        for path in text.split(|it: char| it.is_whitespace() || matches!(it, '`' | '(' | ')')) {
            let Some((folder @ ("deploy" | "systemd"), _)) = path.split_once('/') else { continue };
            let path = path.trim_end_matches([',', '.', ';', ':']);
            // A folder that operators make.
            if path.starts_with("deploy/sites") {
                continue;
            }
            assert!(packed.contains(&folder) && root.join(path).exists(), "{}: {path}", document.display());
            count += 1;
        }
    }
    assert!(count > 4, "only {count} paths were found");
}
