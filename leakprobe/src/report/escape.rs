//! Which characters of a foreign name may reach a terminal.
//!
//! Names of processes, threads, functions and files come from the target and are hostile: an escape
//! sequence in one could repaint the report, a bidirectional override could show it backwards. Nothing is
//! dropped, so that two names that differ still look different; a literal backslash stays as it is. The
//! surprise: combining marks are escaped too, since thousands of them take no columns and defeat every cut.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

/// Whether the character moves the cursor, changes colours, reorders its neighbours or cannot be seen.
pub fn is_hostile(character: char) -> bool {
    // What has no column of its own: control characters (None), bidi controls, joiners, marks, tags.
    // The soft hyphen and the line separators have one in some tables and a meaning in some terminals.
    character.width().is_none_or(|columns| columns == 0)
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(character, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text with every hostile character spelt out: `\x1b`, `\u{202e}`. Applying it twice changes nothing more.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        let code = u32::from(character);
        let written = match character {
            '\n' => escaped.write_str("\\n"),
            '\t' => escaped.write_str("\\t"),
            '\r' => escaped.write_str("\\r"),
            _ if !is_hostile(character) => escaped.write_char(character),
            _ if code < 0x100 => write!(escaped, "\\x{code:02x}"),
            _ => write!(escaped, "\\u{{{code:x}}}"),
        };
        // Writing to a String cannot fail; there is nothing to tell anyone.
        debug_assert!(written.is_ok());
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_moves_the_cursor_or_reorders_text_is_spelt_out() {
        assert_eq!(printable("\x1b[2Japi"), "\\x1b[2Japi");
        assert_eq!(printable("a\nb\tc\rd"), "a\\nb\\tc\\rd");
        assert_eq!(printable("\u{9b}31m"), "\\x9b31m");
        assert_eq!(printable("x\u{202e}cod.exe"), "x\\u{202e}cod.exe");
        assert_eq!(printable("a\u{301}"), "a\\u{301}");
        assert_eq!(printable("zero\u{200b}width"), "zero\\u{200b}width");
    }

    #[test]
    fn ordinary_names_are_left_alone() {
        for name in ["net/http.(*Transport).dialConn", "größe", "日本", "C:\\dir", "core::ops<T>", "·dict"]
        {
            assert!(matches!(printable(name), Cow::Borrowed(_)), "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_hostile_survives_and_twice_is_once(text in any::<String>()) {
            let once = printable(&text).into_owned();
            prop_assert!(!once.contains(is_hostile));
            prop_assert_eq!(printable(&once), once.as_str());
        }
    }
}
