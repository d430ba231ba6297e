//! The command line of a process: help and version, exit codes, where lines go, closed outputs. The parser and the
//! texts made from the table of flags are tested in `tests/model/configuration.rs`.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Output, Stdio};

use crate::world::{Daemon, E, World, bare_command, output};
use aci_sync::cli::{COMMANDS, manual};
use sim::net::{Fault, Trouble};

/// Exit code, stdout, stderr.
fn exit_and_outputs(done: Output) -> (Option<i32>, String, String) {
    (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
}

/// An output whose reader has gone.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// A process that a failing test does not leave behind.
struct KilledAtEnd(Child);

impl Drop for KilledAtEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// X6: help and version are data, on stdout, and are printed whatever else is wrong.
#[test]
fn help_and_version() {
    let version = format!("aci-sync {}\n", env!("CARGO_PKG_VERSION"));
    let help_of = |name: &str| manual::help_of(COMMANDS.iter().find(|it| it.name == name).unwrap());
    for (words, expected) in [
        (&["help"][..], &manual::help()),
        (&["--help"], &manual::help()),
        (&["run", "-h"], &help_of("run")),
        (&["help", "purge"], &help_of("purge")),
        (&["plan", "--help", "--colour", "x"], &help_of("plan")),
        (&["man"], &manual::man()),
        (&["--version"], &version),
        (&["-V"], &version),
    ] {
        let mut command = bare_command(words);
        command.env("ACI_SYNC_COLOUR", "blue").env("ACI_SYNC_APIC_INSECURE", "perhaps");
        assert_eq!(exit_and_outputs(output(command)), (Some(0), expected.clone(), String::new()), "{words:?}");
    }
    let (code, text, errors) = exit_and_outputs(output(bare_command(&["version"])));
    assert!(code == Some(0) && errors.is_empty() && text.starts_with(&version), "{text}");
    let keys: Vec<&str> = text.lines().skip(1).filter_map(|it| it.split_whitespace().next()).collect();
    assert_eq!(keys, ["commit", "target", "rustc", "openssl"]);
    assert!(!text.contains("unknown"), "cargo build alone knows commit and compiler: {text}");
}

/// The self-test passes on a sound build.
#[test]
fn the_self_test_passes() {
    let (code, text, errors) = exit_and_outputs(output(bare_command(&["self-test"])));
    assert!(code == Some(0) && text.contains("8 threads") && errors.is_empty(), "{code:?} {text} {errors}");
}

/// X4: errors about bytes that are not UTF-8 and about text of several lines are one line as well.
#[test]
fn errors_about_odd_arguments_are_one_line() {
    let bytes = OsStr::from_bytes(b"\xff\xfe");
    let with_word = |word: &OsStr| {
        let mut command = bare_command(&["run"]);
        command.arg(word);
        command
    };
    let with_variable = |name: &str| {
        let mut command = bare_command(&["run"]);
        command.env(name, bytes);
        command
    };
    for (command, code, complaint) in [
        (with_word(bytes), 64, "is not UTF-8"),
        (with_word(OsStr::from_bytes(b"--cluster-id=\xff")), 64, "is not UTF-8"),
        (with_word(OsStr::new("--a\nERROR b\u{1b}[2J")), 64, "unknown flag --a\\nERROR b\\u{1b}[2J"),
        (with_variable("ACI_SYNC_CLUSTER_ID"), 78, "ACI_SYNC_CLUSTER_ID is not UTF-8"),
        (with_variable("ACI_PASSWORD"), 78, "ACI_PASSWORD is not UTF-8"),
        (with_variable("SOMETHING_ELSE"), 78, "missing APIC controllers; set --apic or ACI_APIC"),
    ] {
        let (got, out, err) = exit_and_outputs(output(command));
        assert_eq!((got, out.as_str(), err.lines().count()), (Some(code), "", 1), "{complaint}: {err}");
        assert!(err.contains(complaint) && !err.contains('\u{1b}'), "{err}");
    }
}

/// A1: a password file that other users can read is a warning, by flag and by variable; it goes to stderr (X6).
#[test]
fn a_readable_password_file_is_a_warning() {
    let world = World::new();
    let file = world.folder.path().join("password");
    let warned = |words: &[&str]| {
        let (code, _, err) = exit_and_outputs(world.output(words));
        assert_eq!(code, Some(0), "{err}");
        err.contains("file with APIC credentials is readable by other users")
    };
    assert!(!warned(&["plan"]));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(warned(&["plan"]));
    assert!(warned(&["plan", "--password-file", file.to_str().unwrap()]));
}

/// X4, A2: errors of the command line are reported before the first request.
#[test]
fn errors_in_the_command_line_come_before_requests() {
    let world = World::new();
    world.kube.fault(Fault::on("/", Trouble::Hang));
    let bad_ca = world.folder.file("bad-ca", "no certificate").display().to_string();
    for (words, code) in [
        (&["plan", "--apic-ca", &bad_ca][..], 78),
        (&["run", "--once", "--apic-ca", &bad_ca], 78),
        (&["run", "--apic-insecure"], 64),
        (&["run", "--resync", "1s"], 64),
    ] {
        let mut command = world.command(words);
        command.env_remove("ACI_SYNC_CLUSTER_ID");
        let (got, _, err) = exit_and_outputs(output(command));
        assert_eq!(got, Some(code), "{words:?}: {err}");
    }
    assert_eq!(world.apic.journal().len(), 0);
}

/// X6: a closed output ends nothing and changes no exit code; the daemon goes on without a log.
#[test]
fn closed_outputs_change_nothing() {
    let status = |mut command: Command| command.stdout(closed()).stderr(closed()).status().unwrap().code();
    assert_eq!(status(bare_command(&["help"])), Some(0));
    assert_eq!(status(bare_command(&["dance"])), Some(64));
    let mut odd = bare_command(&["run"]);
    odd.env("RUST_LOG", "a=b=c");
    assert_eq!(status(odd), Some(78));

    let world = World::new();
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    assert_eq!(status(world.command(&["plan"])), Some(2));
    let child = world.command(&["run"]).stdout(closed()).stderr(closed()).spawn().unwrap();
    let mut child = KilledAtEnd(child);
    world.kube.deploy("a", "typo", Some("{"), &[]);
    world.until_holds("E", &["10.0.0.1"]);
    world.kube.deploy("a", "more", Some(E), &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    assert!(Command::new("kill").arg(child.0.id().to_string()).status().unwrap().success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

/// X6: lines begin with a priority and without a time only if the output is the journal's: an inherited JOURNAL_STREAM
/// of another service has no effect.
#[test]
fn lines_have_the_prefix_that_their_reader_expects() {
    let world = World::new();
    let path = world.folder.file("log", "");
    let file = File::options().append(true).open(&path).unwrap();
    let inode = file.metadata().map(|it| format!("{}:{}", it.dev(), it.ino())).unwrap();
    let lines = |stream: &str| {
        std::fs::write(&path, "").unwrap();
        let mut command = world.command(&["run", "--once"]);
        command.env("JOURNAL_STREAM", stream).stdout(file.try_clone().unwrap()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() > 1, "{text}");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(lines(&inode).iter().all(|it| it.starts_with("<6>")));
    for other in ["1:1", "", "x"] {
        assert!(lines(other).iter().all(|it| it.starts_with("20") && it.contains("Z INFO  ")));
    }
}

/// X6: in the journal the error that ends the program has the priority of an error.
#[test]
fn the_last_line_has_the_priority_of_an_error() {
    let world = World::new();
    let path = world.folder.file("log", "");
    let file = File::options().append(true).open(&path).unwrap();
    let inode = file.metadata().map(|it| format!("{}:{}", it.dev(), it.ino())).unwrap();
    for (stream, begin) in [(inode.as_str(), "<3>aci-sync: "), ("1:1", "aci-sync: ")] {
        std::fs::write(&path, "").unwrap();
        let mut command = world.command(&["run", "--apic-ca", "/no-such-file"]);
        command.env("JOURNAL_STREAM", stream).stderr(file.try_clone().unwrap());
        assert_eq!(command.status().unwrap().code(), Some(78));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(begin) && text.lines().count() == 1, "{text}");
    }
}

/// X6: `RUST_LOG` sets the level; X4: an invalid one is an error.
#[test]
fn levels() {
    let world = World::new();
    for (level, debug, info) in [
        ("debug", true, true),
        ("aci_sync=debug", true, true),
        ("", false, true),
        ("warn,aci_sync::daemon=info", false, true),
        ("error", false, false),
    ] {
        let mut command = world.command(&["run", "--once"]);
        command.env("RUST_LOG", level);
        let mut daemon = Daemon::start(command);
        assert_eq!(daemon.wait().code(), Some(0));
        let counts = (daemon.count(" DEBUG "), daemon.count(" INFO "));
        assert_eq!((counts.0 > 0, counts.1 > 0), (debug, info), "{level}: {}", daemon.log());
    }
    for level in ["aci_sync=loud", "a=b=c", "debug/a/b", "info,=x"] {
        let mut command = world.command(&["run"]);
        command.env("RUST_LOG", level);
        let (code, out, err) = exit_and_outputs(output(command));
        let expected = format!(
            "aci-sync: RUST_LOG: invalid filter {level:?}; use a level such as debug, or aci_sync::kube=debug\n"
        );
        assert_eq!((code, out, err), (Some(78), String::new(), expected));
    }
}
