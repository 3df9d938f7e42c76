//! Places in a text, for changing it where a value stands.

use std::cell::Cell;

/// A text, with where its lines begin.
pub(crate) struct Lines<'t> {
    /// The text itself.
    pub text: &'t str,
    starts: Vec<usize>,
    /// The place that was looked for last: line, column, and where that is.
    last: Cell<(usize, usize, usize)>,
}

impl<'t> Lines<'t> {
    /// Finds the lines of a text.
    pub fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts, last: Cell::new((0, 1, 0)) }
    }

    /// Where a line begins; the end of the text for lines that are not there.
    pub fn start(&self, line: usize) -> usize {
        self.starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len())
    }

    /// Where a character of a line stands. Looking for places in their order costs what one pass does, also
    /// where everything stands in one line.
    pub fn place(&self, line: usize, column: usize) -> usize {
        let (last_line, last_column, last) = self.last.get();
        let (from, start) = if line == last_line && column >= last_column {
            (last_column, last)
        } else {
            (1, self.start(line))
        };
        let inside = self.text[start..].char_indices().nth(column.saturating_sub(from));
        let place = inside.map_or(self.text.len(), |(at, _)| start + at);
        self.last.set((line, column, place));
        place
    }
}
