//! What `aci-sync version` tells of the build and cargo does not know: the commit and the compiler. Nothing else is built
//! here.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rustc-env=BUILD_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));
    let rustc = std::env::var("RUSTC").ok().and_then(|it| said(&it, &["--version"]));
    let rustc = rustc.map_or_else(|| "unknown".to_owned(), |it| it.trim_start_matches("rustc ").to_owned());
    println!("cargo::rustc-env=BUILD_RUSTC={rustc}");
    for file in
        ["build.rs", "Cargo.toml", "Cargo.lock", "src", "commit"].into_iter().filter(|it| Path::new(it).exists())
    {
        println!("cargo::rerun-if-changed={file}");
    }
}

/// A source tarball has its commit in a file. In a checkout, and not in a folder of another one, git knows it.
fn commit() -> Option<String> {
    if let Ok(commit) = std::fs::read_to_string("commit") {
        return Some(commit.trim().to_owned());
    }
    let top = said("git", &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top) != std::env::current_dir().ok()? {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = said("git", &["rev-parse", "--git-path", file])?;
        println!("cargo::rerun-if-changed={path}");
    }
    let dirty = if said("git", &["status", "--porcelain"])?.is_empty() { "" } else { "-dirty" };
    Some(said("git", &["rev-parse", "HEAD"])? + dirty)
}

/// What a program printed, if it did well.
fn said(program: &str, words: &[&str]) -> Option<String> {
    let output = Command::new(program).args(words).output().ok().filter(|it| it.status.success())?;
    String::from_utf8(output.stdout).ok().map(|it| it.trim().to_owned())
}
