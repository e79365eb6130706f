//! Objects of other firewalls that the cluster has, as policies of ours (`--compat`).
//!
//! The conversion is the one of `egress-agent import`. Where objects of a kind stand by themselves, each is a text of its own, so that
//! one that cannot be read keeps its own last good version and no other's; kinds whose objects change each other's meaning are one text.
//! A policy is called after its object and kind, `default.ovn`, so that it meets none of ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use egress_policy::import::{self, Imported, Kind, Options, Outcome, Source};

use super::folder::{FileText, Text};
use super::problem::Problem;

/// Kinds whose objects stand by themselves.
const APART: [&str; 2] = ["openshift", "ovn"];

/// Foreign objects by `resource.group`.
pub(crate) type Objects = BTreeMap<String, Vec<FileText>>;

/// Converts, and remembers what it converted last.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    kinds: Vec<&'static Kind>,
    last: Option<(Objects, Converted)>,
}

/// What became of foreign objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Converted {
    /// Texts of our objects.
    pub(crate) texts: Vec<FileText>,
    /// What cannot be read, and what means something else here.
    pub(crate) problems: Vec<Problem>,
}

impl Foreign {
    /// `names`: of kinds, as `import` calls them.
    pub(crate) fn new(names: &[String]) -> Self {
        Self { kinds: names.iter().filter_map(|name| import::kind(name)).collect(), last: None }
    }

    /// Our objects for `objects`.
    pub(crate) fn convert(&mut self, objects: &Objects) -> Converted {
        if let Some((known, converted)) = &self.last
            && known == objects
        {
            return converted.clone();
        }
        let mut converted = Converted::default();
        for kind in &self.kinds {
            let files: Vec<&FileText> = objects.values().flatten().collect();
            if APART.contains(&kind.name) {
                for file in files {
                    converted.add(kind, &file.name, &[file]);
                }
            } else if !files.is_empty() {
                converted.add(kind, &format!("{} objects", kind.title), &files);
            }
        }
        self.last = Some((objects.clone(), converted.clone()));
        converted
    }
}

impl Converted {
    /// Adds what becomes of `files` as one text called `name`.
    fn add(&mut self, kind: &'static Kind, name: &str, files: &[&FileText]) {
        let texts = files.iter().filter_map(|file| Some((file.name.as_str(), file.text.as_ref().ok()?)));
        let texts: Vec<(&str, &Arc<Text>)> = texts.collect();
        let sources: Vec<Source<'_>> = texts.iter().map(|(name, text)| Source { name, text: &text.body }).collect();
        let Imported { objects, report } = import::import(&sources, &Options { from: Some(kind), namespace: None });
        let unreadable: Vec<Problem> = report
            .problems
            .iter()
            .map(|of| {
                let found =
                    Problem::new(&of.source, &of.problem.message).at(1, &of.problem.path).hint(&of.problem.hint);
                match &of.problem.object {
                    Some(object) => found.of(titled(object, &of.source)),
                    None => found.of(&of.source),
                }
            })
            .collect();
        // Of objects that mean egress and nothing else, whatever is not taken over is worth knowing.
        let least = if APART.contains(&kind.name) { Outcome::NotExpressed } else { Outcome::Narrower };
        for row in report.rows.iter().filter(|row| row.outcome >= least) {
            let message = format!("{} ({}) is {} here: {}", row.path, row.rule, row.outcome.name(), row.why.join("; "));
            self.problems.push(Problem::new(&row.source, message).of(titled(&row.object, &row.source)));
        }
        if objects.is_empty() && unreadable.is_empty() {
            return;
        }
        let mut written = String::new();
        for mut object in objects {
            if object.kind != "EgressConfig" {
                object.metadata.name = format!("{}.{}", object.metadata.name, kind.name);
            }
            written.push_str("---\n");
            written.push_str(&serde_json::to_string(&object).unwrap_or_default());
            written.push('\n');
        }
        let text = if unreadable.is_empty() {
            Ok(Text::new(written))
        } else {
            let messages: Vec<&str> = unreadable.iter().map(|problem| problem.message.as_str()).collect();
            Err(messages.join("; "))
        };
        self.problems.extend(unreadable);
        self.texts.push(FileText { name: name.to_owned(), text });
    }
}

/// "`EgressNetworkPolicy` shop/default (network.openshift.io)": an object of ours may have the same kind and name. `source` is the
/// resource with its group, and the key.
fn titled(object: &str, source: &str) -> String {
    let group = source.split_once(' ').and_then(|(resource, _)| resource.split_once('.')).map(|(_, group)| group);
    group.map_or_else(|| object.to_owned(), |group| format!("{object} ({group})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIREWALL: &str = r#"{"apiVersion":"k8s.ovn.org/v1","kind":"EgressFirewall","metadata":{"name":"default","namespace":"shop"},
        "spec":{"egress":[{"type":"Allow","to":{"cidrSelector":"1.2.3.0/24"}},{"type":"Deny","to":{"cidrSelector":"0.0.0.0/0"}}]}}"#;

    fn objects(texts: &[(&str, &str)]) -> Objects {
        let files = texts
            .iter()
            .map(|(name, text)| FileText { name: (*name).to_owned(), text: Ok(Text::new((*text).to_owned())) });
        [("egressfirewalls.k8s.ovn.org".to_owned(), files.collect())].into()
    }

    #[test]
    fn a_foreign_object_becomes_a_policy_that_is_called_after_it() {
        let mut foreign = Foreign::new(&["ovn".to_owned()]);
        let converted = foreign.convert(&objects(&[("egressfirewalls.k8s.ovn.org shop/default", FIREWALL)]));
        assert_eq!(converted.texts.len(), 1);
        let text = converted.texts[0].text.as_ref().unwrap();
        let documents = egress_policy::document::read_in_cluster(&text.body);
        assert_eq!(documents.problems, []);
        assert_eq!(documents.objects[0].title(), "EgressNetworkPolicy shop/default.ovn");
    }

    #[test]
    fn a_broken_object_says_why_and_leaves_the_others_alone() {
        let mut foreign = Foreign::new(&["ovn".to_owned()]);
        let broken = FIREWALL.replace("1.2.3.0/24", "nonsense").replace("shop", "other");
        let converted = foreign.convert(&objects(&[("a", FIREWALL), ("b", &broken)]));
        let readable: Vec<bool> = converted.texts.iter().map(|file| file.text.is_ok()).collect();
        assert_eq!(readable, [true, false]);
        assert_eq!(converted.problems.iter().map(|problem| problem.source.as_str()).collect::<Vec<_>>(), ["b"]);
        let name = "egressfirewalls.k8s.ovn.org other/default";
        let converted = foreign.convert(&objects(&[(name, &broken)]));
        let named: Vec<_> = converted.problems.iter().map(|problem| problem.object.as_deref().unwrap()).collect();
        assert_eq!(named, ["EgressFirewall other/default (k8s.ovn.org)"], "an object of ours may be called so too");
    }

    #[test]
    fn kinds_that_were_not_asked_for_are_not_read() {
        let mut foreign = Foreign::new(&["openshift".to_owned()]);
        assert!(foreign.convert(&objects(&[("a", FIREWALL)])).texts.is_empty());
    }
}
