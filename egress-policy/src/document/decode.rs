//! Single values of a document: is the field there, is it of the right kind, is it one of the known fields. Everything wrong becomes a
//! problem in the [`Report`], and decoding goes on.

use super::problem::{Fields, Report};
use super::tree::{Node, Value};

impl<'n> Report<'n> {
    /// The current value as an object that may have only `known` fields, each once and none empty.
    pub(crate) fn fields(&mut self, node: &'n Node, known: &[&str]) -> Option<Fields<'n>> {
        let fields = self.open_fields(node)?;
        for key in fields.keys().filter(|key| !known.contains(key)) {
            let hint = match closest(key, known) {
                Some(name) => format!("write {name}, or remove it"),
                None => format!("remove it; the fields here are {}", known.join(", ")),
            };
            self.problem_at(key, "this field is not known", hint);
        }
        Some(fields)
    }

    /// The current value as an object with any fields, each once and none empty.
    pub(crate) fn open_fields(&mut self, node: &'n Node) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.problem(
                format!("must be an object with fields, not {}", node.kind()),
                "write its fields below it, indented",
            );
            return None;
        };
        let mut keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        keys.sort_unstable();
        let mut twice: Vec<&str> = keys
            .windows(2)
            .filter(|pair| pair.first() == pair.last())
            .filter_map(|pair| pair.first().copied())
            .collect();
        twice.dedup();
        for key in twice {
            self.problem_at(key, "the field is written more than once", "keep one of them");
        }
        for entry in entries.iter().filter(|entry| entry.value.value == Value::Null) {
            // What was meant to stand here may have been a narrowing (§6.3).
            self.problem_at(&entry.key, "the field is empty", "give it a value, or remove it");
        }
        Some(Fields(node))
    }

    /// Decodes the field `name`, if it is there, with `decode`.
    pub(crate) fn optional<T>(
        &mut self,
        fields: Fields<'n>,
        name: &str,
        decode: impl FnOnce(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<T> {
        let node = fields.get(name).filter(|node| node.value != Value::Null)?;
        self.within(name, |report| decode(report, node))
    }

    /// Decodes the field `name`, which must be there; `hint` says what to write if it is not.
    pub(crate) fn required<T>(
        &mut self,
        fields: Fields<'n>,
        name: &str,
        hint: &str,
        decode: impl FnOnce(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<T> {
        if fields.get(name).is_none() {
            self.problem_at(name, "the field is required", hint);
        }
        self.optional(fields, name, decode)
    }

    pub(crate) fn text(&mut self, node: &'n Node) -> Option<&'n str> {
        let hint = match &node.value {
            Value::Text(text) => return Some(text),
            Value::Number(text) => format!("put it in quotes: \"{text}\""),
            Value::Bool(value) => format!("put it in quotes: \"{value}\""),
            Value::Null | Value::List(_) | Value::Map(_) => "write one text".to_owned(),
        };
        self.problem(format!("must be text, not {}", node.kind()), hint);
        None
    }

    pub(crate) fn truth(&mut self, node: &'n Node) -> Option<bool> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.problem(format!("must be true or false, not {}", node.kind()), "write true or false, without quotes");
        None
    }

    /// A whole number in `range`.
    pub(crate) fn number(&mut self, node: &'n Node, range: std::ops::RangeInclusive<u16>) -> Option<u16> {
        let (first, last) = (range.start(), range.end());
        let hint = format!("write a number from {first} to {last}");
        match &node.value {
            Value::Number(text) => match text.parse::<u16>() {
                Ok(number) if range.contains(&number) => return Some(number),
                Ok(_) | Err(_) => self.problem(format!("{text} is not a number from {first} to {last}"), hint),
            },
            Value::Text(text) if text.parse::<u16>().is_ok() => {
                self.problem(format!("must be a number, not {}", node.kind()), format!("remove the quotes: {text}"));
            }
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                self.problem(format!("must be a number, not {}", node.kind()), hint);
            }
        }
        None
    }

    /// One of the words in `choices`.
    pub(crate) fn choice<T: Copy>(&mut self, node: &'n Node, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let hint = match closest(text, &words) {
            Some(word) => format!("write {word}"),
            None => format!("write one of {}", words.join(", ")),
        };
        self.problem(format!("{text:?} is not one of {}", words.join(", ")), hint);
        None
    }

    /// A list of at most `most` items; `hint` says what to do with more.
    pub(crate) fn short_list<T>(
        &mut self,
        node: &'n Node,
        most: usize,
        hint: &str,
        decode: impl FnMut(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.at_most(node, most, hint)?;
        self.list(node, decode)
    }

    /// None, and a problem, if the current value is a list of more than `most` items.
    pub(crate) fn at_most(&mut self, node: &Node, most: usize, hint: &str) -> Option<()> {
        if let Value::List(items) = &node.value
            && items.len() > most
        {
            self.problem(format!("{} entries, and at most {most} are possible", items.len()), hint);
            return None;
        }
        Some(())
    }

    /// A list, each item decoded by itself; items that fail are left out.
    pub(crate) fn list<T>(
        &mut self,
        node: &'n Node,
        mut decode: impl FnMut(&mut Self, &'n Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = &node.value else {
            self.problem(
                format!("must be a list, not {}", node.kind()),
                "write each item on a line of its own, after a hyphen",
            );
            return None;
        };
        let mut decoded = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            decoded.extend(self.within(index, |report| decode(report, item)));
        }
        Some(decoded)
    }
}

/// The candidate that was probably meant.
fn closest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let lower = word.to_lowercase();
    let distances = candidates.iter().map(|candidate| (distance(&lower, &candidate.to_lowercase()), *candidate));
    distances.min().filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 6).map(|(_, candidate)| candidate)
}

/// Levenshtein distance, with a row per character of `a`. Long words are not worth the time.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 40;
    if a.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (line, from) in a.chars().enumerate() {
        let mut next = vec![line + 1];
        let mut left = line + 1;
        for ((diagonal, above), to) in row.iter().zip(row.iter().skip(1)).zip(b.chars()) {
            left = (diagonal + usize::from(from != to)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_word_is_offered_if_it_is_close() {
        let known = ["cidrSelector", "dnsName", "nodeSelector", "except"];
        assert_eq!(closest("cidrselector", &known), Some("cidrSelector"));
        assert_eq!(closest("dnsNames", &known), Some("dnsName"));
        assert_eq!(closest("nodeSelectro", &known), Some("nodeSelector"));
        assert_eq!(closest("ports", &known), None);
        assert_eq!(closest("allow", &["Allow", "Deny"]), Some("Allow"));
    }
}
