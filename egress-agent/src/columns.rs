//! Aligned columns for terminals and logs.

use std::io::{self, Write};

use owo_colors::{OwoColorize as _, Style};

/// What a cell says, beside its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Faint,
}

/// One field of a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    pub(crate) fn number(number: &(impl ToString + ?Sized)) -> Self {
        Self { text: number.to_string(), right: true, ..Self::default() }
    }

    /// A dash for nothing.
    pub(crate) fn optional(value: Option<impl ToString>) -> Self {
        value.map_or_else(|| Self::text("-").tone(Tone::Faint), |value| Self::number(&value))
    }

    pub(crate) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// Writes rows under a title and headers; a sheet without rows says that there is nothing.
pub(crate) fn write(
    out: &mut dyn Write,
    title: &str,
    headers: &[&str],
    rows: &[Vec<Cell>],
    colours: bool,
) -> io::Result<()> {
    write_each(out, title, headers, || rows.iter(), colours)
}

/// The same with rows that are made one by one and not kept: once to see how wide they are, once to write them.
pub(crate) fn write_each<R: AsRef<[Cell]>, I: Iterator<Item = R>>(
    out: &mut dyn Write,
    title: &str,
    headers: &[&str],
    rows: impl Fn() -> I,
    colours: bool,
) -> io::Result<()> {
    writeln!(out, "{}", paint(title, Style::new().bold(), colours))?;
    let Some(widths) = widths(headers, rows()) else {
        return writeln!(out, "  (none)");
    };
    let heads: Vec<Cell> = headers.iter().map(|header| Cell::text(*header).tone(Tone::Faint)).collect();
    line(out, &heads, &widths, colours)?;
    for row in rows() {
        line(out, row.as_ref(), &widths, colours)?;
    }
    Ok(())
}

fn line(out: &mut dyn Write, row: &[Cell], widths: &[usize], colours: bool) -> io::Result<()> {
    let mut line = String::from(" ");
    for (index, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.text.chars().count()));
        let text = paint(&cell.text, style(cell.tone), colours);
        line.push(' ');
        let last = index + 1 == row.len();
        match (cell.right, last) {
            (true, _) => line.extend([padding.as_str(), &text]),
            (false, true) => line.push_str(&text),
            (false, false) => line.extend([text.as_str(), &padding]),
        }
        line.push(' ');
    }
    writeln!(out, "{}", line.trim_end())
}

fn paint(text: &str, style: Style, colours: bool) -> String {
    if colours { text.style(style).to_string() } else { text.to_owned() }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().green(),
        Tone::Bad => Style::new().red(),
        Tone::Faint => Style::new().dimmed(),
    }
}

/// The widths of the columns; `None` if there is no row.
fn widths<R: AsRef<[Cell]>>(headers: &[&str], rows: impl Iterator<Item = R>) -> Option<Vec<usize>> {
    let mut widths: Vec<usize> = headers.iter().map(|header| header.chars().count()).collect();
    let mut any = false;
    for row in rows {
        any = true;
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    any.then_some(widths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rows: &[Vec<Cell>], colours: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, "things", &["name", "n"], rows, colours).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_right() {
        let rows = [vec![Cell::text("a"), Cell::number(&100)], vec![Cell::text("longer"), Cell::number(&7)]];
        assert_eq!(written(&rows, false), "things\n  name    n\n  a       100\n  longer    7\n");
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(written(&[], false), "things\n  (none)\n");
    }

    #[test]
    fn colours_do_not_disturb_the_alignment() {
        let rows = [vec![Cell::text("a").tone(Tone::Good), Cell::number(&1)]];
        assert!(written(&rows, true).contains("\u{1b}["));
        assert!(!written(&rows, false).contains('\u{1b}'));
    }
}
