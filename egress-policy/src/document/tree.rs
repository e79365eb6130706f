//! A YAML or JSON document as a tree in which every value knows its line.
//!
//! Unlike a serde value it keeps duplicate keys, so that they can be refused, and the text of numbers. Aliases are expanded within a
//! limit. A document that is broken yields its error; the ones after it are still read.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

/// Most values that aliases may add to one text; what is written out is bounded by the text itself.
const MAX_ALIASED: usize = 1_000_000;
/// Deepest nesting of values.
const MAX_DEPTH: usize = 64;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Line in the text, from 1; 0 where it is not known.
    pub(crate) line: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) value: Node,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Node {
    pub(crate) fn field(&self, name: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == name),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => None,
        }
    }

    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        match &self.value {
            Value::List(items) => items.get(index),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Map(_) => None,
        }
    }

    /// What messages call the value.
    pub(crate) fn kind(&self) -> String {
        match &self.value {
            Value::Null => "empty".to_owned(),
            Value::Bool(value) => format!("the truth value {value}"),
            Value::Number(text) => format!("the number {text}"),
            Value::Text(text) => format!("the text {text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "an object with fields".to_owned(),
        }
    }
}

/// Reads every document of `text`; `None` stands for an empty one.
pub(crate) fn parse(text: &str) -> Vec<Result<Option<Node>, SyntaxError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    let mut budget = MAX_ALIASED;
    loop {
        let mut builder = Builder::new(&mut budget);
        match builder.document(&mut parser) {
            Ok(Next::Document(document)) => documents.push(Ok(document)),
            Ok(Next::End) => return documents,
            Err(error) => {
                documents.push(Err(error));
                // Only in the documents after the broken one; a text that is broken to its end has none.
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    return documents;
                }
            }
        }
    }
}

/// What comes next in a text.
enum Next {
    /// A document, which may be empty.
    Document(Option<Node>),
    End,
}

/// A collection that is still open.
struct Open {
    node: Node,
    anchor: usize,
    /// In a map: the key that waits for its value.
    key: Option<(String, usize)>,
}

struct Builder<'b> {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    budget: &'b mut usize,
}

impl<'b> Builder<'b> {
    fn new(budget: &'b mut usize) -> Self {
        Self { open: Vec::new(), anchors: HashMap::new(), budget }
    }

    /// The next document, or the end of the text.
    fn document<'i, T: granit_parser::BorrowedInput<'i>>(
        &mut self,
        parser: &mut Parser<'i, T>,
    ) -> Result<Next, SyntaxError> {
        let mut root = None;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| syntax(&error))?;
            let line = span.start.line();
            match event {
                Event::StreamEnd => return Ok(Next::End),
                Event::DocumentEnd => return Ok(Next::Document(root.filter(|node: &Node| node.value != Value::Null))),
                Event::Scalar(text, style, anchor, tag) => {
                    let node = Node { value: scalar(&text, style, tag.as_deref()), line };
                    root = self.place(node, anchor)?.or(root);
                }
                Event::Alias(anchor) => {
                    let node = self.anchors.get(&anchor);
                    let node = node.ok_or_else(|| error(line, "an alias stands inside the value that it names"))?;
                    pay(self.budget, node)?;
                    let node = Node { value: node.value.clone(), line };
                    root = self.place(node, 0)?.or(root);
                }
                Event::SequenceStart(_, anchor, _) => self.begin(Value::List(Vec::new()), line, anchor)?,
                Event::MappingStart(_, anchor, _) => self.begin(Value::Map(Vec::new()), line, anchor)?,
                Event::SequenceEnd | Event::MappingEnd => {
                    if let Some(Open { node, anchor, .. }) = self.open.pop() {
                        root = self.place(node, anchor)?.or(root);
                    }
                }
                Event::StreamStart
                | Event::DocumentStart(..)
                | Event::Anchor(..)
                | Event::UnresolvedAlias(_)
                | Event::Comment(..)
                | _ => {}
            }
        }
        Ok(Next::End)
    }

    fn begin(&mut self, value: Value, line: usize, anchor: usize) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(error(line, "the document is nested too deeply"));
        }
        if self.open.last().is_some_and(|open| matches!(open.node.value, Value::Map(_)) && open.key.is_none()) {
            return Err(error(line, "a key must be a plain text, not a list or an object"));
        }
        self.open.push(Open { node: Node { value, line }, anchor, key: None });
        Ok(())
    }

    /// Puts a finished value where it belongs; the root is given back.
    fn place(&mut self, node: Node, anchor: usize) -> Result<Option<Node>, SyntaxError> {
        if anchor != 0 {
            pay(self.budget, &node)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            return Ok(Some(node));
        };
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match parent.key.take() {
                Some((key, line)) => entries.push(Entry { key, line, value: node }),
                None => parent.key = Some((key(&node)?, node.line)),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
        }
        Ok(None)
    }
}

/// Takes a copy of `node` out of the budget.
fn pay(budget: &mut usize, node: &Node) -> Result<(), SyntaxError> {
    let left = budget.checked_sub(weight(node));
    *budget =
        left.ok_or_else(|| error(node.line, "the aliases stand for too many values; write them out in several files"))?;
    Ok(())
}

/// Number of values that a copy of `node` makes.
fn weight(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| weight(&entry.value)).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => 1,
    }
}

fn key(node: &Node) -> Result<String, SyntaxError> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => Err(error(node.line, "a key must be a plain text")),
    }
}

fn error(line: usize, message: &str) -> SyntaxError {
    SyntaxError { line, message: message.to_owned() }
}

fn syntax(error: &ScanError) -> SyntaxError {
    SyntaxError { line: error.marker().line(), message: error.info() }
}

/// The YAML 1.2 core schema.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let plain = matches!(style, ScalarStyle::Plain);
    if !plain || tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str")) {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = |prefix: &str, radix: u32| {
        unsigned
            .strip_prefix(prefix)
            .is_some_and(|digits| !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix)))
    };
    let decimal =
        unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') && unsigned.parse::<f64>().is_ok();
    decimal || radix("0x", 16) || radix("0o", 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        parse(text).remove(0).unwrap().unwrap()
    }

    fn text_of(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) => text.clone(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => format!("[{}]", items.iter().map(text_of).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let entries = entries.iter().map(|entry| format!("{}:{}", entry.key, text_of(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
        }
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        assert_eq!(
            text_of(&one("[1, 0x1f, 1.5, -3, '1', yes, true, ~, null, 1.2.3.0/24, 1.2.3, ::1, 2001:db8::/32, 5s]")),
            r#"[1,0x1f,1.5,-3,"1","yes",true,null,null,"1.2.3.0/24","1.2.3","::1","2001:db8::/32","5s"]"#
        );
    }

    #[test]
    fn every_value_knows_its_line() {
        let node = one("a: 1\nb:\n  - x\n  - y: 2\n");
        assert_eq!(node.field("b").unwrap().line, 2);
        assert_eq!(node.field("b").unwrap().value.item(1).unwrap().field("y").unwrap().value.line, 4);
    }

    #[test]
    fn json_is_read_with_tabs_and_lines() {
        let node = one("{\n\t\"a\": [1, \"x\",\n\t\ttrue, null], \"b\": {}\n}\n");
        assert_eq!(text_of(&node), r#"{a:[1,"x",true,null],b:{}}"#);
        assert_eq!(node.field("b").unwrap().line, 3);
    }

    #[test]
    fn documents_after_a_broken_one_are_read() {
        let documents = parse("a: 1\n---\nb: [1, 2\n---\nc: 3\n---\n---\n# nothing\n");
        let found: Vec<_> =
            documents.iter().map(|document| document.as_ref().map(|node| node.as_ref().map(text_of))).collect();
        assert_eq!(found.len(), 5, "{found:?}");
        assert_eq!(found[0], Ok(Some("{a:1}".to_owned())));
        assert!(found[1].is_err());
        assert_eq!(found[2], Ok(Some("{c:3}".to_owned())));
        assert_eq!(found[3], Ok(None));
    }

    #[test]
    fn aliases_are_expanded_and_bounded() {
        assert_eq!(text_of(&one("a: &x [1, 2]\nb: *x\n")), "{a:[1,2],b:[1,2]}");
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb = format!("{bomb}a{level}: &a{level} [{aliases}]\n");
        }
        let error = parse(&bomb).remove(0).unwrap_err();
        assert!(error.message.contains("too many values"), "{error:?}");
    }

    #[test]
    fn duplicate_keys_are_kept_for_the_decoder() {
        assert_eq!(text_of(&one("a: 1\na: 2\n")), "{a:1,a:2}");
    }
}
