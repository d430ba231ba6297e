//! Breaks inputs: bits, bytes and ranges, and, because random bytes rarely come far, JSON values and words.

use std::ops::Range;
use std::sync::LazyLock;

/// The longest broken input: longer ones only take longer.
const MAX_LENGTH: usize = 64 * 1024;

/// The size of a large input.
const LARGE: usize = 1 << 20;

/// Words and values that decoders look for, or that they should stumble over; whatever has a space in it is in `MORE`.
const WORDS: &str = r#"
    "status" "items" "metadata" "kind" "PodList" "Status" "Pod" "object" "type" "ADDED" "DELETED" "BOOKMARK" "ERROR"
    "resourceVersion" "continue" "annotations" "aci.haystacknetworks.com/l3o" "podIPs" "imdata" "totalCount" "error"
    "attributes" "children" "dn" "rn" "code" "text" "subscriptionId" "deleted" "tenant" "l3out" "epg"
    null true false {} [] [null] "" 0 -1 1.5 1e999 65536 18446744073709551616 -9223372036854775809
    99999999999999999999999999999999999999 "\u0000" "\ud800" "\n" "\u202e" "\u00e9\u00e9\u00e9" "\"" "\\"
    uni/tn- /out- /instP- /extsubnet-[ uni/tn-T/out-L/instP-E tn-.. ] [ / .. %2f ? & # " \ ' : *a & { } , = -- <<:
    +32 /032 /129 10.0.0.1/32 ::1/128 ::ffff:10.0.0.1 fe80::1%eth0 010.0.0.1 10s 1h 443
"#;
const MORE: &[&str] = &[
    "\0",
    "\n",
    "\r\n",
    "\t",
    " ",
    ": ",
    "- ",
    "&a ",
    "!!str ",
    "--- ",
    "| ",
    "\u{e9}",
    "\u{202e}",
    "\u{feff}",
    "-----BEGIN CERTIFICATE-----\n",
    "-----END CERTIFICATE-----\n",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
];

fn word(random: &mut Random) -> &'static [u8] {
    static ALL: LazyLock<Vec<&str>> =
        LazyLock::new(|| WORDS.split_ascii_whitespace().chain(MORE.iter().copied()).collect());
    random.pick(&ALL).as_bytes()
}

/// splitmix64: small, fast, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// The stream of one input.
    pub fn new(seed: u64, target: &str, number: u64) -> Random {
        let target = target.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut random = Random(target);
        random.0 = random.next().wrapping_add(number);
        random.0 = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    /// A number below a limit; 0 if the limit is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap()
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// A range of at most `longest` bytes.
    fn range(&mut self, length: usize, longest: usize) -> Range<usize> {
        let start = self.below(length);
        start..start + self.below((length - start).min(longest) + 1)
    }
}

/// One of the seeds, broken in up to six ways.
pub fn broken(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(seeds).clone();
    for _ in 0..=random.below(6) {
        breakage(&mut bytes, seeds, random);
        bytes.truncate(MAX_LENGTH);
    }
    bytes
}

fn breakage(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let length = bytes.len();
    match random.below(14) {
        0 if length > 0 => bytes[random.below(length)] ^= 1 << random.below(8),
        1 if length > 0 => bytes[random.below(length)] = *random.pick(b"\0\xff\"\\/[]{}:,-0 \n"),
        2 => insert(bytes, random.below(length + 1), &random.next().to_le_bytes()[..1 + length % 8]),
        3 => insert(bytes, random.below(length + 1), word(random)),
        4 => drop(bytes.drain(random.range(length, 64))),
        5 => {
            let part = bytes[random.range(length, 256)].repeat(1 + random.below(40));
            insert(bytes, random.below(length + 1), &part);
        }
        6 if random.below(4) == 0 => bytes.truncate(random.below(length)),
        7 | 8 => {
            let part = any(random.pick::<Vec<u8>>(seeds), values, random);
            replace(bytes, values, &part, random);
        }
        9 => replace(bytes, values, word(random), random),
        10 => {
            let (open, close) = *random.pick(&[("[", "]"), ("{\"children\":[", "]}"), ("{\"a\":", "}")]);
            let depth = *random.pick(&[1, 2, 60, 130, 300]);
            let value = any(bytes, values, random);
            let nested = [open.repeat(depth).as_bytes(), &value, close.repeat(depth).as_bytes()].concat();
            replace(bytes, values, &nested, random);
        }
        11 => member(bytes, random),
        12 => {
            let part = any(random.pick::<Vec<u8>>(seeds), words, random);
            replace(bytes, words, &part, random);
        }
        _ => replace(bytes, words, word(random), random),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}

/// Finds parts of an input.
type Find = fn(&[u8]) -> Vec<Range<usize>>;

fn any(bytes: &[u8], find: Find, random: &mut Random) -> Vec<u8> {
    let parts = find(bytes);
    if parts.is_empty() { bytes.to_vec() } else { bytes[random.pick(&parts).clone()].to_vec() }
}

fn replace(bytes: &mut Vec<u8>, find: Find, part: &[u8], random: &mut Random) {
    let parts = find(bytes);
    if !parts.is_empty() {
        bytes.splice(random.pick(&parts).clone(), part.iter().copied());
    }
}

/// Takes a member of an object or an array away, or puts it there twice, commas and all.
fn member(bytes: &mut Vec<u8>, random: &mut Random) {
    let values = values(bytes);
    if values.is_empty() {
        return;
    }
    let member = with_key(bytes, &values, random.pick(&values));
    if random.below(2) == 0 {
        let again = [b",", &bytes[member.clone()]].concat();
        insert(bytes, member.end, &again);
    } else {
        bytes.drain(with_comma(bytes, member));
    }
}

/// A value with its key, if it has one.
fn with_key(bytes: &[u8], values: &[Range<usize>], value: &Range<usize>) -> Range<usize> {
    let is_key = |it: &&Range<usize>| {
        let between = bytes.get(it.end..value.start).unwrap_or_default().trim_ascii();
        bytes[it.start] == b'"' && between == b":"
    };
    values.iter().find(is_key).map_or(value.start, |it| it.start)..value.end
}

/// A member with the comma that goes when it goes.
fn with_comma(bytes: &[u8], member: Range<usize>) -> Range<usize> {
    if bytes.get(member.end) == Some(&b',') {
        member.start..member.end + 1
    } else if member.start > 0 && bytes[member.start - 1] == b',' {
        member.start - 1..member.end
    } else {
        member
    }
}

/// The positions of the values and keys in something that is more or less JSON.
fn values(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut open, mut at) = (Vec::new(), Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            b'"' => {
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                at = (at + 1).min(bytes.len());
                found.push(start..at);
            }
            b'{' | b'[' => open.push(start),
            b'}' | b']' => found.extend(open.pop().map(|start| start..at)),
            byte if is_word(byte) => {
                at += bytes[at..].iter().take_while(|it| is_word(**it)).count();
                found.push(start..at);
            }
            _ => {}
        }
    }
    found
}

/// The positions of words, also inside of strings.
fn words(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    for word in bytes.split(|it| !is_word(*it)) {
        if !word.is_empty() {
            found.push(at..at + word.len());
        }
        at += word.len() + 1;
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._".contains(&byte)
}

/// Large inputs: the same over and over, by itself and in the place of a value of a seed.
pub fn large(seeds: &[Vec<u8>], random: &mut Random) -> impl Iterator<Item = Vec<u8>> {
    let parts: &[(&str, &str, &str)] = &[
        ("", "[", ""),
        ("", "{\"a\":", ""),
        ("", "{\"children\":[", ""),
        ("[", "[],", "[]]"),
        ("[", "{\"a\":{}},", "{}]"),
        ("{", "\"a\":1,", "\"b\":1}"),
        ("\"", "x", "\""),
        ("\"", "\\u0000", "\""),
        ("\"", "uni/tn-T/", "\""),
        ("\"", "[x/", "\""),
        ("", "9", ""),
        ("", " ", ""),
        ("", "\n", ""),
        ("", "- ", ""),
        ("", "? ", ""),
        ("", "a: {", ""),
        ("", "\"text\":\"", ""),
        ("", "-----BEGIN CERTIFICATE-----\n", ""),
    ];
    let holes: Vec<(Vec<u8>, Range<usize>)> = parts
        .iter()
        .map(|_| {
            let seed = random.pick(seeds).clone();
            let values = values(&seed);
            let hole = if values.is_empty() { 0..seed.len() } else { random.pick(&values).clone() };
            (seed, hole)
        })
        .collect();
    parts.iter().zip(holes).flat_map(|((open, part, close), (seed, hole))| {
        let large = [*open, &part.repeat(LARGE / part.len()), *close].concat().into_bytes();
        let within = [&seed[..hole.start], &large, &seed[hole.end..]].concat();
        [large, within]
    })
}

/// An input with as much taken away as it still fails without: members of what looks like JSON, then ranges. Large ones
/// get fewer tries, since each takes longer.
pub fn shrunk(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut input = input.to_vec();
    let mut tries = (LARGE * 16 / (input.len() + 1)).min(5000);
    let mut goes = |input: &mut Vec<u8>, range: Range<usize>| {
        let less = [&input[..range.start], &input[range.end..]].concat();
        tries = tries.checked_sub(1)?;
        let goes = !range.is_empty() && fails(&less);
        if goes {
            *input = less;
        }
        Some(goes)
    };
    let mut at = 0;
    loop {
        let values = values(&input);
        let Some(value) = values.get(at) else { break };
        let member = with_comma(&input, with_key(&input, &values, value));
        match goes(&mut input, member) {
            Some(true) => {}
            Some(false) => at += 1,
            None => return input,
        }
    }
    let mut size = input.len();
    while size > 0 {
        let mut at = 0;
        while at < input.len() {
            let end = (at + size).min(input.len());
            match goes(&mut input, at..end) {
                Some(true) => {}
                Some(false) => at += size,
                None => return input,
            }
        }
        size /= 2;
    }
    input
}
