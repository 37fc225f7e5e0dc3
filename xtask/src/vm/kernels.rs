//! The kernels of the test machines: Debian's for clouds, one of each long-lived line and the newest, fetched with apt-get
//! into the user's cache. Nothing of them is installed.
//!
//! The surprise: point releases are replaced in Debian's archive, so the newest of each line is looked up, and what is
//! in the cache stays what it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use leakprobe_tests::places;

use crate::command::{command, quietly};
use crate::setup::apt::{download_with, is_here, with_options};
use crate::setup::backports::{Lists, debian_address};
use crate::setup::unpacked::{Unfinished, files_in, unpack_packages};

/// A kernel of the matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    /// As in `tests/kernels.toml`.
    pub name: &'static str,
    /// Debian's suite that has it.
    suite: &'static str,
    /// Which version of control groups its machine has.
    pub cgroups: u32,
    /// How its package's name begins.
    package: &'static str,
    /// What else it is told when it boots.
    pub words: &'static str,
    /// The only tests that make sense with that; all, if there is none.
    pub only: Option<&'static str>,
}

/// Oldest first.
pub(super) const KERNELS: [Kernel; 5] = [
    Kernel::new("5.10", "bullseye", 1, "linux-image-5.10."),
    Kernel::new("6.1", "bookworm", 2, "linux-image-6.1."),
    Kernel::new("6.12", "trixie", 2, "linux-image-6.12."),
    Kernel {
        words: "lockdown=confidentiality",
        only: Some("confidentiality::"),
        ..Kernel::new("6.12-confidential", "trixie", 2, "linux-image-6.12.")
    },
    // Since Linux 7 the image is in a package of its own.
    Kernel::new("7.2", "sid", 2, "linux-binary-7.2."),
];

/// How the names of the packages of kernels for clouds end: few drivers, all of BPF, ext4 and NVMe built in.
const FLAVOUR: &str = "-cloud-amd64";

impl Kernel {
    const fn new(name: &'static str, suite: &'static str, cgroups: u32, package: &'static str) -> Self {
        Self { name, suite, cgroups, package, words: "", only: None }
    }

    pub(super) fn by_name(name: &str) -> Result<Self> {
        let names = KERNELS.map(|kernel| kernel.name).join(", ");
        KERNELS
            .into_iter()
            .find(|kernel| kernel.name == name)
            .with_context(|| format!("there is no kernel {name} here: there are {names}"))
    }

    /// Where its image is, fetched where it is not there yet.
    pub(super) fn image(self) -> Result<PathBuf> {
        let folder = places::cache()?.join("kernels");
        // One image, however it is booted.
        let line = self.name.split('-').next().unwrap_or(self.name);
        let image = folder.join(format!("vmlinuz-{line}"));
        if !image.is_file() {
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
            self.fetch(&folder, &image).with_context(|| format!("fetch Linux {} from Debian", self.name))?;
        }
        Ok(image)
    }

    fn fetch(self, folder: &Path, image: &Path) -> Result<()> {
        ensure!(is_here(), "this machine has no apt-get: put the kernel's image at {}", image.display());
        let address = debian_address().with_context(|| {
            format!(
                "this machine's sources list has no Debian: put the kernel's image at {}",
                image.display()
            )
        })?;
        let source = format!("deb [signed-by={KEYS}] {address} {} main\n", self.suite);
        let lists = Lists::fetch(&source, &ONLY_THESE)?;
        let names = ask_cache(lists.options(), self.package)?;
        let package = newest(&names, self.package).with_context(|| {
            format!("Debian's suite {} has no package {}*{FLAVOUR} any more", self.suite, self.package)
        })?;
        println!("Fetching {package} from Debian's suite {} …", self.suite);
        let unfinished = Unfinished::create(folder, self.name)?;
        let packages = unfinished.folder.join("packages");
        fs::create_dir(&packages).with_context(|| format!("create {}", packages.display()))?;
        download_with(lists.options(), &[package], &packages)?;
        let unpacked = unfinished.folder.join("unpacked");
        unpack_packages(&packages, &unpacked)?;
        let found = image_in(&unpacked)?.with_context(|| format!("{package} holds no vmlinuz"))?;
        fs::rename(&found, image)
            .with_context(|| format!("rename {} to {}", found.display(), image.display()))
    }
}

/// The keys that Debian signs its suites with.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Leaves the machine's other sources and what describes packages to people out of the lists.
const ONLY_THESE: [&str; 5] = [
    "-oDir::Etc::sourceparts=/dev/null",
    "-oDir::Cache::pkgcache=",
    "-oDir::Cache::srcpkgcache=",
    "-oAcquire::Languages=none",
    "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
];

fn ask_cache(options: &[String], prefix: &str) -> Result<String> {
    let mut names = command("apt-cache", &with_options(options, &["pkgnames", prefix]));
    names.env("LC_ALL", "C");
    quietly(names)
}

/// The newest package of a line; kernels that are not signed or have debugging information end otherwise.
fn newest<'a>(names: &'a str, prefix: &str) -> Option<&'a str> {
    let of_line = names.lines().filter(|name| name.starts_with(prefix) && name.ends_with(FLAVOUR));
    of_line.max_by_key(|name| numbers(name))
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn image_in(folder: &Path) -> Result<Option<PathBuf>> {
    for path in files_in(folder)? {
        let is_image = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
        if is_image && path.is_file() {
            return Ok(Some(path));
        }
        if path.is_dir()
            && !path.is_symlink()
            && let Some(image) = image_in(&path)?
        {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_line_is_found_by_its_numbers() {
        let names = "\
linux-image-6.12.99+deb13-cloud-amd64
linux-image-6.12.117+deb13-cloud-amd64
linux-image-6.12.117+deb13-cloud-amd64-unsigned
linux-image-6.12.200+deb13-amd64
linux-image-6.1.0-50-cloud-amd64
";
        let found = newest(names, "linux-image-6.12.");
        assert_eq!(found, Some("linux-image-6.12.117+deb13-cloud-amd64"));
        assert_eq!(newest(names, "linux-image-6.1."), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(newest(names, "linux-image-5.10."), None);
    }

    #[test]
    fn the_file_of_features_knows_every_kernel() {
        let kernels = leakprobe_tests::kernels::Kernels::read().unwrap();
        for kernel in KERNELS {
            kernels.why_not(kernel.name, leakprobe_tests::kernels::Feature::Fentry).unwrap();
        }
    }
}
