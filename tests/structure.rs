//! What the code promises about itself: the model is pure, and one place sends writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    assert!(!files.is_empty());
    files
}

/// The part of a source file that is shipped.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

/// The model knows no sockets, threads, clock, files, environment or randomness, and nothing of those who do.
#[test]
fn the_model_is_pure() {
    for (path, text) in sources("src/model") {
        for word in [
            "TcpStream",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "RandomState",
            "std::fs",
            "std::env",
            "crossbeam",
            "ureq",
            "log::",
            "crate::apic",
            "crate::kube",
            "crate::daemon",
            "crate::config",
            "Mutex",
        ] {
            assert!(!shipped(&text).contains(word), "{} uses {word}", path.display());
        }
    }
}

/// W5: only the writer asks a session to write, and only the engine's sending asks the writer.
#[test]
fn one_place_sends_writes() {
    for (path, text) in sources("src") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = shipped(&text);
        if !matches!(name, "writer.rs" | "access.rs") {
            assert!(!text.contains("apic.post(") && !text.contains("apic.delete("), "{}", path.display());
            assert!(!text.contains("client.post(") && !text.contains("client.delete("), "{}", path.display());
        }
        if !matches!(name, "sending.rs" | "writer.rs") {
            assert!(!text.contains("writer.send("), "{}", path.display());
        }
    }
}

/// A newcomer finds the room for a change in a minute: no file is a maze.
#[test]
fn files_are_small() {
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            assert!(text.lines().count() <= 600, "{} is too long", path.display());
        }
    }
}

/// Every test that ARCHITECTURE.md names for a rule, a fault, a defect of the predecessor or a limit is there.
#[test]
fn the_tables_of_tests_are_true() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let table = text.split("## Rules and their tests").nth(1).unwrap();
    let all: Vec<(PathBuf, String)> = ["src", "tests"].into_iter().flat_map(sources).collect();
    let mut count = 0;
    for name in table.split('`').filter(|it| it.contains("::")) {
        let (file, test) = name.split_once("::").unwrap();
        let is_there = |(path, text): &(PathBuf, String)| {
            path.file_stem().is_some_and(|it| it == file) && text.contains(&format!("fn {test}()"))
        };
        let is_there = all.iter().any(is_there);
        assert!(is_there, "{name} is not there");
        count += 1;
    }
    assert!(count > 40, "only {count} tests are named");
}
