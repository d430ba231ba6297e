//! The completions in a real bash, which needs no package for that. What zsh and fish make of theirs is in
//! `scripts/test-installation`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::world::{World, bare_command, output};
use aci_sync::cli::{self, COMMANDS, CommandInfo, FLAGS};
use sim::folder::Folder;

/// A bash that has read the completions.
struct Bash(Folder);

impl Bash {
    fn new() -> Bash {
        let folder = Folder::new();
        let made = output(bare_command(&["completions", "bash"]));
        assert_eq!((made.status.code(), made.stderr.as_slice()), (Some(0), &b""[..]));
        folder.file("completions", std::str::from_utf8(&made.stdout).unwrap());
        for name in ["kube config", "kube.pem", "other"] {
            folder.file(name, "");
        }
        Bash(folder)
    }

    /// What it offers for the last word. Words are as bash splits them.
    fn offers(&self, words: &[&str]) -> Vec<String> {
        let script = r#"source ./completions; COMP_WORDS=(aci-sync "$@"); COMP_CWORD=$#; _aci_sync
            [ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-uc", script, "bash"]).args(words).current_dir(self.0.path());
        let done = bash.output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{words:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The flags that the parser takes with a command.
fn flags(command: &str) -> BTreeSet<String> {
    let takes = |name: &str| {
        let words = [command.to_owned(), format!("--{name}=true")];
        cli::parse(words.map(Into::into), &BTreeMap::new()).is_ok()
    };
    FLAGS.iter().map(|it| it.name).filter(|name| takes(name)).map(|name| format!("--{name}")).collect()
}

/// bash offers every command, and every flag with the commands that take it.
#[test]
fn bash_offers_every_command_and_its_flags() {
    let bash = Bash::new();
    let commands: Vec<&str> = COMMANDS.iter().filter(|it| !it.help.is_empty()).map(|it| it.name).collect();
    assert_eq!(bash.offers(&[""]), commands);
    for command in commands {
        let offered: BTreeSet<String> = bash.offers(&[command, "--"]).into_iter().collect();
        assert_eq!(offered, flags(command), "{command}");
    }
    assert!(flags("run").len() > 20 && flags("version").is_empty());
}

/// bash offers values, files and shells, also after an equals sign and a comma.
#[test]
fn bash_offers_values() {
    let bash = Bash::new();
    for (words, expected) in [
        (&["pl"][..], &["plan"][..]),
        (&["plan", "--po"], &["--policy"]),
        (&["plan", "--policy", ""], &["sync", "upsert-only", "observe"]),
        (&["plan", "--policy", "="], &["sync", "upsert-only", "observe"]),
        (&["plan", "--policy", "=", "ob"], &["observe"]),
        (&["plan", "--policy", "=", "observe", "--fo"], &["--foreign-epg"]),
        (&["plan", "-o", ""], &["text", "json", "apic"]),
        (&["status", "--output", "p"], &["prometheus"]),
        (&["explain", "a/b", "-o", ""], &["text", "json"]),
        (&["run", "--events", "=", ""], &["true", "false"]),
        (&["run", "--events", "--onc"], &["--once"]),
        (&["run", "--events", "=", "false", "--onc"], &["--once"]),
        (&["run", "--expose", "p"], &["pods"]),
        (&["run", "--expose", "pods,s"], &["pods,services"]),
        (&["run", "--apic-ca", "kube"], &["kube config", "kube.pem"]),
        (&["run", "--apic", "plan", "--log-f"], &["--log-format"]),
        (&["run", "--batch", ""], &[]),
        (&["explain", "sh"], &[]),
        (&["completions", ""], &["bash", "zsh", "fish"]),
        (&["help", "ch"], &["check"]),
        (&["version", ""], &[]),
    ] {
        let mut offered = bash.offers(words);
        if words.contains(&"--apic-ca") {
            offered.sort();
        }
        assert_eq!(offered, expected, "{words:?}");
    }
}

/// X4: completions are for one shell that is known.
#[test]
fn other_shells_are_refused() {
    for words in [&["completions"][..], &["completions", "tcsh"], &["completions", "bash", "zsh"]] {
        let done = output(bare_command(words));
        let text = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), text.lines().count()), (Some(64), 1), "{text}");
        assert!(text.contains("bash, zsh or fish"), "{text}");
    }
}

/// The formats that the table names for a command are those that its error names.
#[test]
fn the_formats_are_those_of_the_commands() {
    let world = World::new();
    let output = FLAGS.iter().find(|it| it.name == "output").unwrap();
    for CommandInfo { name, command, .. } in COMMANDS.iter().filter(|it| flags(it.name).contains("--output")) {
        let done = world.output(&[name, "-o", "x"]);
        let text = String::from_utf8(done.stderr).unwrap();
        let named: Vec<&str> = output.values_with(*command).collect();
        assert!(done.status.code() == Some(64) && named.iter().all(|it| text.contains(it)), "{name}: {text}");
        let others = output.values.iter().filter(|it| !named.contains(it));
        assert!(others.into_iter().all(|it| !text.contains(it)), "{name}: {text}");
    }
}
