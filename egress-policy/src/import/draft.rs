//! A policy while it is written: our rules in order, each with the source rule that it comes from.

use super::build::fitting;
use super::manifest::RuleSource;
use super::report::{Judgement, Origin, Place, Row, SourceProblem};
use crate::document::Problem;
use crate::spec::EgressRule;

/// The rules of a policy of ours that is being written, with the report's rows of their sources.
#[derive(Default)]
pub(super) struct Draft {
    rules: Vec<EgressRule>,
    rows: Vec<DraftRow>,
}

/// A row of the report whose rules have numbers, and no object yet.
pub(super) struct DraftRow {
    row: Row,
    /// First and last rule, from 1; none if the source rule became no rule.
    rules: Option<(usize, usize)>,
}

impl Draft {
    /// Adds the rules that one source rule became, and what is to be said of it.
    pub(super) fn add(
        &mut self,
        origin: &impl Origin,
        place: &Place,
        rule: impl Into<String>,
        judgement: Judgement,
        rules: impl IntoIterator<Item = EgressRule>,
    ) {
        let before = self.rules.len();
        self.rules.extend(rules.into_iter().flat_map(fitting));
        let numbers = (self.rules.len() > before).then_some((before + 1, self.rules.len()));
        self.rows.push(DraftRow { row: origin.row(place, rule, judgement), rules: numbers });
    }

    /// Whether there is no rule.
    pub(super) const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The problem of more than `most` rules.
    pub(super) fn too_large(&self, most: usize) -> Option<SourceProblem> {
        let row = &self.rows.first().filter(|_| self.rules.len() > most)?.row;
        let problem = Problem {
            document: row.document,
            object: Some(row.object.clone()),
            path: String::new(),
            line: row.line,
            message: format!("the object would become {} rules, and at most {most} are possible", self.rules.len()),
            hint: "split it into several".to_owned(),
        };
        Some(SourceProblem { source: row.source.clone(), problem })
    }

    /// Where each rule comes from.
    pub(super) fn sources(&self) -> Vec<RuleSource> {
        let of = |row: &DraftRow| {
            let count = row.rules.map_or(0, |(first, last)| last + 1 - first);
            let source = RuleSource { source: row.row.source.clone(), document: row.row.document, line: row.row.line };
            std::iter::repeat_n(source, count)
        };
        self.rows.iter().flat_map(of).collect()
    }

    pub(super) fn done(self) -> (Vec<EgressRule>, Vec<DraftRow>) {
        (self.rules, self.rows)
    }
}

impl DraftRow {
    /// The row, now that the object is known.
    pub(super) fn into_object(self, title: &str) -> Row {
        let mut row = self.row;
        match self.rules {
            Some((first, last)) if first == last => row.into.push(format!("rule {first} of {title}")),
            Some((first, last)) => row.into.push(format!("rules {first}-{last} of {title}")),
            None => {}
        }
        row
    }
}
