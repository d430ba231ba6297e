//! Log lines: one record is one line, as text or as JSON; where lines go, and how they begin (X6).
//!
//! A record is a constant sentence and key-value pairs (`info!(epg:% = dn; "reconciled")`); docs/observability.md lists the
//! keys. A thread of its own writes the lines, so no thread waits for a reader that has stopped reading.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::exit::ExitError;
use crate::metrics;
use crate::time;

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

/// What a line looks like (`--log-format`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// The sentence, then `key=value` pairs.
    #[default]
    Text,
    /// One JSON object: `time`, `level`, `message`, and the pairs.
    Json,
}

/// Starts logging. The level comes from `RUST_LOG`; libraries are silent below warnings, also when they are named
/// there: at `trace` one of them would tell the websocket's path, which is the session's token (A4).
/// A value that makes no sense is refused with one sentence; `default` is taken where there is none.
pub fn start(output: Output, default: &str, format: Format) -> Result<(), ExitError> {
    let filter = std::env::var("RUST_LOG").ok().filter(|it| !it.is_empty());
    let filter = filter.unwrap_or_else(|| default.to_owned());
    if !is_valid_filter(&filter) {
        let example = "use a level such as debug, or aci_sync::kube=debug";
        return Err(ExitError::config(format!("RUST_LOG: invalid filter {filter:?}; {example}")));
    }
    // A bare level means ours.
    let bare = filter.parse::<LevelFilter>().is_ok();
    let filter = if bare { format!("warn,aci_sync={filter}") } else { filter };
    let filter = env_logger::Builder::new().parse_filters(&filter).build();
    let level = filter.filter();
    let journal = [is_journal(&std::io::stdout()), is_journal(&std::io::stderr())];
    let (queue, waiting) = bounded(QUEUE);
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = lost.clone();
    let layout = Layout { format, journal: journal[1] };
    let write = move || write(&waiting, &counted, layout);
    let writer = std::thread::Builder::new().name("log".to_owned()).spawn(write);
    writer.map_err(|error| ExitError::failed(format!("failed to start the log thread: {error}")))?;
    if log::set_boxed_logger(Box::new(Lines { filter, output, format, journal, queue, lost })).is_ok() {
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
    format: Format,
    /// Whether stdout and stderr go to the journal, which has its own time and takes the level from a prefix.
    journal: [bool; 2],
    queue: Sender<Entry>,
    lost: Arc<AtomicUsize>,
}

/// What the log thread gets.
enum Entry {
    /// Write a line.
    Line { stdout: bool, line: String },
    /// Confirm that all lines before are written.
    Flush(Sender<()>),
}

/// Writes what comes, for ever. A closed output must not end the program: it goes on without a log.
fn write(waiting: &Receiver<Entry>, lost: &AtomicUsize, layout: Layout) {
    for entry in waiting {
        if matches!(entry, Entry::Line { .. }) {
            metrics::dequeued(metrics::Queue::Log);
        }
        let _ = match entry {
            Entry::Line { stdout: true, line } => std::io::stdout().write_all(line.as_bytes()),
            Entry::Line { stdout: false, line } => std::io::stderr().write_all(line.as_bytes()),
            Entry::Flush(done) => done.send(()).map_err(std::io::Error::other),
        };
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let mut pairs = Pairs::default();
            pairs.0.push(("lines".to_owned(), lost.into()));
            let line = layout.line(Level::Warn, "log lines lost: the reader is too slow", &pairs);
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// How the lines of one output look.
#[derive(Debug, Clone, Copy)]
struct Layout {
    format: Format,
    /// The journal has its own time, and takes the level from a prefix.
    journal: bool,
}

impl Layout {
    fn line(self, level: Level, message: &str, pairs: &Pairs) -> String {
        let begin = if self.journal { format!("<{}>", priority(level)) } else { String::new() };
        let message = one_line(message);
        match self.format {
            Format::Text if self.journal => format!("{begin}{message}{}\n", pairs.text()),
            Format::Text => format!("{} {level:<5} {message}{}\n", time::now(), pairs.text()),
            Format::Json => {
                let level = level.as_str().to_ascii_lowercase();
                let (time, message) = (time::now(), serde_json::Value::from(message));
                format!("{begin}{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{message}{}}}\n", pairs.json())
            }
        }
    }
}

/// The key-value pairs of a record, in its order.
#[derive(Default)]
struct Pairs(Vec<(String, serde_json::Value)>);

impl Pairs {
    fn of(record: &Record<'_>) -> Pairs {
        let mut pairs = Pairs::default();
        // No pair of ours fails to be visited.
        let _ = record.key_values().visit(&mut pairs);
        pairs
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.0 {
            let value = match value {
                serde_json::Value::String(value) => quoted(value),
                other => other.to_string(),
            };
            text += &format!(" {key}={value}");
        }
        text
    }

    fn json(&self) -> String {
        self.0.iter().map(|(key, value)| format!(",{}:{value}", serde_json::Value::from(key.as_str()))).collect()
    }
}

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let number = value.to_u64().map(serde_json::Value::from).or_else(|| value.to_i64().map(Into::into));
        let number = number.or_else(|| value.to_f64().map(Into::into));
        let value =
            number.or_else(|| value.to_bool().map(Into::into)).unwrap_or_else(|| one_line(&value.to_string()).into());
        self.0.push((key.to_string(), value));
        Ok(())
    }
}

/// A value as text: as it is where it ends at the next space, quoted otherwise.
fn quoted(value: &str) -> String {
    let is_plain = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
    if is_plain { value.to_owned() } else { format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")) }
}

/// Whether an output is the journal's, named as systemd does: device, colon, inode (systemd.exec(5)). That the
/// variable is set says little: whatever a service starts inherits it, with outputs of its own.
fn is_journal(output: &impl AsFd) -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
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
        let level = record.level();
        metrics::logged(level);
        let stdout = self.output == Output::Split && level >= Level::Info;
        let layout = Layout { format: self.format, journal: self.journal[usize::from(!stdout)] };
        let line = layout.line(level, &record.args().to_string(), &Pairs::of(record));
        metrics::enqueued(metrics::Queue::Log);
        if self.queue.try_send(Entry::Line { stdout, line }).is_err() {
            metrics::dequeued(metrics::Queue::Log);
            self.lost.fetch_add(1, Ordering::Relaxed);
            metrics::dropped(metrics::Queue::Log);
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

/// The line for stderr about the error that ends the program. It may come before logging has started.
pub fn last_line(error: &str) -> String {
    let begin = if is_journal(&std::io::stderr()) { format!("<{}>", priority(Level::Error)) } else { String::new() };
    format!("{begin}aci-sync: {}\n", one_line(error))
}

/// Names from a cluster or a fabric can hold anything; a control character in one must not become a line of its own.
pub fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        if is_invisible(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Characters that a terminal does not show but obeys, or that hide in a name: controls, separators of lines, and Unicode's
/// format characters, such as those that turn the direction of what follows.
pub fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X6: the sentence and the pairs of a record, as text and as JSON; no value can look like another pair or line.
    #[test]
    fn records_become_one_line() {
        let mut pairs = Pairs::default();
        let values =
            [("kind", "Pod".into()), ("deleted", 3.into()), ("error", "a \"b\" =c".into()), ("none", "".into())];
        pairs.0.extend(values.map(|(key, value)| (key.to_owned(), value)));
        for character in
            ['\0', '\u{7f}', '\u{9b}', '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2066}']
        {
            assert_eq!(one_line(&format!("a{character}b")), format!("a{}b", character.escape_default()));
        }
        assert_eq!(one_line("\u{e9}\u{5d0}\u{20ac} \u{1f600}"), "\u{e9}\u{5d0}\u{20ac} \u{1f600}");
        assert_eq!(quoted("x\\\" code=Y \\"), r#""x\\\" code=Y \\""#, "an escape in a value ends no value");
        let layout = |format| Layout { format, journal: true };
        assert_eq!(
            layout(Format::Text).line(Level::Info, "listed\n", &pairs),
            "<6>listed\\n kind=Pod deleted=3 error=\"a \\\"b\\\" =c\" none=\"\"\n"
        );
        let json = layout(Format::Json).line(Level::Warn, "listed", &pairs);
        let json: serde_json::Value = serde_json::from_str(json.strip_prefix("<4>").unwrap()).unwrap();
        assert_eq!(
            (&json["message"], &json["deleted"], &json["error"]),
            (&"listed".into(), &3.into(), &"a \"b\" =c".into())
        );
    }
}
