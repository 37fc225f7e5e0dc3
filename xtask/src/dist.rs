//! `cargo xtask dist`: what is handed to others, in target/dist: one static program, an archive with its completions
//! and manual pages, and a Debian package of the same.
//!
//! The surprise: no musl. The GNU C library links statically as well, and no second target has to be installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use leakprobe_tests::places;

use crate::command::{cargo, command, find_program, in_the_open, quietly, quietly_in};

/// The target is named so that the flags are not those of build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const DEBIAN_ARCHITECTURE: &str = "amd64";

/// Shell, and where its completions lie below /usr/share in Debian.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/leakprobe"),
    ("zsh", "zsh/vendor-completions/_leakprobe"),
    ("fish", "fish/vendor_completions.d/leakprobe.fish"),
];

pub(crate) fn run() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let dist = places::target().join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("empty {}", dist.display()))?;
    }
    let program = build_static()?;
    let name = format!("leakprobe-{version}-x86_64-linux");
    stage(&dist.join(&name), &program, version)?;
    quietly_in(&dist, "tar", &["--owner=0", "--group=0", "-czf", &format!("{name}.tar.gz"), &name])?;
    let package = debian_package(&dist, &dist.join(&name), version)?;
    let files = [format!("{name}.tar.gz"), package];
    let sums = quietly_in(&dist, "sha256sum", &files.each_ref().map(String::as_str))?;
    fs::write(dist.join("SHA256SUMS"), &sums).context("write SHA256SUMS")?;
    println!("In {}:\n{name}/bin/leakprobe, static\n{sums}", dist.display());
    Ok(())
}

/// A program that needs no library of the machine it runs on.
pub(crate) fn build_static() -> Result<PathBuf> {
    println!("Building a static leakprobe …");
    let mut build = cargo(&["build", "--quiet", "--release", "--package", "leakprobe", "--target", TARGET]);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    in_the_open(build)?;
    let program = places::target().join(TARGET).join("release/leakprobe");
    let needed = quietly(command("readelf", &["--dynamic", &path(&program)?]))?;
    ensure!(!needed.contains("(NEEDED)"), "{} needs shared libraries:\n{needed}", program.display());
    Ok(program)
}

/// The folder of the archive.
fn stage(folder: &Path, program: &Path, version: &str) -> Result<()> {
    let staged = folder.join("bin/leakprobe");
    copy(program, &staged, 0o755)?;
    quietly(command("strip", &["--strip-debug", &path(&staged)?]))?;
    let said = quietly(command(&path(&staged)?, &["--version"]))?;
    ensure!(said.trim() == format!("leakprobe {version}"), "the static leakprobe calls itself {said:?}");
    for (shell, place) in COMPLETIONS {
        let completions = quietly(command(&path(&staged)?, &["completions", shell]))?;
        write(&folder.join("share").join(place), completions.as_bytes())?;
    }
    let manuals = folder.join("share/man/man1");
    fs::create_dir_all(&manuals).with_context(|| format!("create {}", manuals.display()))?;
    let write_manuals = ["run", "--quiet", "--package", "leakprobe", "--example", "manuals", "--"];
    quietly(cargo(&[write_manuals.as_slice(), &[&path(&manuals)?]].concat()))?;
    let root = places::repository();
    for file in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&root.join(file), &folder.join("share/doc/leakprobe").join(file), 0o644)?;
    }
    Ok(())
}

/// The same files below /usr, and what Debian wants to know of them. Its name in `dist`.
fn debian_package(dist: &Path, staged: &Path, version: &str) -> Result<String> {
    ensure!(
        find_program("dpkg-deb").is_some(),
        "find dpkg-deb: the Debian package is built on Debian; all else is in {}",
        dist.display()
    );
    let root = dist.join("debian");
    fs::create_dir_all(root.join("DEBIAN")).with_context(|| format!("create {}", root.display()))?;
    quietly(command("cp", &["--recursive", &path(staged)?, &path(&root.join("usr"))?]))?;
    let manuals = root.join("usr/share/man/man1");
    let listed = fs::read_dir(&manuals).with_context(|| format!("list {}", manuals.display()))?;
    for manual in listed {
        let manual = manual.with_context(|| format!("list {}", manuals.display()))?.path();
        quietly(command("gzip", &["--best", "--no-name", &path(&manual)?]))?;
    }
    let documents = root.join("usr/share/doc/leakprobe");
    let licenses = ["LICENSE-MIT", "LICENSE-APACHE"].map(|name| fs::read_to_string(documents.join(name)));
    let [mit, apache] = licenses.map(|text| text.context("read the licences"));
    let copyright =
        format!("leakprobe is under either of these licences, at your choice.\n\n{}\n\n{}", mit?, apache?);
    write(&documents.join("copyright"), copyright.as_bytes())?;
    let size = quietly(command("du", &["--summarize", "--block-size=1K", &path(&root)?]))?;
    let installed_kib = size.split_whitespace().next().unwrap_or("0");
    write(&root.join("DEBIAN/control"), control(version, installed_kib).as_bytes())?;
    let package = format!("leakprobe_{version}_{DEBIAN_ARCHITECTURE}.deb");
    quietly(command(
        "dpkg-deb",
        &["--root-owner-group", "--build", &path(&root)?, &path(&dist.join(&package))?],
    ))?;
    fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    Ok(package)
}

/// deb-control(5). Static, so it depends on nothing.
fn control(version: &str, installed_kib: &str) -> String {
    format!(
        "Package: leakprobe\n\
         Version: {version}\n\
         Architecture: {DEBIAN_ARCHITECTURE}\n\
         Maintainer: the authors of leakprobe <leakprobe@localhost>\n\
         Installed-Size: {installed_kib}\n\
         Section: utils\n\
         Priority: optional\n\
         Description: says who owns a process's memory and who makes it grow\n \
         Attaches to a running process for some seconds, by eBPF and without stopping\n \
         it, and gives every resident byte one owner: Go heap, Go runtime, race\n \
         detector, C heap, thread stacks, files, shared memory.\n"
    )
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    write(to, &fs::read(from).with_context(|| format!("read {}", from.display()))?)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", to.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}

fn path(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?.to_owned())
}
