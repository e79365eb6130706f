//! The arguments of `import`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use egress_policy::import::{KINDS, Target};

use super::Output;

pub(super) const IMPORT_EXAMPLES: &str = "\
Examples:
  egress-agent import firewall.yaml > policies/firewall.yaml
  oc get egressnetworkpolicy -A -o yaml | egress-agent import -
  egress-agent import --strict --namespace shop old/      # fails unless every rule means the same
  egress-agent import -o table old/                       # only the report, with every rule
  egress-agent import --to ovn policies/                  # our policies as EgressFirewall objects

Objects go to standard output, the report to standard error; -o json has both. What a rule of the report may be:
  exact          every verdict on traffic to outside of the cluster is the same
  not expressed  it says something else than such a verdict; verdicts are the same
  narrower       something that passes there is refused here, and nothing more passes
  wider          something that is refused there passes here
Exit codes: 0 done, 1 something cannot be read as rules (with --strict also: not all exact), 2 a file cannot be read.";

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Files with objects or lists of other firewalls, or folders of them (*.yaml, *.yml, *.json); - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Read only this kind; without it the kind of every object is found out.
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    pub(crate) from: Option<String>,
    /// Namespace of objects that name none.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Write the objects of another firewall instead, as far as it can say them; our own objects are read too.
    #[arg(long, value_name = "TARGET", value_parser = PossibleValuesParser::new(Target::NAMES.map(|(name, _)| name)))]
    pub(crate) to: Option<String>,
    /// Exit with 1 unless every rule is exact.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Objects and a report of the differences (yaml), both for programs (json), or the whole report alone (table).
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    pub(crate) output: Output,
}

fn kinds() -> PossibleValuesParser {
    PossibleValuesParser::new(KINDS.iter().map(|kind| clap::builder::PossibleValue::new(kind.name).help(kind.title)))
}
