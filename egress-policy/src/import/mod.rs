//! Rules of other firewalls, read and written as our objects, with every difference in meaning said.
//!
//! [`import`] is a pure function from texts to objects and a [`Report`]; the command line calls it with files, and whoever watches a
//! cluster can call it with what it watches, since objects that depend on each other are converted together. Each kind is a file of its
//! own with a [`Kind`] in [`kind::KINDS`]; it reads through the document tree (every line is known) and says of each source rule whether
//! our objects treat the traffic that it speaks of exactly as there. Invariant: traffic to outside of the cluster is compared; a rule is
//! `exact` only if every verdict is equal, and where ours lets more through the row says `wider`.

mod asm;
mod build;
mod calico;
mod cilium;
mod cnp;
mod draft;
mod egress_router;
mod gather;
mod istio;
mod kind;
mod manifest;
mod netpol;
mod openshift;
mod ordered;
mod osm;
mod ours;
mod ovn;
mod pods;
mod reading;
mod report;
mod to;

use std::collections::{BTreeMap, BTreeSet};

use self::draft::Draft;
use self::gather::Foreign;
pub use self::kind::{Api, KINDS, Kind, kind};
pub use self::manifest::{Manifest, Metadata, RuleSource, Spec};
use self::report::Origin;
pub use self::report::{Judgement, Note, Outcome, Place, Report, Row, Skipped, SourceProblem};
pub use self::to::{Target, export};
use crate::document::{DEFAULT_NAMESPACE, Fields, Report as Reader};
use crate::spec::{ClusterEgressPolicySpec, EgressConfigSpec, EgressNetworkPolicySpec, EgressRule, MAX_RULES};

/// A text with objects or lists, and what messages call it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'t> {
    /// The file's name.
    pub name: &'t str,
    /// What it holds.
    pub text: &'t str,
}

/// How texts are read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only this kind; without one the kind of every object is found out.
    pub from: Option<&'static Kind>,
    /// The namespace of objects that name none.
    pub namespace: Option<String>,
}

/// What became of the texts.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Our objects.
    pub objects: Vec<Manifest>,
    /// What they say differently, and what could not be read.
    pub report: Report,
}

/// Reads every object of `sources` and converts those of known kinds.
pub fn import(sources: &[Source<'_>], options: &Options) -> Imported {
    let mut import = Import::new(options);
    if let Some((kind, convert)) = options.from.and_then(|kind| kind.list.map(|convert| (kind, convert))) {
        import.kind = kind.name;
        convert(sources, &mut import);
        return import.finish(sources);
    }
    let documents = gather::parse(sources, &mut import);
    let objects = gather::objects(&documents, &mut import);
    for kind in KINDS.iter().copied() {
        let of_kind: Vec<&Foreign<'_>> = objects.iter().filter(|object| object.known.name == kind.name).collect();
        if !of_kind.is_empty() {
            import.kind = kind.name;
            (kind.convert)(&of_kind, &mut import);
        }
    }
    import.finish(sources)
}

/// Where a conversion stands: what the kinds add their results to.
pub struct Import<'o> {
    options: &'o Options,
    /// The kind that is at work.
    kind: &'static str,
    objects: Vec<Manifest>,
    report: Report,
    config: Option<EgressConfigSpec>,
    /// Names of our objects that are taken: kind, namespace, name.
    taken: BTreeSet<(&'static str, String, String)>,
    /// The kinds that wrote into the namespace tier, by namespace.
    writers: BTreeMap<Option<String>, BTreeSet<&'static str>>,
}

impl<'o> Import<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            kind: "",
            objects: Vec::new(),
            report: Report::default(),
            config: None,
            taken: BTreeSet::new(),
            writers: BTreeMap::new(),
        }
    }

    /// Decodes `object`. Nothing comes back if anything in it is a problem; the problems are kept.
    fn read<'n, T>(
        &mut self,
        object: &Foreign<'n>,
        decode: impl FnOnce(&mut Reader<'n>, Fields<'n>) -> Option<T>,
    ) -> Option<T> {
        let mut reader = object.reader();
        let decoded = decode(&mut reader, object.fields());
        let failed = !reader.problems.is_empty();
        self.report.keep(object.source, object.document, reader);
        decoded.filter(|_| !failed)
    }

    /// Notes a difference that belongs to no draft.
    fn row(&mut self, origin: &impl Origin, place: &Place, rule: impl Into<String>, judgement: Judgement) {
        self.report.rows.push(origin.row(place, rule, judgement));
    }

    /// Writes an `EgressNetworkPolicy`; `spec` has everything but the rules, which are the draft's.
    fn policy(&mut self, draft: Draft, namespace: Option<&str>, name: &str, spec: EgressNetworkPolicySpec) {
        let namespace = namespace.map(str::to_owned);
        self.writers.entry(namespace.clone()).or_default().insert(self.kind);
        self.write(draft, namespace, name, |egress| Spec::Policy(EgressNetworkPolicySpec { egress, ..spec }));
    }

    /// Says that `object` has no rules that are read.
    fn skip(&mut self, object: &Foreign<'_>) {
        self.report.skipped.push(object.skipped());
    }

    /// Keeps what is to be said of a draft that became no object.
    fn said(&mut self, draft: Draft) {
        self.report.rows.extend(draft.done().1.into_iter().map(|row| row.into_object("")));
    }

    /// Writes a `ClusterEgressPolicy`; `spec` has everything but the rules, which are the draft's.
    fn cluster_policy(&mut self, draft: Draft, name: &str, spec: ClusterEgressPolicySpec) {
        self.write(draft, None, name, |egress| Spec::Cluster(ClusterEgressPolicySpec { egress, ..spec }));
    }

    /// The `EgressConfig`, which is one for all kinds and is written if a kind asks for it.
    fn config(&mut self) -> &mut EgressConfigSpec {
        self.config.get_or_insert_default()
    }

    fn write(
        &mut self,
        draft: Draft,
        namespace: Option<String>,
        name: &str,
        spec: impl FnOnce(Vec<EgressRule>) -> Spec,
    ) {
        if let Some(problem) = draft.too_large(MAX_RULES) {
            self.report.problems.push(problem);
            return;
        }
        let sources = draft.sources();
        let (rules, rows) = draft.done();
        let mut object = Manifest { sources, ..Manifest::new(namespace, name, spec(rules)) };
        self.name_apart(&mut object);
        let title = object.title();
        self.report.rows.extend(rows.into_iter().map(|row| row.into_object(&title)));
        self.objects.push(object);
    }

    /// Gives `object` a name that none of its kind has.
    fn name_apart(&mut self, object: &mut Manifest) {
        let wanted = object.metadata.name.clone();
        // An object that names no namespace may end in the default one.
        let namespace = object.metadata.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let mut number = 2;
        while !self.taken.insert((object.kind, namespace.clone(), object.metadata.name.clone())) {
            object.metadata.name = format!("{wanted}-{number}");
            number += 1;
        }
    }

    /// What is left to do when all kinds are converted.
    fn finish(mut self, sources: &[Source<'_>]) -> Imported {
        for (namespace, kinds) in std::mem::take(&mut self.writers) {
            if kinds.len() > 1 {
                self.report.mixed(namespace.as_deref(), &kinds);
            }
        }
        if let Some(config) = self.config.take() {
            self.objects.push(Manifest::new(None, "default", Spec::Config(config)));
        }
        self.report.settle(sources);
        Imported { objects: self.objects, report: self.report }
    }
}

/// The spec of a policy for every pod of its namespace, to which a draft's rules are added.
const fn policy_spec() -> EgressNetworkPolicySpec {
    EgressNetworkPolicySpec {
        egress: Vec::new(),
        pod_selector: None,
        service_accounts: None,
        priority: None,
        mode: None,
    }
}

#[cfg(test)]
mod tests;
