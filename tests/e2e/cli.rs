//! The command line from outside: words and variables, help and version, where lines go, outputs that are closed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Output, Stdio};

use crate::world::{Daemon, E, World, bare_command, output};
use aci_sync::cli::manual;
use aci_sync::cli::{self, Invocation};
use aci_sync::logging;
use sim::net::{Fault, Trouble};

fn parsed(words: &str, environment: &[(&str, &str)]) -> Result<Invocation, (u8, String)> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let parsed = cli::parse(words.split_whitespace().map(OsString::from), &environment);
    parsed.map_err(|error| (error.code, error.message))
}

/// Exit code, stdout, stderr.
fn told(done: Output) -> (Option<i32>, String, String) {
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

/// X4: a wrong command line is told in one sentence, whatever is wrong with it; 64 for a wrong word or an unknown
/// variable, 78 for a bad value of a variable.
#[test]
fn wrong_command_lines() {
    for (words, environment, code, complaint) in [
        ("", &[][..], 64, "which command"),
        ("dance", &[], 64, "no command \"dance\""),
        ("run run", &[], 64, "one word too many: \"run\""),
        ("run --color", &[], 64, "no flag --color"),
        ("run -x", &[], 64, "no flag -x"),
        // Rules that are not built yet have no flag: nothing is accepted and ignored.
        ("run --listen 5", &[], 64, "no flag --listen"),
        ("run --policy", &[], 64, "--policy needs a value"),
        ("run --policy=", &[], 64, "--policy: there is an empty value"),
        ("run --policy sync --policy sync", &[], 64, "--policy stands there twice"),
        ("run --apic-insecure=maybe", &[], 64, "--apic-insecure: \"maybe\" is neither"),
        ("run --apic a,,b", &[], 64, "--apic: there is an empty value"),
        ("plan --once", &[], 64, "--once goes with run"),
        ("version --batch 5", &[], 64, "--batch goes with run and plan"),
        ("help --apic-insecure", &[], 64, "--apic-insecure goes with run and plan"),
        ("run", &[("ACI_SYNC_LISTEN", "5")], 64, "no variable ACI_SYNC_LISTEN"),
        ("plan", &[("ACI_SYNC_", "")], 64, "no variable ACI_SYNC_"),
        ("run", &[("ACI_POLICY", "observe")], 64, "no variable ACI_POLICY; it is ACI_SYNC_POLICY"),
        ("run", &[("aci_sync_policy", "observe")], 64, "no variable aci_sync_policy"),
        ("run", &[("ACI_SYNC_KEEP_CONTRACTED", "yes")], 78, "ACI_SYNC_KEEP_CONTRACTED: \"yes\" is neither"),
        ("run", &[("ACI_APIC", "a,,b")], 78, "ACI_APIC: there is an empty value"),
    ] {
        let (got, why) = parsed(words, environment).unwrap_err();
        assert!(got == code && why.contains(complaint) && !why.contains('\n'), "{words:?}: {got} {why}");
    }
}

/// Names: a flag wins over its variable, that over the older name; lists come either way; an empty variable is none.
#[test]
fn precedence() {
    let all = [("ACI_APIC", "c"), ("ACI_SYNC_APIC", "b1, b2")];
    let apic = |words: &str, environment: &[(&str, &str)]| {
        let given = parsed(words, environment).unwrap().get("apic").unwrap().clone();
        (given.origin, given.by_flag, given.values.join(" "))
    };
    let expected = |origin: &str, by_flag: bool, values: &str| (origin.to_owned(), by_flag, values.to_owned());
    assert_eq!(apic("run --apic a1,a2 --apic=a3", &all), expected("--apic", true, "a1 a2 a3"));
    assert_eq!(apic("run", &all), expected("ACI_SYNC_APIC", false, "b1 b2"));
    assert_eq!(apic("run", &all[..1]), expected("ACI_APIC", false, "c"));
    assert_eq!(apic("run", &[all[0], ("ACI_SYNC_APIC", "")]), expected("ACI_APIC", false, "c"));
    let on = [("ACI_SYNC_APIC_INSECURE", "true")];
    for (words, environment, is_on) in [
        ("run", &[][..], false),
        ("run --apic-insecure", &[], true),
        ("run --apic-insecure=true", &[], true),
        ("run", &on, true),
        ("run --apic-insecure=false", &on, false),
    ] {
        assert_eq!(parsed(words, environment).unwrap().is_on("apic-insecure"), is_on, "{words} {environment:?}");
    }
    assert!(parsed("plan", &[("ACI_SYNC_ONCE", "true")]).is_ok(), "one set of variables serves run and plan");
}

/// X6: help and version are data, on stdout; who asks for them gets them, whatever else is wrong.
#[test]
fn help_and_version() {
    let version = format!("aci-sync {}\n", env!("CARGO_PKG_VERSION"));
    for (words, expected) in [
        (&["help"][..], &manual::help()),
        (&["--help"], &manual::help()),
        (&["run", "-h"], &manual::help()),
        (&["plan", "--help", "--colour", "x"], &manual::help()),
        (&["man"], &manual::man()),
        (&["--version"], &version),
        (&["-V"], &version),
    ] {
        let mut command = bare_command(words);
        command.env("ACI_SYNC_COLOUR", "blue").env("ACI_SYNC_APIC_INSECURE", "perhaps");
        assert_eq!(told(output(command)), (Some(0), expected.clone(), String::new()), "{words:?}");
    }
    let (code, text, errors) = told(output(bare_command(&["version"])));
    assert!(code == Some(0) && errors.is_empty() && text.starts_with(&version), "{text}");
    let told: Vec<&str> = text.lines().skip(1).filter_map(|it| it.split_whitespace().next()).collect();
    assert_eq!(told, ["commit", "target", "rustc", "openssl"]);
    assert!(!text.contains("unknown"), "cargo build alone tells commit and compiler: {text}");
    for flag in cli::FLAGS {
        assert!(manual::help().contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
}

/// Every command, flag and variable is in the man page, and no line of it is taken for a request by mistake.
#[test]
fn the_man_page_is_whole() {
    let page = manual::man();
    for flag in cli::FLAGS {
        assert!(page.contains(&format!("\\-\\-{}\\fR", flag.name.replace('-', "\\-"))), "{}", flag.name);
    }
    for (name, _, help) in cli::COMMANDS {
        assert_eq!(page.contains(&format!(".TP\n\\fB{name}\\fR")), !help.is_empty(), "{name}");
    }
    for (name, _) in cli::VARIABLES {
        assert!(page.contains(&name.replace("-", "\\-")), "{name}");
    }
    let requests = [".TH", ".SH", ".TP", ".PP", ".B", ".I", ".RI", ".BR"];
    for line in page.lines().filter(|it| it.starts_with(['.', '\''])) {
        assert!(requests.contains(&line.split(' ').next().unwrap()), "{line}");
    }
}

/// A build that can be trusted says so.
#[test]
fn the_self_test_passes() {
    let (code, text, errors) = told(output(bare_command(&["self-test"])));
    assert!(code == Some(0) && text.contains("8 threads") && errors.is_empty(), "{code:?} {text} {errors}");
}

/// docs/configuration.md shows the very table that the program reads its command line by. `BLESS=1` writes it.
#[test]
fn the_configuration_page_has_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once("<!-- flags -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /flags -->").unwrap();
    let right = format!("{before}<!-- flags -->\n{}<!-- /flags -->{after}", manual::markdown());
    if page != right && std::env::var_os("BLESS").is_some() {
        return std::fs::write(path, right).unwrap();
    }
    assert_eq!(page, right, "BLESS=1 writes it");
}

/// X6: one record is one line, and none can play with a terminal.
#[test]
fn control_characters_are_escaped() {
    assert_eq!(logging::one_line("a\nb\u{1b}[31m\u{202e}é"), "a\\nb\\u{1b}[31m\\u{202e}é");
}

/// X4: bytes that are no text, and text that is more than a line, are told in one line as well.
#[test]
fn hostile_words_are_one_sentence() {
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
        (with_word(OsStr::new("--a\nERROR b\u{1b}[2J")), 64, "no flag --a\\nERROR b\\u{1b}[2J"),
        (with_variable("ACI_SYNC_CLUSTER_ID"), 78, "ACI_SYNC_CLUSTER_ID is not UTF-8"),
        (with_variable("ACI_PASSWORD"), 78, "ACI_PASSWORD is not UTF-8"),
        (with_variable("SOMETHING_ELSE"), 78, "no APIC: name its controllers"),
    ] {
        let (got, out, err) = told(output(command));
        assert_eq!((got, out.as_str(), err.lines().count()), (Some(code), "", 1), "{complaint}: {err}");
        assert!(err.contains(complaint) && !err.contains('\u{1b}'), "{err}");
    }
}

/// A1: a password file that others can read is warned of, whoever named it; the warning goes to stderr (X6).
#[test]
fn a_readable_password_file_is_warned_of() {
    let world = World::new();
    let file = world.folder.path().join("password");
    let warned = |words: &[&str]| {
        let (code, _, err) = told(world.output(words));
        assert_eq!(code, Some(0), "{err}");
        err.contains("password can be read by others; chmod 600 would help")
    };
    assert!(!warned(&["plan"]));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(warned(&["plan"]));
    assert!(warned(&["plan", "--password-file", file.to_str().unwrap()]));
}

/// X4, A2: what is wrong here is told before anybody is asked: no request is made.
#[test]
fn mistakes_come_before_requests() {
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
        let (got, _, err) = told(output(command));
        assert_eq!(got, Some(code), "{words:?}: {err}");
    }
    assert_eq!(world.apic.journal().len(), 0);
}

/// X6: a closed output ends nothing and changes no exit code: the daemon goes on without a log.
#[test]
fn closed_outputs_do_no_harm() {
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

/// X6: the journal gets a priority in front and no time, and only where the output is the journal's: a variable that
/// was inherited from some service means nothing.
#[test]
fn lines_begin_as_their_reader_expects() {
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

/// X6: `RUST_LOG` sets our level; X4: one that makes no sense is told.
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
        let (code, out, err) = told(output(command));
        let expected = format!("aci-sync: RUST_LOG: {level:?} is not a level such as debug, or aci_sync::kube=debug\n");
        assert_eq!((code, out, err), (Some(78), String::new(), expected));
    }
}
