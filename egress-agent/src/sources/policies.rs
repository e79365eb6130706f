//! The policies folder and the config file: every object in force, good or last good.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use egress_policy::document::{self, Object};
use egress_policy::model::{PolicyKind, PolicySet};

use super::endpoints::forgotten;
use super::folder::{FileText, read_file, read_folder};
use super::last_good::LastGood;
use super::merge::{Entry, Parsed, Parser, merge};
use super::problem::Problem;

/// The folder, the config file, and the last good version of each of their objects.
#[derive(Debug)]
pub(crate) struct PolicySource {
    folder: PathBuf,
    config: Option<PathBuf>,
    parser: Parser<Object>,
    last: LastGood<Object>,
    /// Files as they were when the folder could last be read.
    files: Vec<FileText>,
    start_problems: Vec<Problem>,
}

/// Everything that the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) set: PolicySet,
    pub(crate) problems: Vec<Problem>,
    /// Objects of which an older version is in force.
    pub(crate) kept: usize,
}

impl PolicySource {
    pub(crate) fn new(folder: &Path, config: Option<&Path>, state_dir: &Path) -> Self {
        let mut parser = Parser::new(parse);
        let (last, unreadable) = LastGood::load(&state_dir.join("last-good/policies"), &mut parser);
        Self {
            folder: folder.to_path_buf(),
            config: config.map(Path::to_path_buf),
            parser,
            last,
            files: Vec::new(),
            start_problems: unreadable.into_iter().map(forgotten).collect(),
        }
    }

    /// For objects of a cluster, which come by [`PolicySource::take`].
    pub(crate) fn of_cluster(state_dir: &Path) -> Self {
        let mut parser = Parser::new(parse_in_cluster);
        let (last, unreadable) = LastGood::load(&state_dir.join("last-good/cluster"), &mut parser);
        Self {
            folder: PathBuf::new(),
            config: None,
            parser,
            last,
            files: Vec::new(),
            start_problems: unreadable.into_iter().map(forgotten).collect(),
        }
    }

    /// What was in force when [`PolicySource::save`] was last called, be it by an earlier agent.
    pub(crate) fn last_good(&self) -> PolicySet {
        policy_set(self.last.versions.values().map(|version| version.value.clone()))
    }

    /// Reads the files as they are now.
    pub(crate) fn read(&mut self) -> Policies {
        let mut problems = self.start_problems.clone();
        // First in order, so that it wins over an EgressConfig in the folder.
        let mut files: Vec<FileText> =
            self.config.iter().map(|path| read_file(path.display().to_string(), path)).collect();
        match read_folder(&self.folder, self.config.as_deref()) {
            Ok(read) => self.files = read,
            Err(error) => problems.push(self.unreadable(&error)),
        }
        files.extend(self.files.iter().cloned());
        self.merged(&files, problems)
    }

    /// Takes the objects of a cluster, each as a text of its own.
    pub(crate) fn take(&mut self, files: &[FileText]) -> Policies {
        self.merged(files, self.start_problems.clone())
    }

    fn merged(&mut self, files: &[FileText], mut problems: Vec<Problem>) -> Policies {
        let merged = merge(files, &mut self.parser, &mut self.last);
        problems.extend(merged.problems);
        Policies { set: policy_set(merged.values.into_values()), problems, kept: merged.kept }
    }

    /// Remembers what is in force for the next start of the agent.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        self.last.save()
    }

    fn unreadable(&self, error: &io::Error) -> Problem {
        let message = format!("the policies folder cannot be read: {error}");
        Problem::new(self.folder.display().to_string(), message)
            .hint("all policies stay in force as they are; bring the folder back, or empty it to remove them")
    }
}

/// Checks that the folder can be read, before anything is started.
pub(crate) fn check_folder(folder: &Path) -> io::Result<()> {
    fs::read_dir(folder).map(drop)
}

fn policy_set(objects: impl Iterator<Item = Object>) -> PolicySet {
    let mut set = PolicySet::default();
    for object in objects {
        match object {
            Object::Policy(policy) => drop(set.insert(policy)),
            Object::Config(config) => set.config = config,
            Object::Namespace { name, labels } => drop(set.namespaces.insert(name, labels)),
        }
    }
    set
}

/// OpenShift's and our policies of one name are different objects with one title.
fn key(object: &Object) -> String {
    match object {
        Object::Policy(policy) if policy.key.kind == PolicyKind::OpenShiftEgressNetworkPolicy => {
            openshift(&object.title())
        }
        Object::Policy(_) | Object::Config(_) | Object::Namespace { .. } => object.title(),
    }
}

fn openshift(title: &str) -> String {
    format!("{title} (OpenShift)")
}

fn parse(file: &str, text: &str) -> Parsed<Object> {
    parsed(file, &document::read(text))
}

/// Objects of the API server have no lines, and the cluster may tell what is internal.
fn parse_in_cluster(file: &str, text: &str) -> Parsed<Object> {
    let mut documents = document::read_in_cluster(text);
    documents.problems.iter_mut().for_each(|problem| problem.line = None);
    parsed(file, &documents)
}

fn parsed(file: &str, documents: &document::Documents) -> Parsed<Object> {
    let titles: BTreeSet<String> = documents.objects.iter().map(Object::title).collect();
    // A second object of a name is a problem of this text, and its first one is good.
    let broken: BTreeSet<&String> = documents.problems.iter().filter_map(|problem| problem.object.as_ref()).collect();
    let broken = broken.into_iter().filter(|title| !titles.contains(*title));
    let broken = broken.map(|title| Entry::Broken(vec![title.clone(), openshift(title)]));
    let good = documents.objects.iter().map(|object| Entry::Good(key(object), object.clone()));
    Parsed {
        entries: good.chain(broken).collect(),
        unnamed: documents.problems.iter().any(|problem| problem.object.is_none()),
        problems: documents.problems.iter().map(|problem| described(file, problem)).collect(),
    }
}

fn described(file: &str, problem: &document::Problem) -> Problem {
    let mut described = Problem::new(file, &problem.message).at(problem.document, &problem.path).hint(&problem.hint);
    described.object.clone_from(&problem.object);
    described.line = problem.line;
    described
}

#[cfg(test)]
mod tests;
