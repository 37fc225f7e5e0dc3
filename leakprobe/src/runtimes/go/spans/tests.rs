//! A heap made by hand with a span of each kind, and what damage does to it.

use proptest::prelude::*;

use super::super::find::Globals;
use super::super::image::Arch;
use super::super::layout::Layout;
use super::*;
use crate::target::memory::canned::Pieces;

const MHEAP_ADDR: u64 = 0xaa_0000;
const WORK_ADDR: u64 = 0xbb_0000;
const RANGES_ADDR: u64 = 0xcc_0000;
const POINTERS_ADDR: u64 = 0xdd_0000;
const SPANS_ADDR: u64 = 0x7f00_0000_0000;
const HEAP_ADDR: u64 = 0xc0_0000_0000;
const HEAP_PAGES: u64 = 512;

/// A span: first page, pages, state, the list it is on.
type Span = (u64, u64, u8, u64);

fn layout() -> Layout {
    Layout::for_version(27, Arch::Amd64).unwrap()
}

fn busy_list() -> u64 {
    WORK_ADDR + layout().work_buffers_offset + 24
}

/// Objects on pages 2 to 5 and 6, a work buffer on 6 to 10, a stack on 10 to 14, and a dead span.
fn spans() -> Vec<Span> {
    vec![(2, 3, 1, 0), (5, 1, 1, 0), (6, 4, 2, busy_list()), (10, 4, 2, 0), (2, 12, 0, 0)]
}

fn put(bytes: &mut [u8], offset: u64, word: u64) {
    let offset = usize::try_from(offset).unwrap();
    bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
}

fn memory(spans: &[Span], pages_in_use: u64) -> Pieces {
    let layout = layout();
    let len = u64::try_from(spans.len()).unwrap();
    let mut mheap = vec![0; 93464];
    let in_use_offset = layout.pages_offset + layout.page_ranges_offset;
    for (index, word) in (0_u64..).zip([RANGES_ADDR, 1, 16, HEAP_PAGES * GO_PAGE_BYTES]) {
        put(&mut mheap, in_use_offset + 8 * index, word);
    }
    for (index, word) in (0_u64..).zip([POINTERS_ADDR, len, 8192, pages_in_use]) {
        put(&mut mheap, layout.allspans_offset + 8 * index, word);
    }
    let mut ranges = vec![0; 16];
    put(&mut ranges, 0, HEAP_ADDR);
    put(&mut ranges, 8, HEAP_ADDR + HEAP_PAGES * GO_PAGE_BYTES);
    let mut pointers = vec![0; spans.len() * 8];
    let mut headers = vec![0; spans.len() * usize::try_from(layout.mspan_bytes).unwrap()];
    for (index, &(page, pages, state, list)) in (0_u64..).zip(spans) {
        let offset = index * layout.mspan_bytes;
        // The list of spans is not in the order of their addresses.
        put(&mut pointers, (len - 1 - index) * 8, SPANS_ADDR + offset);
        put(&mut headers, offset + layout.span_list_offset as u64, list);
        put(&mut headers, offset + layout.span_start_offset as u64, HEAP_ADDR + page * GO_PAGE_BYTES);
        put(&mut headers, offset + layout.span_pages_offset as u64, pages);
        let header = &mut headers[usize::try_from(offset).unwrap()..];
        header[layout.span_state_offset] = state;
        // An object of 1000 bytes in each page.
        header[layout.span_class_offset] = 5 << 1;
        put(header, layout.span_element_bytes_offset as u64, 1000);
        header[layout.span_alloc_count_offset..][..2].copy_from_slice(&(pages as u16).to_le_bytes());
    }
    Pieces(vec![(MHEAP_ADDR, mheap), (RANGES_ADDR, ranges), (POINTERS_ADDR, pointers), (SPANS_ADDR, headers)])
}

fn read(memory: &Pieces, known: &[(Global, u64)]) -> Findings {
    let globals = Globals::at(MHEAP_ADDR, known.to_vec());
    divide(&Reader { memory, layout: &layout(), globals: &globals }).unwrap().findings
}

const WORK: [(Global, u64); 1] = [(Global::Work, WORK_ADDR)];

/// Claims as component, first page, pages.
fn told(findings: &Findings) -> Vec<(Component, u64, u64)> {
    let page = |addr: u64| (addr - HEAP_ADDR) / GO_PAGE_BYTES;
    let told = findings.claims.iter().map(|claim| {
        (claim.component, page(claim.range.start_addr), claim.range.len_bytes() / GO_PAGE_BYTES)
    });
    told.collect()
}

#[test]
fn each_page_has_its_use() {
    let found = read(&memory(&spans(), 4), &WORK);
    assert_eq!(found.gaps, []);
    let expected = [
        (Component::GoHeapIdle, 0, 2),
        (Component::GoHeapInUse, 2, 4),
        (Component::GoRuntime, 6, 4),
        (Component::GoStacks, 10, 4),
        (Component::GoHeapIdle, 14, HEAP_PAGES - 14),
    ];
    assert_eq!(told(&found), expected);
}

#[test]
fn what_holds_no_object_is_slack() {
    let far = (100, 40, 1, 0);
    let spans: Vec<Span> = spans().into_iter().chain([far]).collect();
    let memory = memory(&spans, 44);
    let globals = Globals::at(MHEAP_ADDR, WORK.to_vec());
    let divided = divide(&Reader { memory: &memory, layout: &layout(), globals: &globals }).unwrap();
    let slack = divided.findings.slack.iter();
    let told: Vec<(u64, u64, u64)> = slack
        .map(|it| ((it.range.start_addr - HEAP_ADDR) / GO_PAGE_BYTES, it.range.len_bytes(), it.dead_bytes))
        .collect();
    // Two spans side by side are one stretch; 40 pages are more than one.
    let stretch = |page: u64, pages: u64| (page, pages * GO_PAGE_BYTES, pages * 7192);
    assert_eq!(told, [stretch(2, 4), stretch(100, 32), stretch(132, 8)]);
    let class = SizeClass {
        object_bytes: 1000,
        objects: 44,
        live_bytes: 44_000,
        spans: 3,
        span_bytes: 44 * GO_PAGE_BYTES,
    };
    assert_eq!(divided.classes, [class]);
}

#[test]
fn without_symbols_work_buffers_are_stacks_and_a_gap() {
    let found = read(&memory(&spans(), 4), &[]);
    assert_eq!(found.gaps.len(), 1);
    assert!(found.gaps[0].why.contains("runtime.work"), "{}", found.gaps[0].why);
    assert_eq!(told(&found)[2], (Component::GoStacks, 6, 8));
}

#[test]
fn what_contradicts_itself_is_a_gap_with_its_bytes() {
    for (span, pages_in_use, odd_pages) in [
        (None, 7, 3),
        (None, 1, 3),
        (Some((12, 4, 2, 0)), 4, 2),
        (Some((HEAP_PAGES - 1, 2, 2, 0)), 4, 2),
        (Some((HEAP_PAGES + 5, u64::MAX, 2, 0)), 4, 1),
    ] {
        let spans: Vec<Span> = spans().into_iter().chain(span).collect();
        let found = read(&memory(&spans, pages_in_use), &WORK);
        let bytes: Vec<Option<u64>> = found.gaps.iter().map(|gap| gap.bytes).collect();
        assert_eq!(bytes, [Some(odd_pages * GO_PAGE_BYTES)], "{span:?}");
    }
}

#[test]
fn spans_that_cannot_be_read_leave_the_heap_whole() {
    let mut list_elsewhere = memory(&spans(), 4);
    let addr = usize::try_from(layout().allspans_offset).unwrap();
    list_elsewhere.0[0].1[addr] = 1;
    let all_over = vec![(0, HEAP_PAGES, 1, 0); 4];
    for damaged in [list_elsewhere, memory(&[(2, 3, 7, 0)], 3), memory(&all_over, HEAP_PAGES)] {
        let found = read(&damaged, &WORK);
        assert_eq!(told(&found), [(Component::GoHeapInUse, 0, HEAP_PAGES)]);
        assert!(found.gaps[0].why.contains("whole heap"), "{:?}", found.gaps);
    }
}

proptest! {
    #[test]
    fn any_spans_divide_the_whole_heap(
        spans in proptest::collection::vec((0..2 * HEAP_PAGES, 0..HEAP_PAGES, 0_u8..4, any::<u64>()), 0..40),
        pages_in_use: u64,
    ) {
        let found = read(&memory(&spans, pages_in_use), &WORK);
        let mut page = 0;
        for (_, first, pages) in told(&found) {
            prop_assert_eq!(first, page);
            page += pages;
        }
        prop_assert_eq!(page, HEAP_PAGES);
        for stretch in &found.slack {
            prop_assert!(stretch.dead_bytes <= stretch.range.len_bytes());
        }
    }
}
