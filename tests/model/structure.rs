//! What code and documents promise about themselves: the model is pure, links lead somewhere, and what is
//! quoted or named is there.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use aci_sync::model::finding::Code;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All files below a folder with an extension, but for what is built and what is not ours.
fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(ROOT).join(folder)];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
            let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
            if path.is_dir() {
                folders.extend((!matches!(name, "target" | "vendor") && !name.starts_with('.')).then_some(path));
            } else if path.extension().is_some_and(|it| it == extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    assert!(!files.is_empty());
    files
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    files(folder, "rs")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
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

/// A newcomer finds the room for a change in a minute: no file is a maze.
#[test]
fn files_are_small() {
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            assert!(text.lines().count() <= 600, "{} is too long", path.display());
        }
    }
}

/// Every test that a document names for a defect of the Python application or for a limit is there.
#[test]
fn the_tables_of_tests_are_true() {
    let all: Vec<(PathBuf, String)> = ["src", "tests"].into_iter().flat_map(sources).collect();
    let mut count = 0;
    for document in ["docs/migrating-from-python.md", "docs/development/limits.md"] {
        for name in read(document).split('`').filter(|it| it.contains("::") && !it.starts_with("file::")) {
            let (file, test) = name.split_once("::").unwrap();
            let is_there = |(path, text): &(PathBuf, String)| {
                path.file_stem().is_some_and(|it| it == file) && text.contains(&format!("fn {test}()"))
            };
            assert!(all.iter().any(is_there), "{document}: {name} is not there");
            count += 1;
        }
    }
    assert!(count > 40, "only {count} tests are named");
}

/// The lines of a document outside of fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    })
}

/// A line without its code spans.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// A heading's text as it is shown: without tags, and of links their text alone.
fn shown(heading: &str) -> String {
    let (mut text, mut is_tag) = (String::new(), false);
    for character in heading.chars() {
        match character {
            '<' => is_tag = true,
            '>' if is_tag => is_tag = false,
            _ if !is_tag => text.push(character),
            _ => {}
        }
    }
    let mut parts = text.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|it| it.split_once(')').map_or(it, |(_, rest)| rest));
    rest.fold(first, |text, it| text + it).replace('[', "")
}

/// The anchor that GitHub gives a heading.
fn slug(heading: &str) -> String {
    let is_kept = |it: &char| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_');
    shown(heading).trim().to_lowercase().chars().filter(is_kept).map(|it| if it == ' ' { '-' } else { it }).collect()
}

/// Every anchor of a document: those of its headings, and `<a id="...">`.
fn anchors(text: &str) -> HashSet<String> {
    let (mut all, mut seen): (HashSet<String>, HashMap<String, usize>) = Default::default();
    for line in prose(text) {
        let ids = line.split("<a id=\"").skip(1).filter_map(|it| it.split_once('"'));
        all.extend(ids.map(|it| it.0.to_owned()));
        let level = line.bytes().take_while(|it| *it == b'#').count();
        if let (1..=6, Some(heading)) = (level, line.get(level..).and_then(|it| it.strip_prefix(' '))) {
            let slug = slug(heading);
            let before = seen.entry(slug.clone()).or_default();
            all.insert(if *before == 0 { slug } else { format!("{slug}-{before}") });
            *before += 1;
        }
    }
    all
}

/// GitHub's rule, on what we write.
#[test]
fn slugs_follow_githubs_rule() {
    for (heading, expected) in [
        ("Where to change what", "where-to-change-what"),
        ("`check --discover`: what it does", "check---discover-what-it-does"),
        ("<a id=\"d1\"></a>D1: The annotation", "d1-the-annotation"),
        ("A [link](x.md#y) in it, 2 of 3", "a-link-in-it-2-of-3"),
    ] {
        assert_eq!(slug(heading), expected);
    }
    let text = "# A\n## A\n```\n# no heading\n```\n<a id=\"b\"></a>\n";
    assert_eq!(anchors(text), HashSet::from(["a", "a-1", "b"].map(str::to_owned)));
}

/// Every relative link of a document leads to a file, and every anchor to a place in it.
#[test]
fn links_lead_somewhere() {
    let documents = files("", "md");
    let anchors: HashMap<PathBuf, HashSet<String>> =
        documents.iter().map(|(path, text)| (path.canonicalize().unwrap(), anchors(text))).collect();
    let (mut count, mut broken) = (0, Vec::new());
    for (path, text) in &documents {
        for line in prose(text).map(without_code) {
            for link in line.split("](").skip(1).filter_map(|it| it.split_once(')')).map(|it| it.0) {
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                count += 1;
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
                let is_there = target.canonicalize().is_ok_and(|it| {
                    anchor.is_empty() || anchors.get(&it).is_some_and(|anchors| anchors.contains(anchor))
                });
                if !is_there {
                    broken.push(format!("{}: {link}", path.strip_prefix(ROOT).unwrap().display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(count > 50, "only {count} links were found");
}

/// Every file and folder that ARCHITECTURE.md names exists, below `src` or at the root.
#[test]
fn the_architecture_names_what_exists() {
    let text = read("ARCHITECTURE.md");
    let is_path = |it: &&str| it.ends_with('/') || [".rs", ".txt", ".yaml", ".env"].iter().any(|end| it.ends_with(end));
    let paths: Vec<&str> = prose(&text).flat_map(|it| it.split('`').skip(1).step_by(2)).filter(is_path).collect();
    for path in &paths {
        let root = Path::new(ROOT);
        assert!(root.join("src").join(path).exists() || root.join(path).exists(), "{path} does not exist");
    }
    assert!(paths.len() > 80, "only {} paths were found", paths.len());
}

/// Every key of a log line is in the table of docs/observability.md.
#[test]
fn the_keys_of_log_lines_are_documented() {
    let page = read("docs/observability.md");
    let table = page.split("### Keys").nth(1).and_then(|it| it.split("\n### ").next()).unwrap();
    let first_cells = table.lines().filter_map(|it| it.strip_prefix("| ")).filter_map(|it| it.split(" | ").next());
    let documented: HashSet<&str> = first_cells.flat_map(|it| it.split('`').skip(1).step_by(2)).collect();
    let mut count = 0;
    for (path, text) in sources("src") {
        for name in ["error!(", "warn!(", "info!(", "debug!("] {
            // What stands between the macro's name and the sentence: `key`, `key:%`, `key = value`, separated by
            // commas.
            let pairs = shipped(&text).split(name).skip(1).filter_map(|it| it.split_once("; \"")).map(|it| it.0);
            for pair in pairs.filter(|it| it.len() < 400 && !it.contains(");")).flat_map(|it| it.split(',')) {
                let key: String = pair.trim().chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
                let rest = pair.trim()[key.len()..].trim_start();
                let is_key =
                    rest.is_empty() || rest.starts_with('=') || rest.starts_with(":%") || rest.starts_with(":?");
                if is_key && key.starts_with(|it: char| it.is_ascii_lowercase()) {
                    assert!(documented.contains(key.as_str()), "{}: the key {key}", path.display());
                    count += 1;
                }
            }
        }
    }
    assert!(count > 100, "only {count} keys were found");
}

/// The words of a private language stay out of code, tests, scripts and documents; docs/glossary.md has the words to use.
#[test]
fn banned_words_stay_out() {
    const WORDS: [&str; 9] = ["somebody", "nobody", "anybody", "whoever", "anew", "mend", "bears", "told", "tells"];
    // The list itself, inputs that other programs wrote, and the benchmark.
    const EXCEPTIONS: [&str; 4] =
        ["tests/model/structure.rs", "tests/recordings", "tests/fuzz/found", "tests/sim/src/bin"];
    let folders = ["src", "scripts", "packaging", "systemd", "docs", ".ci", "tests"];
    let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let mut todo: Vec<PathBuf> = folders.iter().chain(&documents).map(|it| Path::new(ROOT).join(it)).collect();
    let mut found = Vec::new();
    while let Some(path) = todo.pop() {
        let name = path.strip_prefix(ROOT).unwrap().display().to_string();
        if EXCEPTIONS.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            todo.extend(std::fs::read_dir(path).unwrap().map(|it| it.unwrap().path()));
            continue;
        }
        // A picture has no words.
        for (number, line) in std::fs::read_to_string(&path).unwrap_or_default().lines().enumerate() {
            let line = line.to_lowercase();
            let mut words = line.split(|it: char| !it.is_alphanumeric() && it != '_');
            if let Some(word) = words.find(|it| WORDS.contains(it)) {
                found.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The first page is read in five minutes, and the second in ten.
#[test]
fn the_first_pages_are_short() {
    for (path, most) in [("README.md", 8192), ("ARCHITECTURE.md", 12288)] {
        let size = std::fs::metadata(Path::new(ROOT).join(path)).unwrap().len();
        assert!(size <= most, "{path} has {size} bytes of {most}");
    }
}

/// T9: every finding has a row with its remedy, which is the one that the status page shows.
#[test]
fn every_finding_has_a_remedy() {
    let page = read("docs/observability.md");
    for code in Code::ALL {
        let row = page.lines().find(|it| it.starts_with(&format!("| `{code}` |")));
        let row = row.unwrap_or_else(|| panic!("{code} has no row")).trim_end_matches([' ', '|']);
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        assert!(cells.iter().filter(|it| it.len() > 3).count() >= 3, "{code} has no message or no remedy");
        assert_eq!(shown(&cells[cells.len() - 1].replace('`', "")), shown(code.remedy()), "{code}");
    }
}

/// What the tables between `<!-- messages -->` quote in their column `message` is in the code, part by part: `...` is
/// what the program fills in.
#[test]
fn quoted_messages_are_those_of_the_code() {
    let mut code = String::new();
    for (_, text) in sources("src") {
        // A text that goes on in the next line.
        let mut lines = text.split("\\\n");
        code += lines.next().unwrap_or_default();
        lines.for_each(|it| code += it.trim_start());
    }
    let mut count = 0;
    for (path, text) in files("docs", "md") {
        for table in text.split("<!-- messages -->").skip(1).filter_map(|it| it.split("<!-- /messages -->").next()) {
            let cells = |row: &str| row.split('|').map(|it| it.trim().to_owned()).collect::<Vec<_>>();
            let mut rows = table.lines().filter(|it| it.starts_with('|')).map(cells);
            let column = rows.next().unwrap().iter().position(|it| it == "message").unwrap();
            for row in rows.skip(1) {
                for message in row[column].split('`').skip(1).step_by(2) {
                    let parts = message.split("...").map(|it| it.trim_matches([' ', '(', ')', ':']));
                    for part in parts.filter(|it| it.len() > 2) {
                        assert!(code.contains(part), "{}: {part:?} of {message:?}", path.display());
                    }
                    count += 1;
                }
            }
        }
    }
    assert!(count > 80, "only {count} messages were found");
}

/// The constant sentence of a log macro, whose arguments begin at `text`: the last string that is no part of a value.
fn sentence(text: &str) -> Option<String> {
    let (mut depth, mut last, mut characters) = (1, None, text.chars());
    while let Some(character) = characters.next() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 1 => return last,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                let mut string = String::new();
                loop {
                    match characters.next()? {
                        '"' => break,
                        '\\' => string.extend(characters.next()),
                        other => string.push(other),
                    }
                }
                if depth == 1 {
                    last = Some(string);
                }
            }
            _ => {}
        }
    }
    None
}

/// Every message of the levels that an operator sees is in a document, with its meaning.
#[test]
fn every_message_is_documented() {
    let pages = read("docs/observability.md") + &read("docs/troubleshooting.md");
    let (mut count, mut missing) = (0, Vec::new());
    for (path, text) in sources("src") {
        for name in ["error!(", "warn!(", "info!("] {
            for arguments in shipped(&text).split(name).skip(1) {
                let sentence = sentence(arguments).unwrap_or_default();
                if !pages.contains(&format!("`{sentence}`")) {
                    missing.push(format!("{}: {sentence:?}", path.strip_prefix(ROOT).unwrap().display()));
                }
                count += 1;
            }
        }
    }
    assert!(missing.is_empty(), "no document explains {missing:#?}");
    assert!(count > 70, "only {count} messages were found");
}

/// What docs/behavior.md calls not built yet is no flag and no command of the program.
#[test]
fn what_is_built_is_not_called_missing() {
    let text = read("docs/behavior.md");
    let flags = aci_sync::cli::FLAGS.iter().map(|it| format!("--{}", it.name));
    let commands = aci_sync::cli::COMMANDS.iter().map(|it| it.name.to_owned());
    let built: HashSet<String> = flags.chain(commands).chain(["-o".to_owned()]).collect();
    for part in text.split("Not built yet:").skip(1) {
        // A status is one line; elsewhere the sentence goes on to the end of its item or paragraph.
        let before = &text[..part.as_ptr() as usize - text.as_ptr() as usize];
        let is_status = before.lines().last().is_some_and(|line| line.starts_with("Status:"));
        let end = if is_status { part.find('\n') } else { part.find("\n-").into_iter().chain(part.find("\n\n")).min() };
        for name in part[..end.unwrap_or(part.len())].split('`').skip(1).step_by(2) {
            assert!(!built.contains(name), "docs/behavior.md says that {name} is not built yet");
        }
    }
}

/// T6: docs/check.md and T6 itself have every id of `check`, in the order of the table, and no other.
#[test]
fn every_check_is_documented() {
    let ids: Vec<&str> = aci_sync::commands::check::CHECKS.iter().map(|it| it.id).collect();
    let page = read("docs/check.md");
    let rows = page.lines().filter_map(|it| it.strip_prefix("| <a id=\"")?.split_once("\"></a>`"));
    let rows: Vec<&str> =
        rows.inspect(|(id, rest)| assert!(rest.starts_with(&format!("{id}`")))).map(|it| it.0).collect();
    assert_eq!(rows, ids);
    let contract = read("docs/behavior.md");
    let list = contract.split_once("preflight by ids: ").unwrap().1.split("`.\n").next().unwrap();
    assert_eq!(list.split('`').skip(1).step_by(2).collect::<Vec<_>>(), ids);
}
