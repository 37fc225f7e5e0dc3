//! Where the kernel's tracing file system is; mounted where it is not.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use super::AttachError;

/// Its place since Linux 4.1, and the older one.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The mounted tracefs. Mounts it at its usual place where it is not: an empty directory that exists for
/// nothing else.
///
/// # Errors
/// [`AttachError::NoTracefs`] where it is not mounted and cannot be.
pub fn find() -> Result<PathBuf, AttachError> {
    if let Some(place) = PLACES.iter().find(|place| is_mounted(place)) {
        return Ok(PathBuf::from(place));
    }
    if let Some(error) = PLACES.iter().find_map(|place| unreadable(place)) {
        return Err(AttachError::NotPermitted { error: format!("reading {}: {error}", PLACES[0]) });
    }
    mount("nodev", PLACES[0], "tracefs", MountFlags::empty(), None)
        .map_err(|error| AttachError::NoTracefs { error: error.into() })?;
    Ok(PathBuf::from(PLACES[0]))
}

fn is_mounted(place: &str) -> bool {
    Path::new(place).join("events/syscalls").is_dir()
}

/// tracefs is there, and not for us to look into.
fn unreadable(place: &str) -> Option<std::io::Error> {
    let error = std::fs::metadata(Path::new(place).join("events")).err()?;
    (error.kind() == std::io::ErrorKind::PermissionDenied).then_some(error)
}
