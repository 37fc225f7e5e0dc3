//! Lines that fit: escaping, colours, cutting and wrapping, for a terminal of so many columns.
//!
//! Every word of the report passes through [`Span`], which escapes it, and through [`Page`], which cuts
//! what is too wide: no name of the target can break a line or colour it, whoever forgets about it above.
//! The surprise: columns are not characters (`日` takes two), so nothing here counts characters.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::units::GLUE;
use crate::report::Style;
use crate::report::escape::printable;

/// Narrower than this, the table has no room for its columns; the terminal may then wrap lines itself.
const NARROWEST_COLUMNS: usize = 72;

/// As the width: no line is wrapped.
pub const UNWRAPPED: usize = usize::MAX;

/// Prose is hard to read in longer lines, however wide the terminal is.
const PROSE_COLUMNS: usize = 100;

/// How a piece of text is shown on a terminal that has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As the terminal shows text.
    Plain,
    /// Titles and the first line.
    Bold,
    /// What supports an answer.
    Dim,
    /// What grows most.
    Alarm,
    /// What limits the answer.
    Notice,
}

impl Paint {
    /// "Select graphic rendition" of ECMA-48.
    const fn sequence(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Alarm => "\x1b[1;31m",
            Self::Notice => "\x1b[33m",
        }
    }
}

/// A piece of a line, escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    text: String,
    paint: Paint,
}

impl Span {
    /// The text, made printable.
    pub fn new(paint: Paint, text: &str) -> Self {
        Self { text: printable(text).replace(GLUE, " "), paint }
    }

    /// The text in so many columns, flush left; cut where it is wider.
    pub fn left(paint: Paint, text: &str, columns: usize) -> Self {
        let mut span = Self::new(paint, text);
        span.text = cut(&span.text, columns);
        span.text.push_str(&padding(columns, &span.text));
        span
    }

    /// The text in so many columns, flush right; cut where it is wider.
    pub fn right(paint: Paint, text: &str, columns: usize) -> Self {
        let mut span = Self::new(paint, text);
        span.text = cut(&span.text, columns);
        span.text = padding(columns, &span.text) + &span.text;
        span
    }
}

/// Where the lines go, and how wide they may be.
pub struct Page<'a> {
    out: &'a mut dyn Write,
    style: &'a Style,
}

impl<'a> Page<'a> {
    /// A page on `out`.
    pub fn new(out: &'a mut dyn Write, style: &'a Style) -> Self {
        Self { out, style }
    }

    /// Columns a line may have.
    pub fn columns(&self) -> usize {
        self.style.width_columns.max(NARROWEST_COLUMNS)
    }

    /// How many entries of a list are shown, where `usual` are unless somebody said how many.
    pub fn most(&self, usual: usize) -> usize {
        self.style.top.unwrap_or(usual)
    }

    /// Columns prose may have.
    pub fn prose_columns(&self) -> usize {
        if self.style.width_columns == UNWRAPPED { UNWRAPPED } else { self.columns().min(PROSE_COLUMNS) }
    }

    /// A line; what does not fit is cut.
    pub fn line(&mut self, spans: &[Span]) -> io::Result<()> {
        let mut free_columns = self.columns();
        let last_visible = spans.iter().rposition(|span| !span.text.trim_end().is_empty());
        for (index, span) in spans.iter().enumerate().take(last_visible.map_or(0, |last| last + 1)) {
            let text = cut(&span.text, free_columns);
            free_columns -= width(&text);
            let text = if Some(index) == last_visible { text.trim_end() } else { &text };
            self.paint(span.paint, text)?;
        }
        self.out.write_all(b"\n")
    }

    /// An empty line.
    pub fn blank(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n")
    }

    /// Sentences, wrapped at spaces; the first line starts after `first`, the others after as many spaces.
    pub fn prose(&mut self, paint: Paint, first: &str, text: &str) -> io::Result<()> {
        let lines = wrap(&printable(text), self.prose_columns().saturating_sub(width(first)));
        for (index, line) in lines.iter().enumerate() {
            let margin = if index == 0 { first.to_owned() } else { " ".repeat(width(first)) };
            self.line(&[Span::new(Paint::Plain, &margin), Span::new(paint, line)])?;
        }
        Ok(())
    }

    /// The first of the wordings that fits one line; if none does, the last one, wrapped.
    pub fn shortest_needed(&mut self, paint: Paint, wordings: &[String]) -> io::Result<()> {
        let columns = self.prose_columns();
        let fitting = wordings.iter().find(|wording| width(&printable(wording)) <= columns);
        fitting.or(wordings.last()).map_or(Ok(()), |wording| self.prose(paint, "", wording))
    }

    fn paint(&mut self, paint: Paint, text: &str) -> io::Result<()> {
        if self.style.color && paint != Paint::Plain && !text.trim().is_empty() {
            write!(self.out, "{}{text}\x1b[0m", paint.sequence())
        } else {
            self.out.write_all(text.as_bytes())
        }
    }
}

/// Columns the text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text, or as much of its start as fits, ending in "…".
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut kept = head(text, columns.saturating_sub(1)).to_owned();
    if columns > 0 {
        kept.push('…');
    }
    kept
}

/// The text, or as much of its end as fits, starting with "…".
pub fn cut_start(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut free_columns = columns.saturating_sub(1);
    let mut start = text.len();
    for (index, character) in text.char_indices().rev() {
        let wide = character.width().unwrap_or(0);
        if wide > free_columns {
            break;
        }
        free_columns -= wide;
        start = index;
    }
    if columns == 0 { String::new() } else { format!("…{}", &text[start..]) }
}

/// The longest start of the text that fits.
fn head(text: &str, columns: usize) -> &str {
    let mut used_columns = 0;
    for (index, character) in text.char_indices() {
        used_columns += character.width().unwrap_or(0);
        if used_columns > columns {
            return &text[..index];
        }
    }
    text
}

fn padding(columns: usize, text: &str) -> String {
    " ".repeat(columns.saturating_sub(width(text)))
}

/// The words of a text; a unit stays with its number, whoever wrote the text.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is_unit =
            matches!(word.trim_end_matches([',', ';', '.', ')']), "s" | "%" | "B" | "KiB" | "MiB" | "GiB");
        match words.last_mut() {
            Some(number) if is_unit && number.ends_with(|last: char| last.is_ascii_digit()) => {
                number.push(GLUE);
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// The text in lines of at most so many columns, broken at spaces, or inside a word that alone is too wide.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    // Two columns hold any one character, so every step of the loop below gets on.
    let columns = columns.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words(text) {
        let mut word = word.as_str();
        if !line.is_empty() {
            if width(&line) + 1 + width(word) <= columns {
                line.push(' ');
                line.push_str(word);
                continue;
            }
            lines.push(std::mem::take(&mut line));
        }
        while width(word) > columns {
            let start = head(word, columns);
            lines.push(start.to_owned());
            word = &word[start.len()..];
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cutting_counts_columns_and_says_that_it_cut() {
        assert_eq!(cut("dialConn", 8), "dialConn");
        assert_eq!(cut("dialConn", 5), "dial…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(cut_start("/very/long/path/main.go", 8), "…main.go");
    }

    #[test]
    fn wrapping_breaks_at_spaces_and_never_between_number_and_unit() {
        assert_eq!(wrap("holds 323\u{a0}MiB now", 12), ["holds", "323\u{a0}MiB now"]);
        assert_eq!(wrap("grew in 10 s; then", 9), ["grew in", "10\u{a0}s;", "then"]);
        assert_eq!(wrap("a verylongword b", 6), ["a", "verylo", "ngword", "b"]);
        assert_eq!(wrap("", 10), Vec::<String>::new());
    }

    #[test]
    fn colours_end_where_they_began_and_spaces_do_not_trail() {
        let style = Style { width_columns: 80, color: true, full_stacks: false, top: None };
        let mut out = Vec::new();
        let spans = [
            Span::left(Paint::Bold, "RSS", 6),
            Span::right(Paint::Plain, "1", 3),
            Span::left(Paint::Dim, "", 9),
        ];
        Page::new(&mut out, &style).line(&spans).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "\x1b[1mRSS   \x1b[0m  1\n");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_page(text in any::<String>(), width_columns in 0_usize..200) {
            let style = Style { width_columns, color: false, full_stacks: false, top: None };
            let mut out = Vec::new();
            let mut page = Page::new(&mut out, &style);
            let columns = page.columns();
            page.prose(Paint::Plain, "  - ", &text).unwrap();
            page.line(&[Span::new(Paint::Plain, &text), Span::right(Paint::Plain, &text, 9)]).unwrap();
            for line in String::from_utf8(out).unwrap().lines() {
                prop_assert!(width(line) <= columns, "{line:?}");
            }
        }
    }
}
