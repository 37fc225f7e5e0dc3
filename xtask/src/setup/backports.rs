//! Debian's suite of backports, asked for a few packages and left out of the machine's own lists.
//!
//! A machine whose image has parts of a newer release, a QEMU's tools for example, can take the rest of it only from
//! where those came from: the release's own packages would push them out.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use leakprobe_tests::places;

use super::apt::{apt_get, with_options};
use crate::command::ask;

/// The package lists of the suite of backports, beside those of the machine and not among them.
pub(super) struct Backports {
    folder: PathBuf,
    suite: String,
}

impl Backports {
    /// `None` where the machine's sources list has no Debian release that could have such a suite.
    pub(super) fn fetch() -> Result<Option<Self>> {
        let sources = ask("apt-get", &["indextargets", "--format", SOURCE_FORMAT]).unwrap_or_default();
        let Some((address, release)) = debian_release(&sources) else { return Ok(None) };
        let folder = places::cache()?.join(format!("backports-{}", std::process::id()));
        let this = Self { folder, suite: format!("{release}-backports") };
        let lists = this.folder.join("lists/partial");
        fs::create_dir_all(&lists).with_context(|| format!("create {}", lists.display()))?;
        // In place of the machine's own list, so with what that has; its folder of lists stays.
        let own = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
        let list = format!("{own}\ndeb {address} {} main\n", this.suite);
        let file = this.folder.join("sources.list");
        fs::write(&file, list).with_context(|| format!("write {}", file.display()))?;
        apt_get(&with_options(&this.options(), &["update"])).with_context(|| {
            format!("fetch the package lists of {}, which this machine has packages of", this.suite)
        })?;
        Ok(Some(this))
    }

    /// What makes apt-get see that suite, and prefer it.
    pub(super) fn options(&self) -> Vec<String> {
        let folder = self.folder.display();
        vec![
            format!("-oDir::Etc::sourcelist={folder}/sources.list"),
            format!("-oDir::State::lists={folder}/lists"),
            format!("-oAPT::Default-Release={}", self.suite),
        ]
    }
}

impl Drop for Backports {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// A line a source of packages: address, code name of the release, component.
const SOURCE_FORMAT: &str = "$(REPO_URI) $(CODENAME) $(COMPONENT)";

/// The address of Debian's own packages and the code name of the release: that of Debian has a suite of
/// updates beside it, other people's have not.
fn debian_release(sources: &str) -> Option<(&str, &str)> {
    let has_updates =
        |release: &str| sources.lines().any(|line| line.contains(&format!(" {release}-updates ")));
    sources.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (address, release) = (words.next()?, words.next()?);
        has_updates(release).then_some((address, release))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &str = "\
http://mirror.example/node/ nodistro main
http://mirror.example/debian/ bookworm main
http://mirror.example/debian/ bookworm-updates main
http://mirror.example/debian-security/ bookworm-security main
";

    #[test]
    fn the_release_is_the_one_with_updates_beside_it() {
        assert_eq!(debian_release(SOURCES), Some(("http://mirror.example/debian/", "bookworm")));
        assert_eq!(debian_release("http://mirror.example/node/ nodistro main\n"), None);
        assert_eq!(debian_release(""), None);
    }
}
