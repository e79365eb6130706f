//! Policy files that are only looked at: what the files and folders of a command line say, without an agent.
//!
//! Unlike [`sources`](crate::sources) nothing is remembered: an object with a problem is absent here. So commands that judge
//! ([`PolicyFiles::read_valid`]) refuse files with problems; `check` shows the problems ([`PolicyFiles::read`]).

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use egress_policy::document::{self, Object, Positions};
use egress_policy::model::{PolicyKey, PolicySet};
use egress_policy::warnings::Warning;

use crate::cli::Failure;
use crate::sources::{Problem, is_policy_file, read_regular};

/// Name on the command line of standard input.
const STDIN: &str = "-";

/// What the files hold.
#[derive(Debug, Default)]
pub(crate) struct PolicyFiles {
    /// Files that were read.
    pub(crate) files: usize,
    /// Valid objects.
    pub(crate) objects: usize,
    pub(crate) set: PolicySet,
    pub(crate) problems: Vec<Problem>,
    /// Which file holds the object of a title.
    owners: BTreeMap<Identity, String>,
    texts: BTreeMap<String, Text>,
}

/// A file's text, and where its fields stand as soon as anybody asks.
#[derive(Debug)]
struct Text {
    text: String,
    positions: OnceCell<Positions>,
}

/// An OpenShift policy and one of ours may have one title and are two objects.
type Identity = (Option<PolicyKey>, String);

impl PolicyFiles {
    /// Reads files, the policy files of folders, and standard input for `-`. A path that cannot be read is a wrong argument.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut files = Self::default();
        for (name, text) in texts(paths)? {
            files.add(&name, &text);
        }
        Ok(files)
    }

    /// The same, where files with problems are of no use.
    pub(crate) fn read_valid(paths: &[PathBuf]) -> Result<Self, Failure> {
        let files = Self::read(paths)?;
        if files.problems.is_empty() {
            return Ok(files);
        }
        let problems: Vec<String> = files.problems.iter().map(|problem| format!("\n  {problem}")).collect();
        Err(Failure::usage(format!("the policy files have problems; correct them first:{}", problems.concat())))
    }

    /// The file that holds the policy of `key`, or the configuration.
    pub(crate) fn owner(&self, warning: &Warning) -> Option<&str> {
        let identity = match &warning.policy {
            Some(key) => (Some(PolicyKey::clone(key)), String::new()),
            None => (None, "EgressConfig default".to_owned()),
        };
        self.owners.get(&identity).map(String::as_str)
    }

    /// The line of what a warning is about, in the file that holds it.
    pub(crate) fn line(&self, warning: &Warning) -> Option<usize> {
        let Text { text, positions } = self.texts.get(self.owner(warning)?)?;
        positions.get_or_init(|| Positions::of(text)).line(warning.policy.as_deref(), &warning.path)
    }

    /// What validation noticed and did not refuse, in all objects.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.set.policies.values().flat_map(|policy| &policy.warnings).chain(&self.set.config.warnings)
    }

    fn add(&mut self, file: &str, text: &str) {
        self.files += 1;
        if text.trim().is_empty() {
            let hint = "write a policy into it, or remove it; an agent would keep what the file held before";
            self.problems.push(Problem::new(file, "the file is empty").hint(hint));
        }
        self.texts.insert(file.to_owned(), Text { text: text.to_owned(), positions: OnceCell::new() });
        let documents = document::read(text);
        self.problems.extend(documents.problems.iter().map(|problem| described(file, problem)));
        for object in documents.objects {
            self.insert(file, object);
        }
    }

    fn insert(&mut self, file: &str, object: Object) {
        let identity = match &object {
            Object::Policy(policy) => (Some(PolicyKey::clone(&policy.key)), String::new()),
            Object::Config(_) | Object::Namespace { .. } => (None, object.title()),
        };
        if let Some(owner) = self.owners.get(&identity) {
            let message = format!("the same object is in {owner}, which comes first; that one counts");
            let hint = "remove one of the two, or give it another name";
            self.problems.push(Problem::new(file, message).of(object.title()).hint(hint));
            return;
        }
        self.owners.insert(identity, file.to_owned());
        self.objects += 1;
        match object {
            Object::Policy(policy) => drop(self.set.insert(policy)),
            Object::Config(config) => self.set.config = config,
            Object::Namespace { name, labels } => drop(self.set.namespaces.insert(name, labels)),
        }
    }
}

/// The name and the text of each file, of the policy files of each folder, and of standard input for `-`.
pub(crate) fn texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    let mut texts = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        for path in listed(path)? {
            // A file that is named and lies in a folder that is named too is one file.
            if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                texts.push((label(&path), text(&path)?));
            }
        }
    }
    Ok(texts)
}

fn described(file: &str, problem: &document::Problem) -> Problem {
    let mut described = Problem::new(file, &problem.message).at(problem.document, &problem.path).hint(&problem.hint);
    described.object.clone_from(&problem.object);
    described.line = problem.line;
    described
}

/// The path itself, or the policy files of the folder by name, as the agent reads them.
fn listed(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.as_os_str() == STDIN || !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| unreadable(path, &error))?;
    let wanted =
        |path: &PathBuf| path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(is_policy_file);
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(wanted).collect();
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    if path.as_os_str() == STDIN {
        io::stdin()
            .lock()
            .read_to_string(&mut text)
            .map_err(|error| unreadable(Path::new("standard input"), &error))?;
        return Ok(text);
    }
    let bytes = read_file(path)?;
    String::from_utf8(bytes).map_err(|_| unreadable(path, &io::Error::other("it is not UTF-8 text")))
}

/// Reads a file that the command line names. Process substitution (`<(…)`) is a pipe and is read too.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let is_pipe = path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd");
    let bytes = if is_pipe { fs::read(path) } else { read_regular(path) };
    bytes.map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{} cannot be read: {error}; give a file, a folder of policy files, or -", path.display()))
}

fn label(path: &Path) -> String {
    if path.as_os_str() == STDIN { "standard input".to_owned() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {name: web}\n\
                          spec: {egress: [{type: Deny, to: {cidrSelector: '::/0'}}]}\n";

    #[test]
    fn a_file_that_is_named_twice_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web.yaml");
        fs::write(&file, POLICY).unwrap();
        fs::write(folder.path().join("notes.txt"), "not a policy").unwrap();
        let files = PolicyFiles::read(&[folder.path().to_path_buf(), file]).unwrap();
        assert_eq!((files.files, files.objects, files.problems.len()), (1, 1, 0));
    }

    #[test]
    fn an_object_in_two_files_is_a_problem_of_the_second() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.yaml", "b.yaml"] {
            fs::write(folder.path().join(name), POLICY).unwrap();
        }
        let files = PolicyFiles::read(&[folder.path().to_path_buf()]).unwrap();
        assert_eq!(files.objects, 1);
        assert!(files.problems[0].source.ends_with("b.yaml"));
        assert!(files.problems[0].message.contains("a.yaml"));
        assert!(PolicyFiles::read_valid(&[folder.path().to_path_buf()]).is_err());
    }

    #[test]
    fn an_empty_file_is_a_problem_and_a_missing_one_a_wrong_argument() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web.yaml");
        let failure = PolicyFiles::read(std::slice::from_ref(&file)).unwrap_err();
        assert_eq!(failure.exit, crate::cli::Exit::Usage);
        fs::write(&file, "\n").unwrap();
        assert_eq!(PolicyFiles::read(&[file]).unwrap().problems.len(), 1);
    }
}
