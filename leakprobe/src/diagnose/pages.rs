//! The pages of the findings, compiled in: what each means, how it is known, how to be sure, what to do.

/// A finding's page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The finding's id.
    pub id: &'static str,
    /// Markdown that reads well as it is.
    pub text: &'static str,
}

impl Page {
    /// The page's first line, without the id: what is the matter, in a few words.
    pub fn title(&self) -> &'static str {
        let line = self.text.lines().next().unwrap_or_default();
        line.split_once(": ").map_or(line, |(_, title)| title)
    }
}

/// The page of `id`.
pub fn page(id: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.id == id)
}

macro_rules! pages {
    ($($id:literal,)*) => {
        /// Every page, in the order of the rules.
        pub static PAGES: &[Page] = &[
            $(Page { id: $id, text: include_str!(concat!("../../../docs/findings/", $id, ".md")) },)*
        ];
    };
}

pages! {
    "go-race-detector",
    "sanitizer-build",
    "goroutine-leak",
    "go-heap-growth",
    "go-heap-idle",
    "go-mmap-growth",
    "c-heap-leak",
    "c-heap-retention",
    "c-mmap-growth",
    "thread-stacks",
    "file-backed",
    "shmem-growth",
    "madv-free",
    "huge-page-inflation",
    "cgroup-limit",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::ids;

    /// The parts every page has, in this order.
    const PARTS: [&str; 4] = ["## How leakprobe knows", "## To be sure", "## What to do", "## References"];

    #[test]
    fn every_finding_has_a_page_and_every_page_a_finding() {
        let pages: Vec<&str> = PAGES.iter().map(|page| page.id).collect();
        assert_eq!(pages, ids().collect::<Vec<_>>());
    }

    #[test]
    fn pages_have_their_parts_and_fit_a_terminal() {
        for Page { id, text } in PAGES {
            assert!(text.starts_with(&format!("# {id}: ")), "{id} says what it is");
            let places: Vec<_> = PARTS.iter().map(|part| text.find(part)).collect();
            assert!(
                places.iter().all(Option::is_some) && places.is_sorted(),
                "{id} has all parts: {places:?}"
            );
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{id} fits 80 columns");
            assert!((20..=60).contains(&text.lines().count()), "{id} has {} lines", text.lines().count());
        }
    }
}
