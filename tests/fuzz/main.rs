//! Fuzzing on stable Rust: every decoder gets recorded and documented inputs, broken in all ways that come to mind,
//! and what must hold is checked for each (X3).
//!
//! The table of targets is here; what must hold is in `targets.rs`, where inputs come from in `seeds.rs`, how they
//! are broken in `mutate.rs`. Inputs depend on `FUZZ_SEED` and their number alone; `FUZZ_INPUTS` says how many there
//! are in all (`scripts/fuzz`). An input that failed once belongs into `found/`, and is tried on each run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod mutate;
mod plans;
mod seeds;
mod targets;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::channel;
use std::thread::{Builder, scope};
use std::time::Duration;

use mutate::Random;

/// One decoder.
struct Target {
    /// Its name, and that of its folder in `found/`.
    name: &'static str,
    /// Inputs as they should be, or nearly.
    seeds: fn() -> Vec<Vec<u8>>,
    /// Decodes an input, whatever it is, and panics if something does not hold.
    check: fn(&[u8]),
    /// Whether an input is taken for a whole document; nothing if a part of a document can be a document.
    takes: Option<fn(&[u8]) -> bool>,
    /// Its share of the inputs: what is fast gets more of them.
    share: u64,
}

const fn target(
    name: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    check: fn(&[u8]),
    takes: Option<fn(&[u8]) -> bool>,
    share: u64,
) -> Target {
    Target { name, seeds, check, takes, share }
}

/// All decoders.
const TARGETS: &[Target] = &[
    target("watch-line", seeds::watch_lines, targets::watch_line, Some(targets::takes_watch_line), 1),
    target("watch-stream", seeds::watch_streams, targets::watch_stream, None, 1),
    target("list-page", seeds::lists, targets::list_page, Some(targets::takes_list_page), 1),
    target("node-addresses", seeds::lists, targets::node_addresses, Some(targets::takes_node_addresses), 4),
    target("status", seeds::statuses, targets::status, Some(targets::takes_status), 4),
    target("lease", seeds::leases, targets::lease, Some(targets::takes_lease), 4),
    target("apic-answer", seeds::apic, targets::apic_answer, Some(targets::takes_apic_answer), 4),
    target("apic-event", seeds::apic, targets::apic_event, Some(targets::takes_apic_event), 4),
    target("apic-refusal", seeds::apic, targets::apic_refusal, None, 1),
    target("dn", seeds::dns, targets::dn, None, 4),
    target("prefix", seeds::prefixes, targets::prefix, None, 4),
    target("binding", seeds::bindings, targets::binding, Some(targets::takes_enrolment), 4),
    target("kubeconfig", seeds::kubeconfigs, targets::kubeconfig, None, 1),
    target("plugin-answer", seeds::plugin_answers, targets::plugin_answer, Some(targets::takes_plugin_answer), 1),
    target("certificates", seeds::certificates, targets::certificates, None, 1),
    target("command-line", seeds::command_lines, targets::command_line, None, 4),
    target("plans", plans::seeds, plans::plans, None, 2),
    target("log-line", seeds::dns, targets::log_line, None, 4),
];

/// X3: no input makes a decoder panic, overflow its stack, or believe what it should not.
#[test]
fn broken_inputs() {
    let number = |name: &str| std::env::var(name).ok().map(|it| it.parse::<u64>().expect("a number"));
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let inputs = number("FUZZ_INPUTS").unwrap_or(20_000);
    let shares: u64 = TARGETS.iter().map(|it| it.share).sum();
    for_every_target(|target| {
        let seeds = (target.seeds)();
        for number in 0..inputs * target.share / shares {
            let mut random = Random::new(seed, target.name, number);
            let input = mutate::broken(&seeds, &mut random);
            must_hold(target, &input, &format!("FUZZ_SEED={seed}, number {number}"));
        }
    });
}

/// X3: the seeds as they are, and what failed once.
#[test]
fn seeds_and_found_inputs() {
    for folder in files(&found()) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert!(TARGETS.iter().any(|it| it.name == name), "found/{name} belongs to no target");
    }
    for_every_target(|target| {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            must_hold(target, seed, &format!("seed {number}"));
        }
        for file in files(&found().join(target.name)) {
            must_hold(target, &std::fs::read(&file).unwrap(), &file.display().to_string());
        }
    });
}

/// W1, X3: a document that was cut anywhere is refused whole; it never counts as half of its objects.
#[test]
fn cut_documents() {
    for_every_target(|target| {
        let Some(takes) = target.takes else { return };
        let mut taken = 0;
        for seed in (target.seeds)() {
            let document = seed.trim_ascii();
            if !takes(document) {
                continue;
            }
            taken += 1;
            // Every cut of a small document; of a large one every cut behind a value and some others.
            for at in 0..document.len() {
                let behind_a_value = matches!(document.get(at.wrapping_sub(1)), Some(b'}' | b']'));
                if document.len() < 1500 || (behind_a_value && at % 7 == 0) || at % 97 == 0 {
                    let cut = &document[..at];
                    assert!(!takes(cut), "{}: taken, cut at {at}: {}", target.name, cut.escape_ascii());
                }
            }
        }
        assert!(taken > 0, "{}: no seed is taken", target.name);
    });
}

/// X3: a megabyte of the same, nested, repeated or simply long, takes time and memory in proportion, not more: with
/// work that grows with the square of the size this test would not come to its end.
#[test]
fn deep_and_long_inputs() {
    const LIMIT: Duration = Duration::from_secs(500);
    let (done, all) = channel();
    let threads = TARGETS.iter().map(|target| {
        let done = done.clone();
        let body = move || {
            let result = catch_unwind(|| {
                for input in mutate::large(&(target.seeds)(), &mut Random::new(1, target.name, 0)) {
                    must_hold(target, &input, "large");
                }
            });
            done.send((target.name, result.is_ok())).unwrap();
        };
        Builder::new().name(target.name.to_owned()).spawn(body).unwrap()
    });
    let threads: Vec<_> = threads.collect();
    let mut missing: Vec<&str> = TARGETS.iter().map(|it| it.name).collect();
    for _ in &threads {
        let Ok((name, well)) = all.recv_timeout(LIMIT) else { panic!("no end is in sight of {missing:?}") };
        assert!(well, "{name} failed");
        missing.retain(|it| *it != name);
    }
}

/// Runs something for every target, each in a thread of its own with the stack that the daemon's threads have. If a
/// stack overflows, the thread's name is the target's.
fn for_every_target(run: impl Fn(&'static Target) + Sync) {
    scope(|threads| {
        let spawn = |target: &'static Target| {
            let run = &run;
            Builder::new().name(target.name.to_owned()).spawn_scoped(threads, move || run(target)).unwrap()
        };
        let running: Vec<_> = TARGETS.iter().map(spawn).collect();
        let failed = running.into_iter().filter_map(|it| it.join().err().map(|it| message(&*it)));
        let failed: Vec<String> = failed.collect();
        assert!(failed.is_empty(), "\n{}", failed.join("\n\n"));
    });
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Checks an input; if something does not hold, reports the input, as small as it can be made.
fn must_hold(target: &Target, input: &[u8], origin: &str) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    let why = |input: &[u8]| {
        QUIET.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| (target.check)(input)));
        QUIET.set(false);
        result.err().map(|it| message(&*it))
    };
    if why(input).is_some() {
        let input = mutate::shrunk(input, |it| why(it).is_some());
        let why = why(&input).unwrap_or_default();
        panic!("{} ({origin}): {why}\ninput for found/{}: b\"{}\"", target.name, target.name, input.escape_ascii());
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|it| (*it).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn found() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found")
}

/// What a folder holds, in order; nothing if it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|it| it.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    files
}
