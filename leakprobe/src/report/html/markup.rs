//! Foreign text in a page.

use std::fmt;

use crate::report::escape::printable;

/// Text that stays text: what would be markup is escaped, and so is what cannot be seen.
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = printable(self.0);
        let mut rest = text.as_ref();
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            formatter.write_str(&rest[..at])?;
            formatter.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        formatter.write_str(rest)
    }
}

/// A part of a whole in percent, for widths.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0).min(100.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_becomes_text() {
        let hostile = "<script>alert('x & \"y\"')</script>\u{202e}\x1b[2J";
        let expected = "&lt;script&gt;alert(&#39;x &amp; &quot;y&quot;&#39;)&lt;/script&gt;\\u{202e}\\x1b[2J";
        assert_eq!(Text(hostile).to_string(), expected);
    }

    proptest! {
        #[test]
        fn nothing_that_is_markup_survives(text in any::<String>()) {
            prop_assert!(!Text(&text).to_string().contains(['<', '>', '"', '\'', '\n', '\0']));
        }
    }
}
