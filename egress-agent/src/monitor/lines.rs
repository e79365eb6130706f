//! A line of `monitor`, for people and for programs.

use std::io::{self, Write};

use owo_colors::{OwoColorize as _, Style};

use crate::api::Line;
use crate::cli::Output;
use crate::events::Record;

/// Columns are as wide as this at least; longer words push the rest of their line.
const POD: usize = 24;
const DESTINATION: usize = 28;

/// Writes one line.
pub(super) fn write(out: &mut dyn Write, line: &Line, output: Output, colours: bool) -> io::Result<()> {
    match output {
        Output::Table => writeln!(out, "{}", words(line, colours)),
        Output::Json => {
            serde_json::to_writer(&mut *out, line)?;
            writeln!(out)
        }
        Output::Yaml => write!(out, "---\n{}", serde_saphyr::to_string(line).map_err(io::Error::other)?),
    }
}

fn words(line: &Line, colours: bool) -> String {
    match line {
        Line::Missed { missed } => format!("{missed} events came faster than they could be shown"),
        Line::Record(record) => of_record(record, colours),
    }
}

/// `03:04:05.678  denied      shop/web  1.2.3.4:443/TCP  rule 2 of shop/web: Deny 0.0.0.0/0 (and 3 more)`.
fn of_record(record: &Record, colours: bool) -> String {
    let paint = |text: String, style: Style| if colours { text.style(style).to_string() } else { text };
    let time = record.time.get(11..23).unwrap_or(&record.time).to_owned();
    let style = match record.outcome.as_ref() {
        "denied" => Style::new().red(),
        "allowed" => Style::new().green(),
        _ => Style::new().yellow(),
    };
    let outcome = paint(format!("{:<11}", record.outcome), style);
    let name = record.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let to = format!("{}{name}", record.to());
    let repeats = if record.repeats > 0 { format!(" (and {} more)", record.repeats) } else { String::new() };
    let process = match (&record.comm, record.pid) {
        (Some(comm), Some(pid)) => paint(format!(" [{comm} {pid}]"), Style::new().dimmed()),
        _ => String::new(),
    };
    format!("{time}  {outcome} {:<POD$}  {to:<DESTINATION$}  {}{repeats}{process}", record.full_pod(), why(record))
}

fn why(record: &Record) -> String {
    match (&record.origin, &record.rule) {
        (Some(origin), Some(rule)) => format!("{origin}: {rule}"),
        _ => record.reason.clone().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::sample;
    use crate::golden;

    fn written(line: &Line, output: Output) -> String {
        let mut out = Vec::new();
        write(&mut out, line, output, false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_of_line_is_written_as_it_was() {
        let record = Record { time: "2026-01-02T03:04:05.678901Z".into(), ..sample() };
        let of = |outcome: &'static str| Record { outcome: outcome.into(), repeats: 0, ..record.clone() };
        let lines = [
            Line::Record(Box::new(record.clone())),
            Line::Record(Box::new(Record { name: Some("www.foo.com".into()), ..of("would-deny") })),
            Line::Record(Box::new(Record { destination: "2001:db8::8".parse().unwrap(), ..of("allowed") })),
            Line::Record(Box::new(Record { origin: None, rule: None, reason: "bad-ip-header".into(), ..of("denied") })),
            Line::Missed { missed: 3 },
        ];
        for (format, ending) in [(Output::Table, "txt"), (Output::Json, "json"), (Output::Yaml, "yaml")] {
            let text: String = lines.iter().map(|line| written(line, format)).collect();
            golden::insist_text(&format!("monitor.{ending}"), &text);
        }
    }

    #[test]
    fn a_line_says_when_who_where_and_by_which_rule() {
        let record = Record { time: "2026-01-02T03:04:05.678901Z".into(), ..sample() };
        assert_eq!(
            written(&Line::Record(Box::new(record.clone())), Output::Table),
            "03:04:05.678  denied      default/curl              8.8.8.8:443/TCP               \
             rule 2 of default/curl: Deny 0.0.0.0/0 (and 2 more) [curl 99]\n"
        );
        let named = Record {
            name: Some("www.foo.com".into()),
            destination: "2001:db8::8".parse().unwrap(),
            outcome: "would-deny".into(),
            repeats: 0,
            comm: None,
            ..record
        };
        let text = written(&Line::Record(Box::new(named)), Output::Table);
        assert!(text.contains(" would-deny  default/curl "), "{text}");
        assert!(text.contains(" [2001:db8::8]:443/TCP (www.foo.com)  rule 2 of"), "{text}");
    }

    #[test]
    fn programs_get_a_line_each_with_the_fields_of_the_flow_log() {
        let line = Line::Record(Box::new(sample()));
        let json = written(&line, Output::Json);
        assert_eq!(json.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["egress.schema"], &value["destination.address"]), (&1.into(), &"8.8.8.8".into()));
        let yaml = written(&line, Output::Yaml);
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(yaml.trim_start_matches("---\n")).unwrap(), value);
        assert!(written(&Line::Missed { missed: 3 }, Output::Table).starts_with("3 events"));
        assert_eq!(written(&Line::Missed { missed: 3 }, Output::Json), "{\"missed\":3}\n");
    }
}
