//! The endpoints file: which pods this machine has, and how the agent finds each of them.
//!
//! Every problem is reported with its path; an entry with any problem keeps its last good version and leaves the others alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::folder::read_file;
use super::last_good::LastGood;
use super::merge::{Entry, Merged, Parsed, Parser, merge};
use super::problem::Problem;

/// One pod of this machine, as the file describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) service_account: Option<String>,
    pub(crate) netns: Option<NetnsRef>,
    /// Host side of the pod's veth pair.
    pub(crate) interface: Option<String>,
    /// Absolute, or below the cgroup v2 root.
    pub(crate) cgroup: Option<PathBuf>,
    /// Its addresses: a pod that has a trusted resolver's may send from it.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether nothing but where it runs is known: it is held to internal traffic (§6.6).
    pub(crate) held: bool,
}

impl Endpoint {
    /// `namespace/name`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Where a network namespace is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) enum NetnsRef {
    /// A file such as `/run/netns/NAME`.
    Path(PathBuf),
    /// A process in it.
    Pid(u32),
}

impl NetnsRef {
    /// The file that stands for it.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        }
    }
}

/// The endpoints file with the last good version of its entries.
#[derive(Debug)]
pub(crate) struct EndpointSource {
    path: PathBuf,
    parser: Parser<Endpoint>,
    last: LastGood<Endpoint>,
    start_problems: Vec<Problem>,
}

impl EndpointSource {
    pub(crate) fn new(path: &Path, state_dir: &Path) -> Self {
        let mut parser = Parser::new(parse);
        let (last, unreadable) = LastGood::load(&state_dir.join("last-good/endpoints"), &mut parser);
        Self { path: path.to_path_buf(), parser, last, start_problems: unreadable.into_iter().map(forgotten).collect() }
    }

    /// Reads the file as it is now.
    pub(crate) fn read(&mut self) -> Endpoints {
        let file = read_file(self.path.display().to_string(), &self.path);
        let mut merged: Merged<Endpoint> = merge(&[file], &mut self.parser, &mut self.last);
        merged.problems.append(&mut self.start_problems.clone());
        Endpoints { endpoints: merged.values.into_values().collect(), problems: merged.problems }
    }

    /// Remembers what is in force for the next start of the agent.
    pub(crate) fn save(&mut self) -> std::io::Result<()> {
        self.last.save()
    }
}

/// What the file says, entries in the order of their names.
#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) problems: Vec<Problem>,
}

/// Reads an endpoints file that is only looked at: nothing is remembered, and an entry with a problem is absent.
pub(crate) fn read_once(path: &Path) -> Endpoints {
    let name = path.display().to_string();
    let parsed = match read_file(name.clone(), path).text {
        Ok(text) => parse(&name, &text.body),
        Err(reason) => Parsed::broken(Problem::new(name, format!("cannot be read: {reason}"))),
    };
    let good = |entry| match entry {
        Entry::Good(_, endpoint) => Some(endpoint),
        Entry::Broken(_) => None,
    };
    Endpoints { endpoints: parsed.entries.into_iter().filter_map(good).collect(), problems: parsed.problems }
}

/// A stored last good version that cannot be read any more.
pub(super) fn forgotten(path: String) -> Problem {
    Problem::new(path, "this stored last good version cannot be read and was left out").hint("delete it")
}

fn parse(file: &str, text: &str) -> Parsed<Endpoint> {
    let value: Value = match serde_saphyr::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let problem = Problem::new(file, format!("is neither YAML nor JSON: {error}"));
            return Parsed::broken(problem.hint("all endpoints of its last good version stay in force"));
        }
    };
    let mut parsed = Parsed { entries: Vec::new(), unnamed: false, problems: Vec::new() };
    let mut top = Reader::new(file, "", &value, &mut parsed.problems);
    let list = top.array("endpoints");
    top.finish(&["endpoints"]);
    parsed.unnamed = top.failed;
    for (index, value) in list.iter().enumerate() {
        let mut reader = Reader::new(file, &format!("endpoints[{index}]"), value, &mut parsed.problems);
        let endpoint = endpoint(&mut reader);
        let failed = reader.failed;
        let named = !endpoint.namespace.is_empty() && !endpoint.name.is_empty();
        parsed.unnamed |= !named;
        if named {
            let key = endpoint.key();
            parsed.entries.push(if failed { Entry::Broken(vec![key]) } else { Entry::Good(key, endpoint) });
        }
    }
    parsed
}

fn endpoint(reader: &mut Reader<'_, '_>) -> Endpoint {
    let namespace = reader.required_name("namespace");
    let name = reader.required_name("name");
    reader.object = Some(format!("{namespace}/{name}")).filter(|_| !namespace.is_empty() && !name.is_empty());
    let endpoint = Endpoint {
        labels: reader.labels("labels"),
        service_account: reader.text("serviceAccount"),
        netns: reader.netns("netns"),
        interface: reader.interface("interface"),
        cgroup: reader.text("cgroup").map(PathBuf::from),
        addresses: reader.addresses("addresses"),
        held: false,
        namespace,
        name,
    };
    reader.finish(&["namespace", "name", "labels", "serviceAccount", "netns", "interface", "cgroup", "addresses"]);
    endpoint
}

/// Reads the fields of one mapping and notes everything that is wrong with them.
struct Reader<'v, 'p> {
    file: &'v str,
    path: String,
    object: Option<String>,
    value: &'v Value,
    failed: bool,
    problems: &'p mut Vec<Problem>,
}

impl<'v, 'p> Reader<'v, 'p> {
    fn new(file: &'v str, path: &str, value: &'v Value, problems: &'p mut Vec<Problem>) -> Self {
        let mut reader = Self { file, path: path.to_owned(), object: None, value, failed: false, problems };
        if !value.is_object() {
            reader.problem("", "is not a mapping of fields", "");
        }
        reader
    }

    fn problem(&mut self, field: &str, message: &str, hint: &str) {
        self.failed = true;
        let dot = if self.path.is_empty() || field.is_empty() { "" } else { "." };
        let mut problem = Problem::new(self.file, message).at(1, format!("{}{dot}{field}", self.path)).hint(hint);
        problem.object.clone_from(&self.object);
        self.problems.push(problem);
    }

    /// A field that is there and not null.
    fn field(&self, name: &str) -> Option<&'v Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    fn array(&mut self, name: &str) -> &'v [Value] {
        match self.field(name) {
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.problem(name, "is not a list", "");
                &[]
            }
            None if self.value.get(name).is_none() => {
                self.problem(name, "is missing", "write `endpoints: []` if there are none");
                &[]
            }
            None => &[],
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.field(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::String(_) => {
                self.problem(name, "is empty", "leave it out if it is not known");
                None
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.problem(name, "is not a string", "put it in quotes");
                None
            }
        }
    }

    /// A name as Kubernetes would accept it, as far as it matters here; empty if it is missing or wrong.
    fn required_name(&mut self, name: &str) -> String {
        if self.field(name).is_none() {
            self.problem(name, "is missing", "");
            return String::new();
        }
        let text = self.text(name).unwrap_or_default();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if !text.chars().all(fits) || text.len() > 253 {
            self.problem(name, "is not a Kubernetes name", "use letters, digits, '-' and '.', at most 253");
            return String::new();
        }
        text
    }

    fn labels(&mut self, name: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        match self.field(name) {
            None => {}
            Some(Value::Object(map)) => {
                for (key, value) in map {
                    if let Value::String(text) = value {
                        labels.insert(key.clone(), text.clone());
                    } else {
                        self.problem(&format!("{name}.{key}"), "is not a string", "put the value in quotes");
                    }
                }
            }
            Some(_) => self.problem(name, "is not a mapping of strings", ""),
        }
        labels
    }

    fn netns(&mut self, name: &str) -> Option<NetnsRef> {
        let hint = "give a path such as /run/netns/NAME, or the number of a process";
        let text = match self.field(name)?.as_u64() {
            Some(number) => number.to_string(),
            None => self.text(name)?,
        };
        if text.starts_with('/') {
            return Some(NetnsRef::Path(PathBuf::from(text)));
        }
        let pid = text.parse::<u32>().ok().filter(|&pid| pid != 0).map(NetnsRef::Pid);
        if pid.is_none() {
            self.problem(name, "is neither an absolute path nor a process id", hint);
        }
        pid
    }

    fn interface(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if text.len() > 15 || text.contains(|c: char| c == '/' || c.is_whitespace()) {
            self.problem(name, "is not an interface name", "at most 15 characters, neither '/' nor spaces");
            return None;
        }
        Some(text)
    }

    fn addresses(&mut self, name: &str) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        match self.field(name) {
            None => {}
            Some(Value::Array(list)) => {
                for (index, value) in list.iter().enumerate() {
                    match value.as_str().and_then(|text| text.parse().ok()) {
                        Some(address) => addresses.push(address),
                        None => self.problem(
                            &format!("{name}[{index}]"),
                            "is not an IP address",
                            "write 10.0.0.1 or 2001:db8::1",
                        ),
                    }
                }
            }
            Some(_) => self.problem(name, "is not a list of addresses", ""),
        }
        addresses
    }

    /// Refuses fields that are not known: a lost narrowing would widen what the pod may do (§6.3).
    fn finish(&mut self, known: &[&str]) {
        let unknown: Vec<&String> = self.value.as_object().into_iter().flat_map(|map| map.keys()).collect();
        for field in unknown.into_iter().filter(|field| !known.contains(&field.as_str())) {
            self.problem(field, "is not a known field", &format!("known are: {}", known.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests;
