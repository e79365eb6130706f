//! Draws the screen: pods, destinations and rules, each a table that is cut where the terminal ends.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table};

use super::rates::{Row, RuleRow, View};

/// Draws `view`, and `keys` in the last line unless something is wrong.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, keys: &str) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ]);
    let [title, pods, destinations, rules, last] = areas.areas(frame.area());
    frame.render_widget(Paragraph::new(view.title.as_str()).style(Style::new().add_modifier(Modifier::BOLD)), title);
    rows(frame, pods, "pods", &view.pods);
    rows(frame, destinations, "destinations", &view.destinations);
    rule_rows(frame, rules, &view.rules);
    let (text, style) = match &view.note {
        Some(note) => (note.as_str(), Style::new().fg(Color::Red)),
        None => (keys, Style::new().add_modifier(Modifier::DIM)),
    };
    frame.render_widget(Paragraph::new(text).style(style), last);
}

fn rows(frame: &mut Frame<'_>, area: Rect, title: &str, rows: &[Row]) {
    let row = |row: &Row| {
        let figures = row.figures;
        let style = tone(figures.refused, figures.would);
        let cells = [rate(figures.refused), rate(figures.would), figures.total.to_string()];
        TableRow::new(std::iter::once(Cell::new(row.name.clone())).chain(cells.into_iter().map(right))).style(style)
    };
    let widths = [Constraint::Fill(1), Constraint::Length(10), Constraint::Length(10), Constraint::Length(12)];
    let headers = [title, "refused/s", "audit/s", "in all"];
    table(frame, area, headers, widths, rows.iter().map(row).collect());
}

fn rule_rows(frame: &mut Frame<'_>, area: Rect, rules: &[RuleRow]) {
    let row = |row: &RuleRow| {
        let (refused, would) = match row.key.verdict.as_str() {
            "deny" => (row.packets, 0.0),
            "audit-deny" => (0.0, row.packets),
            _ => (0.0, 0.0),
        };
        let cells = [rate(row.packets), rate(row.bytes), row.total.to_string()];
        TableRow::new(std::iter::once(Cell::new(row.words())).chain(cells.into_iter().map(right)))
            .style(tone(refused, would))
    };
    let widths = [Constraint::Fill(1), Constraint::Length(10), Constraint::Length(10), Constraint::Length(12)];
    table(frame, area, ["rules", "packets/s", "bytes/s", "packets"], widths, rules.iter().map(row).collect());
}

fn table(frame: &mut Frame<'_>, area: Rect, headers: [&str; 4], widths: [Constraint; 4], rows: Vec<TableRow<'static>>) {
    let [first, numbers @ ..] = headers;
    let cells = std::iter::once(Cell::new(first.to_owned())).chain(numbers.map(|text| right(text.to_owned())));
    let header = TableRow::new(cells).style(Style::new().add_modifier(Modifier::BOLD));
    let block = Block::new().borders(Borders::TOP).border_style(Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(Table::new(rows, widths).header(header).block(block), area);
}

fn right(text: String) -> Cell<'static> {
    Cell::new(Line::from(text).right_aligned())
}

fn tone(refused: f64, would: f64) -> Style {
    if refused > 0.0 {
        Style::new().fg(Color::Red)
    } else if would > 0.0 {
        Style::new().fg(Color::Yellow)
    } else {
        Style::new()
    }
}

/// `0`, `0.3`, `12`, `3.4k`, `5.6M`.
fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate if rate < 10_000.0 => format!("{rate:.0}"),
        rate if rate < 1e7 => format!("{:.1}k", rate / 1e3),
        rate => format!("{:.1}M", rate / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::rates::Figures;
    use super::*;
    use crate::golden;
    use crate::vitals::RuleKey;

    fn view() -> View {
        let row =
            |name: &str, refused, would, total| Row { name: name.into(), figures: Figures { refused, would, total } };
        let rule = |policy: &str, rule: &str, verdict: &str, packets| RuleRow {
            key: RuleKey { policy: policy.into(), rule: rule.into(), verdict: verdict.into() },
            packets,
            bytes: packets * 100.0,
            total: 12,
        };
        View {
            title: "egress on node: rates of the last 10 s".into(),
            note: None,
            pods: vec![row("shop/web", 12.0, 0.0, 120), row("shop/db", 0.0, 0.5, 5)],
            destinations: vec![row("8.8.8.8:443/TCP (dns.google)", 12.0, 0.0, 120)],
            rules: vec![rule("shop/web", "2", "deny", 12.0), rule("", "default action", "allow", 123_456.0)],
        }
    }

    fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view, "q quit")).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn the_screen_shows_pods_destinations_and_rules_with_their_rates() {
        let lines = drawn(&view(), 80, 17);
        assert_eq!(lines[0], "egress on node: rates of the last 10 s");
        assert_eq!(lines[2], "pods                                           refused/s    audit/s       in all");
        assert_eq!(lines[3], "shop/web                                              12          0          120");
        assert_eq!(lines[4], "shop/db                                                0        0.5            5");
        assert!(lines[8].starts_with("8.8.8.8:443/TCP (dns.google) "), "{}", lines[8]);
        assert!(lines[13].starts_with("deny        rule 2 of shop/web "), "{}", lines[13]);
        assert!(lines[14].starts_with("allow       default action ") && lines[14].contains("123.5k"), "{}", lines[14]);
        assert_eq!(lines[16], "q quit");
    }

    #[test]
    fn the_screen_is_drawn_as_it_was() {
        let lines = |view: &View, width, height| drawn(view, width, height).join("\n") + "\n";
        golden::insist_text("top.txt", &lines(&view(), 80, 17));
        golden::insist_text("top-small.txt", &lines(&View { note: Some("the agent ended".into()), ..view() }, 44, 10));
    }

    #[test]
    fn a_small_terminal_cuts_and_what_is_wrong_takes_the_last_line() {
        let view = View { note: Some("the agent ended".into()), ..view() };
        let lines = drawn(&view, 40, 8);
        assert_eq!(lines.last().unwrap(), "the agent ended");
        drawn(&view, 1, 1);
    }

    #[test]
    fn rates_are_short() {
        let words = [0.0, 0.25, 9.94, 12.3, 9999.0, 12_345.0, 12_345_678.0].map(rate);
        assert_eq!(words, ["0", "0.2", "9.9", "12", "9999", "12.3k", "12.3M"]);
    }
}
