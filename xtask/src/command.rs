//! Running other programs: in the open where a person wants to see them work, quietly where only a
//! failure is of interest.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use leakprobe_tests::places;

/// A program and its arguments, to be run in the repository's root.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(places::repository());
    command
}

/// The cargo that runs this program.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    command(&env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()), arguments)
}

/// Runs it with this program's terminal.
pub(crate) fn in_the_open(mut command: Command) -> Result<()> {
    let shown = shown(&command);
    let status = command.status().with_context(|| format!("run `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed: {status}");
    Ok(())
}

/// Runs it with its output kept, and shows that only if it fails.
pub(crate) fn quietly(mut command: Command) -> Result<String> {
    let shown = shown(&command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run `{shown}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("`{shown}` failed: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}

/// The same in another folder.
pub(crate) fn quietly_in(folder: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = command(program, arguments);
    command.current_dir(folder);
    quietly(command)
}

/// Its output, if it can be run and succeeds.
pub(crate) fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    // A question to rustup must not make it fetch a toolchain.
    let output =
        command(program, arguments).env("RUSTUP_AUTO_INSTALL", "0").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where the shell would find a program.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An error that says how to call a verb that needs root.
pub(crate) fn ensure_root(verb: &str, why: &str) -> Result<()> {
    ensure!(
        is_root(),
        "`cargo xtask {verb}` needs root: {why}; run `sudo -E env PATH=$PATH cargo xtask {verb}`"
    );
    Ok(())
}

/// Builds the release leakprobe, BPF object and all, unless LEAKPROBE_BIN names another; says where it lies.
pub(crate) fn build_leakprobe() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LEAKPROBE_BIN") {
        return Ok(PathBuf::from(path));
    }
    in_the_open(cargo(&["build", "--quiet", "--release", "--package", "leakprobe"]))?;
    Ok(places::target().join("release/leakprobe"))
}

fn shown(command: &Command) -> String {
    // Cargo names itself by its whole path, which nobody would type.
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
