//! Log lines: one record is one line, whatever is in it; where they go, and how they begin. A thread of its own writes
//! them, so that nobody waits for a reader that has stopped reading.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Lines that wait to be written; what does not fit is lost and counted.
const QUEUE: usize = 4096;

/// How long the end of the program waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(100);

/// Where log lines go (X6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// `info` and below to stdout, warnings and errors to stderr: for `run`.
    Split,
    /// Everything to stderr: for commands that print data.
    Stderr,
}

/// Starts logging. The level comes from `RUST_LOG`; libraries are silent below warnings, also when they are named
/// there: at `trace` one of them would tell the websocket's path, which is the session's token (A4).
/// A value that makes no sense is refused with one sentence.
pub fn start(output: Output) -> Result<(), String> {
    let filter = std::env::var("RUST_LOG").ok().filter(|it| !it.is_empty());
    let default = match output {
        Output::Split => "info",
        // Beside the data that somebody asked for, what goes well needs no words.
        Output::Stderr => "warn",
    };
    let filter = filter.unwrap_or_else(|| default.to_owned());
    if !is_valid_filter(&filter) {
        return Err(format!("RUST_LOG: {filter:?} is not a level such as debug, or aci_sync::kube=debug"));
    }
    // A bare level means ours.
    let bare = filter.parse::<LevelFilter>().is_ok();
    let filter = if bare { format!("warn,aci_sync={filter}") } else { filter };
    let filter = env_logger::Builder::new().parse_filters(&filter).build();
    let level = filter.filter();
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let journal = [is_stream(&std::io::stdout(), &stream), is_stream(&std::io::stderr(), &stream)];
    let (queue, waiting) = bounded(QUEUE);
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = lost.clone();
    let write = move || write(&waiting, &counted, journal[1]);
    let writer = std::thread::Builder::new().name("log".to_owned()).spawn(write);
    writer.map_err(|error| format!("cannot start the thread of the log: {error}"))?;
    if log::set_boxed_logger(Box::new(Lines { filter, output, journal, queue, lost })).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Whether env_logger understands it: `module=level,...` and perhaps `/text`. It would tell so by itself on stderr,
/// and panic where that is closed.
fn is_valid_filter(filter: &str) -> bool {
    let is_level = |it: &str| it.trim().is_empty() || it.trim().parse::<LevelFilter>().is_ok();
    let (levels, text) = filter.split_once('/').unwrap_or((filter, ""));
    !text.contains('/')
        && levels.split(',').all(|it| match it.split_once('=') {
            Some((_, level)) => is_level(level),
            // A bare word that is no level names a module; one of another's is a level misspelt.
            None => is_level(it) || it.trim().starts_with("aci_sync"),
        })
}

struct Lines {
    filter: env_logger::Logger,
    output: Output,
    /// Whether stdout and stderr go to the journal, which has its own time and takes the level from a prefix.
    journal: [bool; 2],
    queue: Sender<Entry>,
    lost: Arc<AtomicUsize>,
}

/// What the writing thread is told.
enum Entry {
    /// Write a line.
    Line { stdout: bool, line: String },
    /// Say that all that came before is written.
    Flush(Sender<()>),
}

/// Writes what comes, for ever. A closed output must not end the program: it goes on without a log.
fn write(waiting: &Receiver<Entry>, lost: &AtomicUsize, journal: bool) {
    for entry in waiting {
        let _ = match entry {
            Entry::Line { stdout: true, line } => std::io::stdout().write_all(line.as_bytes()),
            Entry::Line { stdout: false, line } => std::io::stderr().write_all(line.as_bytes()),
            Entry::Flush(done) => done.send(()).map_err(std::io::Error::other),
        };
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let message = format!("{lost} lines of the log are lost, because nobody took them in time");
            let _ = std::io::stderr().write_all(line(Level::Warn, &message, journal).as_bytes());
        }
    }
}

fn line(level: Level, message: &str, journal: bool) -> String {
    if journal {
        return format!("<{}>{message}\n", priority(level));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{} {level:<5} {message}\n", timestamp(now))
}

/// Whether an output is the journal's, named as systemd does: device, colon, inode (systemd.exec(5)). That the
/// variable is set says little: whatever a service starts inherits it, with outputs of its own.
fn is_stream(output: &impl AsFd, stream: &str) -> bool {
    let file = output.as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|it| it.metadata()).is_ok_and(|it| format!("{}:{}", it.dev(), it.ino()) == stream)
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let is_ours = record.target().starts_with("aci_sync");
        if !self.filter.matches(record) || (record.level() > Level::Warn && !is_ours) {
            return;
        }
        let message = one_line(&record.args().to_string());
        let level = record.level();
        let stdout = self.output == Output::Split && level >= Level::Info;
        let line = line(level, &message, self.journal[usize::from(!stdout)]);
        if self.queue.try_send(Entry::Line { stdout, line }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines are written, but not for a reader that does not read.
    fn flush(&self) {
        let deadline = Instant::now() + LAST_LINES;
        let (done, flushed) = bounded(1);
        if self.queue.send_deadline(Entry::Flush(done), deadline).is_ok() {
            let _ = flushed.recv_deadline(deadline);
        }
    }
}

/// Names from a cluster or a fabric can hold anything; a control character in one must not become a line of its own.
pub fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        if character.is_control()
            || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The time of day as Kubernetes' objects tell it, for people: exactly six digits after the point, or the API server
/// refuses it.
pub fn micro_time() -> String {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn micros(since_epoch: Duration) -> String {
    timestamp(since_epoch.as_secs()).replace('Z', &format!(".{:06}Z", since_epoch.subsec_micros()))
}

/// Seconds since 1970 as RFC 3339 in UTC. Days to civil date after Howard Hinnant's `civil_from_days`.
fn timestamp(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_795_412_631, "2026-11-23T05:43:51Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
        for (nanos, text) in [(0, "000000"), (999, "000000"), (1_000, "000001"), (999_999_999, "999999")] {
            assert_eq!(micros(Duration::new(951_827_696, nanos)), format!("2000-02-29T12:34:56.{text}Z"));
        }
    }
}
