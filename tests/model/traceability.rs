//! The contract against code, tests and documents: what is cited is there, what is there is tested.
//!
//! `docs/development/traceability.md` is made from the tests' own doc comments. `BLESS=1 cargo test --test model -- traceability`
//! writes it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TABLE: &str = "docs/development/traceability.md";

/// An entry of the contract.
struct Entry {
    id: String,
    title: String,
    /// It is not built yet, as a whole.
    excused: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// All files below a folder with this ending.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The entries of `docs/behavior.md`, in their order.
fn contract() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in read("docs/behavior.md").lines() {
        if let Some(heading) = line.strip_prefix("### <a id=\"") {
            let (anchor, rest) = heading.split_once("\"></a>").expect("an anchor");
            let (id, title) = rest.split_once(": ").expect("an id and a title");
            assert_eq!(anchor, id.to_lowercase(), "the anchor of {id}");
            assert_eq!(cited(id), [id], "{id} is not written like an id");
            entries.push(Entry { id: id.to_owned(), title: title.to_owned(), excused: false });
        } else if line == "Status: not built yet." {
            entries.last_mut().expect("an entry before its status").excused = true;
        }
    }
    entries
}

/// The ids in a text, with those that a range such as `D1-D6` or `P1 to P4` leaves out.
fn cited(text: &str) -> Vec<String> {
    let is_id = |word: &str| {
        let number = word.strip_prefix(|it| "DPSORWKAXTJGIF".contains(it))?;
        let is_number = (1..=2).contains(&number.len()) && number.bytes().all(|it| it.is_ascii_digit());
        number.parse::<u8>().ok().filter(|_| is_number && !number.starts_with('0'))
    };
    let mut found: Vec<String> = Vec::new();
    // The last id, and where it ends.
    let mut before: Option<(&str, u8, usize)> = None;
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let mut at = 0;
    while let Some(start) = text[at..].find(is_part).map(|it| at + it) {
        let end = text[start..].find(|it| !is_part(it)).map_or(text.len(), |it| start + it);
        let word = &text[start..end];
        if let Some(number) = is_id(word) {
            let family = &word[..1];
            let first = match before {
                Some((same, first, ended)) if same == family && ["-", " to "].contains(&&text[ended..start]) => {
                    first + 1
                }
                _ => number,
            };
            found.extend((first..=number).map(|it| format!("{family}{it}")));
            before = Some((family, number, end));
        }
        at = end;
    }
    found
}

/// The tests and stories that name each id in their doc comment or title.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in ["src", "tests"].into_iter().flat_map(|it| files(it, "rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let file = path.file_stem().unwrap().to_str().unwrap();
        let (mut comment, mut is_test) = (String::new(), false);
        for line in text.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                comment += text;
            } else if line == "#[test]" {
                is_test = true;
            } else if !line.starts_with("#[") {
                let name = line.strip_prefix("fn ").and_then(|it| it.split_once("(")).filter(|_| is_test);
                for id in name.into_iter().flat_map(|_| cited(&comment)) {
                    tests.entry(id).or_default().insert(format!("`{file}::{}`", name.unwrap().0));
                }
                (comment, is_test) = (String::new(), false);
            }
        }
    }
    for path in files("tests/model/stories", "txt") {
        for story in std::fs::read_to_string(&path).unwrap().split("\n---\n") {
            let title = story.lines().find(|it| !it.starts_with('#') && !it.is_empty()).unwrap_or_default();
            let (ids, sentence) = title.split_once(": ").expect("ids before a story's sentence");
            let file = path.file_stem().unwrap().to_str().unwrap();
            for id in cited(ids) {
                tests.entry(id).or_default().insert(format!("story in `{file}`: {sentence}"));
            }
        }
    }
    tests
}

/// What is cited in comments and documents, with where.
fn citations() -> BTreeMap<String, String> {
    let mut citations = BTreeMap::new();
    let sources = ["src", "tests"].into_iter().flat_map(|it| files(it, "rs"));
    let documents = std::fs::read_dir(root()).unwrap().map(|it| it.unwrap().path());
    let documents = documents.filter(|it| it.extension().is_some_and(|it| it == "md"));
    for path in sources.chain(documents).chain(files("docs", "md")) {
        let is_source = path.extension().is_some_and(|it| it == "rs");
        for (n, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let text = if is_source { line.split_once("//").map_or("", |it| it.1) } else { line };
            for id in cited(text) {
                citations.entry(id).or_insert_with(|| format!("{}:{}", path.display(), n + 1));
            }
        }
    }
    citations
}

/// Every id that code, tests or documents cite is in the contract.
#[test]
fn every_cited_id_is_in_the_contract() {
    let contract: BTreeSet<String> = contract().into_iter().map(|it| it.id).collect();
    let unknown: Vec<_> = citations().into_iter().filter(|(id, _)| !contract.contains(id)).collect();
    assert!(unknown.is_empty(), "docs/behavior.md has no such entries: {unknown:#?}");
}

/// Every rule, invariant and fault that is built has a test that says so, and the table of them is the one that the
/// tests' comments make.
#[test]
fn every_id_of_the_contract_is_tested() {
    let (contract, tests) = (contract(), tests());
    assert!(contract.len() > 100, "only {} entries were found", contract.len());
    let has_none = |it: &&Entry| !it.excused && !tests.contains_key(&it.id);
    let untested: Vec<&str> = contract.iter().filter(has_none).map(|it| it.id.as_str()).collect();
    assert!(untested.is_empty(), "no test's comment names these: {untested:?}");

    let mut text = "# Which tests show what\n\nMade from the tests' own doc comments by `BLESS=1 cargo test --test model -- \
                     traceability`; a test fails where it is not up to date.\nA test is named `file::function`, a story by \
                    its file in `tests/model/stories/` and its sentence.\n"
        .to_owned();
    let mut family = "";
    for Entry { id, title, excused } in &contract {
        if family != &id[..1] {
            family = &id[..1];
            text += &format!("\n## {family}\n\n");
        }
        let anchor = id.to_lowercase();
        text += &format!("- [{id}](../behavior.md#{anchor}) {title}");
        match tests.get(id) {
            Some(tests) => text.extend(tests.iter().map(|it| format!("\n  - {it}"))),
            None if *excused => text += " (not built yet)",
            None => {}
        }
        text.push('\n');
    }
    let path = root().join(TABLE);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == text, "{TABLE} is old: run with BLESS=1");
}

/// Ranges are read as people mean them, and nothing else is taken for an id.
#[test]
fn ids_are_recognized() {
    for (text, ids) in [
        ("D1-D3, W6: a story", &["D1", "D2", "D3", "W6"][..]),
        ("P1 to P4 and (I14)", &["P1", "P2", "P3", "P4", "I14"]),
        ("W8, W1", &["W8", "W1"]),
        ("F0467 TEN_K8_C1 E2 K8s D D123 W01", &[]),
    ] {
        assert_eq!(cited(text), ids, "{text}");
    }
}
