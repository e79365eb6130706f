//! The demo's tables: aligned columns, colour where the terminal has it.

use owo_colors::{OwoColorize as _, Stream, Style};

use crate::progress;

/// A cell: its text, and how it looks.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new())
    }

    pub(super) fn dim(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new().dimmed())
    }

    pub(super) fn good(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new().green())
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new().red())
    }

    fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn padded(&self, width: usize) -> String {
        let padding = " ".repeat(width.saturating_sub(self.width()));
        let painted = self.text.if_supports_color(Stream::Stdout, |text| text.style(self.style)).to_string();
        painted + &padding
    }
}

/// Prints rows below their headings.
pub(super) fn print(headings: &[&str], rows: &[Vec<Cell>]) {
    for line in lines(headings, rows) {
        progress::result(&line);
    }
}

fn lines(headings: &[&str], rows: &[Vec<Cell>]) -> Vec<String> {
    let head: Vec<Cell> = headings.iter().map(|heading| Cell::dim(*heading)).collect();
    let all: Vec<&Vec<Cell>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| {
        let cells = all.iter().filter_map(|row| row.get(column));
        cells.map(Cell::width).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<Cell>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| cell.padded(width)).collect();
        format!("  {}", cells.join("  ").trim_end())
    };
    all.into_iter().map(line).collect()
}

/// Prints a title over what follows.
pub(super) fn title(text: &str) {
    let style = Style::new().bold();
    let painted = text.if_supports_color(Stream::Stdout, |text| text.style(style)).to_string();
    progress::result(&format!("\n{painted}"));
}

/// Prints lines that belong to the background: policies, explanations.
pub(super) fn quote(text: &str) {
    let style = Style::new().dimmed();
    for line in text.lines() {
        let line = line.if_supports_color(Stream::Stdout, |text| text.style(style)).to_string();
        progress::result(&format!("  {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        owo_colors::set_override(false);
        let rows = [
            vec![Cell::plain("default/curl"), Cell::good("→ allowed"), Cell::plain("x")],
            vec![Cell::plain("web"), Cell::bad("→ refused"), Cell::plain("")],
        ];
        assert_eq!(
            lines(&["who", "verdict", "why"], &rows),
            ["  who           verdict    why", "  default/curl  → allowed  x", "  web           → refused"]
        );
    }
}
