//! Cells that threads add to at once, in parts: a thread writes to its own, and waits for no other's. A number that they shared
//! would go from core to core with each request.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::part::{PARTS, part};

/// Cells of a line.
const LINE: usize = 16;

/// As long as two cache lines, which processors fetch together.
#[derive(Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

/// So many cells. A part is made when it is first added to.
pub(super) struct Parts {
    cells: usize,
    parts: [OnceLock<Box<[Line]>>; PARTS],
}

/// The calling thread's part.
pub(super) struct Part<'p>(&'p [Line]);

impl Parts {
    pub(super) fn new(cells: usize) -> Parts {
        Parts { cells, parts: std::array::from_fn(|_| OnceLock::new()) }
    }

    /// Where the calling thread adds.
    pub(super) fn own(&self) -> Part<'_> {
        let made = || std::iter::repeat_with(Line::default).take(self.cells.div_ceil(LINE)).collect();
        Part(self.parts[part()].get_or_init(made))
    }

    /// What was added to one cell by all.
    pub(super) fn sum(&self, cell: usize) -> u64 {
        let of = |part: &OnceLock<Box<[Line]>>| {
            part.get().and_then(|lines| Some(Part(lines).cell(cell)?.load(Ordering::Relaxed)))
        };
        self.parts.iter().filter_map(of).fold(0, u64::wrapping_add)
    }
}

impl Part<'_> {
    fn cell(&self, cell: usize) -> Option<&AtomicU64> {
        self.0.get(cell / LINE)?.0.get(cell % LINE)
    }

    pub(super) fn add(&self, cell: usize, more: u64) {
        if let Some(cell) = self.cell(cell) {
            cell.fetch_add(more, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_add_is_all_there() {
        let parts = Parts::new(LINE + 1);
        std::thread::scope(|scope| {
            for _ in 0..2 * PARTS + 1 {
                scope.spawn(|| (0..1_000).for_each(|_| [0, LINE].iter().for_each(|cell| parts.own().add(*cell, 3))));
            }
        });
        let expected = (2 * PARTS as u64 + 1) * 3_000;
        assert_eq!([0, 1, LINE, 10 * LINE].map(|cell| parts.sum(cell)), [expected, 0, expected, 0]);
        assert!(parts.parts.iter().filter(|part| part.get().is_some()).count() > 1);
    }
}
