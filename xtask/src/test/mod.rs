//! `cargo xtask test`: set-up, build, checks, every test, one summary.
//!
//! Invariants: a test that says `SKIPPED: reason` counts as skipped and never as passed; a package without tests, or a
//! test program whose report is incomplete, is a failure; the last line of standard output is the three counts.

mod checks;
mod execution;
pub(crate) mod libtest;
mod programs;
pub(crate) mod tally;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::ebpf;
use crate::progress;
use crate::setup::{self, Group};
use crate::tree::Tree;
use tally::Tally;

pub(crate) use programs::{TestProgram, from_cargo_messages};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the packages that need neither root nor the eBPF programs, and the quick checks.
    #[arg(long)]
    quick: bool,
    /// Leave out formatting, lints, dependency and documentation checks.
    #[arg(long)]
    skip_checks: bool,
    /// Only these packages.
    #[arg(short, long, value_name = "PACKAGE")]
    package: Vec<String>,
    /// Only the tests on a cluster: install in the one that KUBECONFIG names, try everything, and remove it again.
    #[arg(long, conflicts_with_all = ["quick", "package"])]
    cluster: bool,
    /// The agent's image, where the cluster's nodes can pull it or have it [default: the name in deploy/, loaded before].
    #[arg(long, value_name = "IMAGE", requires = "cluster", help_heading = "Cluster")]
    agent_image: Option<String>,
    /// An image with sh, nc and httpd for clients and servers [default: docker.io/library/busybox:stable].
    #[arg(long, value_name = "IMAGE", requires = "cluster", help_heading = "Cluster")]
    client_image: Option<String>,
    /// Components of deploy/components that this cluster needs, such as mount-bpffs for kind or openshift.
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "cluster", help_heading = "Cluster")]
    component: Vec<String>,
    /// A program that restarts the node whose name it is given.
    #[arg(long, value_name = "PROGRAM", requires = "cluster", help_heading = "Cluster")]
    restart_node: Option<PathBuf>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// What `--quick` tests: no root, no eBPF object.
const PURE: &[&str] = &["egress-common", "egress-policy", "egress-reference", "egress-import", "xtask"];

/// The package of the tests on a cluster.
const ON_A_CLUSTER: &str = "egress-cluster";

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let tree = Tree::locate()?;
    let mut tally = Tally::default();
    if args.cluster {
        let packages = [ON_A_CLUSTER.to_owned()];
        programs::run_all(&tree, &packages, args.filter.as_deref(), &args.environment(), &mut tally)?;
        tally.print(started.elapsed());
        return Ok(tally.exit_code());
    }
    let ready = if args.quick { None } else { Some(setup::ensure(&tree, &[Group::Build, Group::Test])?) };
    if let Some(ready) = &ready {
        ebpf::build(&tree, ready, false)?;
    }
    if !args.skip_checks && args.package.is_empty() && args.filter.is_none() {
        checks::run(&tree, ready.as_ref(), &mut tally)?;
    }
    let packages: Vec<String> = match (args.package.is_empty(), args.quick) {
        (false, _) => args.package.clone(),
        (true, true) => PURE.iter().map(|name| (*name).to_owned()).collect(),
        (true, false) => Vec::new(),
    };
    programs::run_all(&tree, &packages, args.filter.as_deref(), &[], &mut tally)?;
    tally.print(started.elapsed());
    Ok(tally.exit_code())
}

impl Args {
    /// What the tests on a cluster are told. The first alone lets them touch one.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut environment = vec![("EGRESS_TEST_CLUSTER", "1".into())];
        let options = [
            ("EGRESS_IMAGE", self.agent_image.clone().map(OsString::from)),
            ("EGRESS_CLIENT_IMAGE", self.client_image.clone().map(OsString::from)),
            ("EGRESS_COMPONENTS", Some(self.component.join(",").into())),
            ("EGRESS_RESTART_NODE", self.restart_node.clone().map(OsString::from)),
        ];
        environment.extend(options.into_iter().filter_map(|(name, value)| Some((name, value?))));
        environment
    }
}

/// Reports one check or test program and adds it to the tally.
fn failed(tally: &mut Tally, name: &str, why: &str) {
    progress::step(progress::Mark::Failed, name, why, None);
    tally.fail(name, why);
}
