//! Code that was mapped after the unwinder was made: the libraries of a program that has just been started, and what
//! it opens with dlopen.

use std::time::{Duration, Instant};

use super::native::NativeUnwinder;
use crate::address::AddrRange;
use crate::target::Target;
use crate::target::modules::{self, FileId};

/// How soon after the last time the maps are read again, where they were found changed, and where not.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Looks for new code where a stack leads into memory that is nobody's.
pub struct Latecomers<'a> {
    target: &'a Target,
    known: Vec<(AddrRange, FileId)>,
    looked: Option<Instant>,
    pause: Duration,
}

impl<'a> Latecomers<'a> {
    /// Of a process that has hardly begun.
    pub fn new(target: &'a Target) -> Self {
        Self { target, known: Vec::new(), looked: None, pause: SHORTEST_PAUSE }
    }

    /// An unwinder that knows all code there is now; `None` where there is nothing new, or it was looked for just now.
    /// Stacks may lead anywhere, so the longer nothing new is found, the more seldom it is looked for.
    pub fn look(&mut self) -> Option<NativeUnwinder> {
        if self.looked.is_some_and(|looked| looked.elapsed() < self.pause) {
            return None;
        }
        self.looked = Some(Instant::now());
        let regions = self.target.regions();
        let code = regions.iter().filter(|region| region.executable && region.inode != 0);
        let code: Vec<_> = code.map(|region| (region.range, (region.device, region.inode))).collect();
        if code == self.known {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            return None;
        }
        self.known = code;
        self.pause = SHORTEST_PAUSE;
        let (modules, _) = modules::open_all(self.target, &regions);
        Some(NativeUnwinder::new(&modules, &regions))
    }
}
