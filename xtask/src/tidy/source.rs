//! A source file as the rules see it: its lines, where its own tests begin, and which paths it names.

/// A file of ours.
pub(super) struct Source {
    /// From the repository's root.
    pub path: String,
    pub text: String,
    /// Lines before the tests at its foot; none, where a whole file is such tests.
    product_lines: usize,
}

impl Source {
    pub(super) fn new(path: String, text: String) -> Self {
        let all = text.lines().count();
        let is_tests_module = path.ends_with("/tests.rs");
        let before_tests = text.lines().position(|line| line == "#[cfg(test)]").unwrap_or(all);
        let product_lines = if is_tests_module { 0 } else { before_tests };
        Self { path, text, product_lines }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Numbered lines without the tests at the file's foot.
    pub(super) fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.numbered().take(self.product_lines)
    }

    /// Numbered lines that test something.
    pub(super) fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let all_is_test = self.path.starts_with("tests/");
        self.numbered().skip(if all_is_test { 0 } else { self.product_lines })
    }

    pub(super) fn product_line_count(&self) -> usize {
        self.product_lines
    }

    /// What is named behind `prefix::`, with the line; the names of a group in braces one by one.
    pub(super) fn named_behind(&self, prefix: &str) -> Vec<(usize, String)> {
        let code: Vec<(usize, &str)> =
            self.product().filter(|(_, line)| !line.trim_start().starts_with("//")).collect();
        let text: String = code.iter().flat_map(|(_, line)| [line, "\n"]).collect();
        let prefix = format!("{prefix}::");
        let mut names = Vec::new();
        for (start, _) in text.match_indices(&prefix) {
            if text[..start].ends_with(is_part_of_a_name) {
                continue;
            }
            let line = code[text[..start].matches('\n').count()].0;
            let behind = &text[start + prefix.len()..];
            names.extend(first_names(behind).into_iter().map(|name| (line, name)));
        }
        names
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

fn is_part_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == ':' || character == '$'
}

/// The first segment of a path, or of each path in a group: `a::b` is a, `{a::{b, c}, d}` is a and d.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![leading_name(path)];
    };
    let mut depth = 0;
    let mut names = vec![leading_name(group.trim_start())];
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(leading_name(group[index + 1..].trim_start())),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn leading_name(path: &str) -> String {
    path.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<(usize, String)> {
        Source::new("leakprobe/src/trace/mod.rs".to_owned(), text.to_owned()).named_behind("crate")
    }

    #[test]
    fn names_are_found_in_uses_groups_and_paths() {
        assert_eq!(named("use crate::claim::Gap;"), [(1, "claim".to_owned())]);
        let group =
            "//! x\nuse crate::{\n    claim::{Gap, Claim},\n    target,\n};\nfn f() { crate::report::g() }";
        let names = [(2, "claim".to_owned()), (2, "target".to_owned()), (6, "report".to_owned())];
        assert_eq!(named(group), names);
    }

    #[test]
    fn comments_other_crates_and_tests_do_not_count() {
        assert_eq!(named("/// See [`crate::report`].\nuse $crate::x;\nuse my_crate::y;"), []);
        assert_eq!(named("fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::report;\n}"), []);
    }
}
