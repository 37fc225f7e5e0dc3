//! How much of the spans of objects holds none: by stretch of memory, and by size of object.
//!
//! A span is some pages for objects of one size (Go `src/runtime/mheap.go`, `mspan`; 1.19 to 1.27), and says how
//! many of them are allocated. The surprise: a large object has a span of its own, of the size class 0.

use super::{Pages, Use};
use crate::address::AddrRange;
use crate::claim::Slack;
use crate::runtimes::go::heap::GO_PAGE_BYTES;
use crate::runtimes::go::layout::Layout;

/// `spanclass` is a byte, and half of it the size class.
const MAX_CLASSES: usize = 128;
/// Spans of objects that are neighbours count together, up to so many pages: 256 KiB.
const STRETCH_PAGES: usize = 32;

/// Objects of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeClass {
    /// Size of an object; 0 for large ones, each of a size of its own.
    pub object_bytes: u64,
    /// How many are allocated.
    pub objects: u64,
    /// Bytes of them together.
    pub live_bytes: u64,
    /// Spans for them.
    pub spans: u64,
    /// Bytes of these spans, resident or not.
    pub span_bytes: u64,
}

/// What a span says of its objects.
#[derive(Clone, Copy, Debug)]
pub struct Objects {
    class: usize,
    object_bytes: u64,
    objects: u64,
    live_bytes: u64,
    dead_bytes: u64,
}

impl Objects {
    /// Those of the span with this header, of so many pages.
    pub fn read(header: &[u8], layout: &Layout, pages: u64) -> Option<Self> {
        let count = header.get(layout.span_alloc_count_offset..)?.first_chunk();
        let objects = u64::from(count.map(|bytes| u16::from_le_bytes(*bytes))?);
        let class = usize::from(header.get(layout.span_class_offset)? >> 1);
        let size = header.get(layout.span_element_bytes_offset..)?.first_chunk();
        let object_bytes = size.map(|bytes| u64::from_le_bytes(*bytes))?;
        let span_bytes = pages.checked_mul(GO_PAGE_BYTES)?;
        // More than there is room for: it is being made.
        let live_bytes = objects.saturating_mul(object_bytes).min(span_bytes);
        Some(Self { class, object_bytes, objects, live_bytes, dead_bytes: span_bytes - live_bytes })
    }

    /// Spreads what holds no object evenly over the pages: where in the span it lies is not read.
    pub fn spread(self, dead_bytes: &mut [u16]) {
        let pages = dead_bytes.len() as u64;
        if pages == 0 {
            return;
        }
        let (each_bytes, one_more) = (self.dead_bytes / pages, self.dead_bytes % pages);
        for (index, page) in (0..).zip(dead_bytes) {
            *page = u16::try_from(each_bytes + u64::from(index < one_more)).unwrap_or(u16::MAX);
        }
    }
}

/// Size classes while they are counted.
pub struct Classes([SizeClass; MAX_CLASSES]);

impl Default for Classes {
    fn default() -> Self {
        Self([SizeClass::default(); MAX_CLASSES])
    }
}

impl Classes {
    /// Counts a span of so many pages.
    pub fn add(&mut self, objects: Objects, pages: u64) {
        let Some(class) = self.0.get_mut(objects.class) else { return };
        if objects.class > 0 {
            class.object_bytes = objects.object_bytes;
        }
        class.objects = class.objects.saturating_add(objects.objects);
        class.live_bytes = class.live_bytes.saturating_add(objects.live_bytes);
        class.spans += 1;
        class.span_bytes = class.span_bytes.saturating_add(pages.saturating_mul(GO_PAGE_BYTES));
    }

    /// Those with spans, by size; large objects last.
    pub fn into_listed(self) -> Vec<SizeClass> {
        let [large, sized @ ..] = self.0;
        sized.into_iter().chain([large]).filter(|class| class.spans > 0).collect()
    }
}

impl Pages {
    /// How much of the spans of objects holds none, in stretches.
    pub fn slack(&self) -> Vec<Slack> {
        let mut found = Vec::new();
        for part in &self.parts {
            let mut first = 0;
            for same in part.uses.chunk_by(|a, b| (*a == Use::Objects) == (*b == Use::Objects)) {
                let end = first + same.len();
                let is_objects = same.first() == Some(&Use::Objects);
                let pages = part.dead_bytes.get(first..end).filter(|_| is_objects).unwrap_or_default();
                for (index, stretch) in pages.chunks(STRETCH_PAGES).enumerate() {
                    let page = (first + index * STRETCH_PAGES) as u64;
                    let start_addr = part.range.start_addr + page * GO_PAGE_BYTES;
                    let range = AddrRange::with_len(start_addr, stretch.len() as u64 * GO_PAGE_BYTES);
                    let dead_bytes = stretch.iter().map(|bytes| u64::from(*bytes)).sum();
                    found.extend(range.map(|range| Slack { range, dead_bytes }));
                }
                first = end;
            }
        }
        found
    }
}
