//! HTML under construction. Markup is literals of the code; all else goes through [`Html::text`], the one place that escapes.

use std::fmt::Display;
use std::time::Duration;

use crate::logging::one_line;
use crate::time;

/// A document, or its beginning.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Appends markup, which can only be a literal.
    pub fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Appends text, for an element or a quoted attribute. Control characters and those that turn the direction of what
    /// follows are shown as escapes.
    pub fn text(&mut self, text: impl Display) -> &mut Html {
        for character in one_line(&text.to_string()).chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
        self
    }

    /// Appends text between two pieces of markup.
    pub fn within(&mut self, before: &'static str, text: impl Display, after: &'static str) -> &mut Html {
        self.raw(before).text(text).raw(after)
    }

    /// Appends a time in seconds since 1970, and how long ago that is.
    pub fn time(&mut self, seconds: u64, now: u64) -> &mut Html {
        let full = time::rfc3339(seconds);
        let short = full.replace('T', " ").replace('Z', "");
        self.within("<time datetime='", full, "'>").text(short).raw("</time>");
        match now.checked_sub(seconds) {
            Some(ago) => self.within(" <span class='ago'>(", duration(ago), " ago)</span>"),
            None => self.within(" <span class='ago'>(in ", duration(seconds - now), ")</span>"),
        }
    }

    /// The document's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// A number of seconds in its largest unit.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A short time in seconds.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T9: no text can end an element or an attribute, or turn the direction of what follows.
    #[test]
    fn text_is_escaped() {
        for (text, escaped) in [
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("\" onload='x' &amp;", "&quot; onload=&#39;x&#39; &amp;amp;"),
            ("a\u{202e}b\u{2066}\n\0", "a\\u{202e}b\\u{2066}\\n\\u{0}"),
            ("\u{5d0}\u{20ac}", "\u{5d0}\u{20ac}"),
        ] {
            let mut html = Html::default();
            html.text(text);
            assert_eq!(html.0, escaped, "{text:?}");
        }
    }

    /// T9: times are for people and for machines.
    #[test]
    fn times() {
        let mut html = Html::default();
        html.time(60, 60 + 7200).time(100, 60);
        let expected = "<time datetime='1970-01-01T00:01:00Z'>1970-01-01 00:01:00</time> <span class='ago'>(2 h ago)\
                        </span><time datetime='1970-01-01T00:01:40Z'>1970-01-01 00:01:40</time> <span class='ago'>\
                        (in 40 s)</span>";
        assert_eq!(html.0, expected);
        assert_eq!([0, 119, 120, 7199, 172_800].map(duration), ["0 s", "119 s", "2 min", "119 min", "2 days"]);
    }
}
