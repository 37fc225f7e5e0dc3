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
    lists: Lists,
    suite: String,
}

impl Backports {
    /// `None` where the machine's sources list has no Debian release that could have such a suite.
    pub(super) fn fetch() -> Result<Option<Self>> {
        let sources = machine_sources();
        let Some((address, release)) = debian_release(&sources) else { return Ok(None) };
        let suite = format!("{release}-backports");
        // In place of the machine's own list, so with what that has; its folder of lists stays.
        let own = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
        let lists =
            Lists::fetch(&format!("{own}\ndeb {address} {suite} main\n"), &[]).with_context(|| {
                format!("fetch the package lists of {suite}, which this machine has packages of")
            })?;
        Ok(Some(Self { lists, suite }))
    }

    /// What makes apt-get see that suite, and prefer it.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options = self.lists.options().to_vec();
        options.push(format!("-oAPT::Default-Release={}", self.suite));
        options
    }
}

/// Package lists of our own, in a folder that is removed with the value; the machine's stay as they are.
pub(crate) struct Lists {
    folder: PathBuf,
    options: Vec<String>,
}

impl Lists {
    /// Fetches what `sources`, in the format of sources.list(5), has in store; `options` are apt-get's.
    pub(crate) fn fetch(sources: &str, options: &[&str]) -> Result<Self> {
        let folder = places::cache()?.join(format!("package-lists-{}", std::process::id()));
        let mut this = Self { folder, options: options.iter().map(|&option| option.to_owned()).collect() };
        let lists = this.folder.join("lists/partial");
        fs::create_dir_all(&lists).with_context(|| format!("create {}", lists.display()))?;
        let file = this.folder.join("sources.list");
        fs::write(&file, sources).with_context(|| format!("write {}", file.display()))?;
        this.options.push(format!("-oDir::Etc::sourcelist={}", file.display()));
        this.options.push(format!("-oDir::State::lists={}/lists", this.folder.display()));
        apt_get(&with_options(&this.options, &["update"]))?;
        Ok(this)
    }

    /// What makes apt-get and apt-cache see these.
    pub(crate) fn options(&self) -> &[String] {
        &self.options
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Where this machine has Debian's own packages from.
pub(crate) fn debian_address() -> Option<String> {
    debian_release(&machine_sources()).map(|(address, _)| address.to_owned())
}

fn machine_sources() -> String {
    ask("apt-get", &["indextargets", "--format", SOURCE_FORMAT]).unwrap_or_default()
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
