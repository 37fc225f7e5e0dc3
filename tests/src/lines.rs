//! Lines from a pipe, with a deadline on each.
//!
//! The surprise: a standard `BufRead` cannot be used, because it may hold a whole line in its buffer
//! while poll(2) says that there is nothing to read.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use crate::Deadline;

/// The reading end of a pipe, by line.
#[derive(Debug)]
pub struct Lines {
    pipe: File,
    pending: Vec<u8>,
    ended: bool,
}

impl Lines {
    /// Reads `pipe` from where it stands.
    pub fn new(pipe: impl Into<OwnedFd>) -> Self {
        Self { pipe: File::from(pipe.into()), pending: Vec::new(), ended: false }
    }

    /// The next line without its end, or `None` when the other side has closed the pipe.
    pub fn next(&mut self, awaited: &str, deadline: Deadline) -> Result<Option<String>> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            deadline.wait_for(self.pipe.as_fd(), awaited)?;
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> Result<()> {
        let mut block = [0; 16 * 1024];
        let length = self.pipe.read(&mut block).context("read a pipe")?;
        self.ended = length == 0;
        self.pending.extend_from_slice(&block[..length]);
        Ok(())
    }

    fn take_line(&mut self) -> Option<String> {
        let end = match self.pending.iter().position(|&byte| byte == b'\n') {
            Some(newline) => newline + 1,
            None if self.ended && !self.pending.is_empty() => self.pending.len(),
            None => return None,
        };
        let line: Vec<u8> = self.pending.drain(..end).collect();
        Some(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    #[test]
    fn splits_what_came_in_one_write_and_keeps_an_unfinished_last_line() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"one\ntwo\nthr").unwrap();
        drop(writer);
        let mut lines = Lines::new(reader);
        let mut next = || lines.next("a line", Deadline::usual()).unwrap();
        assert_eq!(next().as_deref(), Some("one"));
        assert_eq!(next().as_deref(), Some("two"));
        assert_eq!(next().as_deref(), Some("thr"));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_silent_pipe_is_a_failure_that_names_what_was_awaited() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut lines = Lines::new(reader);
        let error = lines.next("the hello of nobody", Deadline::after(Duration::ZERO)).unwrap_err();
        assert!(error.to_string().starts_with("the hello of nobody did not come within"), "{error}");
    }
}
