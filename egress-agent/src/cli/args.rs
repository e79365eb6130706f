//! The arguments, as clap reads them. Texts here are what `--help` prints.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use egress_common::abi::capacity;

use crate::kube::Slices;

use super::ask::{self, CheckArgs, CompletionsArgs, DiffArgs, ManArgs, TestArgs, WhyArgs};
use super::import::{self, ImportArgs};
use super::live::{self, MonitorArgs, StatusArgs, SuggestArgs, TopArgs};
use crate::pods::PodName;

/// Sizes of maps are at least one entry.
fn size() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=1 << 26)
}

/// A flow log has room for some lines.
fn bytes() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(4096..)
}

pub(super) const DEFAULT_BPFFS: &str = "/sys/fs/bpf/egress";
pub(super) const DEFAULT_STATE_DIR: &str = "/run/egress";
/// Name of the agent's socket in its state folder.
pub(super) const SOCKET: &str = "agent.sock";

const CLI_EXAMPLES: &str = "\
Exit codes: 0 ok, 1 a negative answer, 2 usage or configuration, 3 runtime.
EGRESS_LOG sets what is logged, for example EGRESS_LOG=debug; NO_COLOR=1 leaves out colours; EGRESS_PAGER, or else PAGER, shows long
answers on a terminal (`cat`: none).";

const RUN_EXAMPLES: &str = "\
Examples:
  egress-agent run --policies /etc/egress/policies --endpoints /etc/egress/endpoints.yaml
  egress-agent run --policies policies --endpoints endpoints.yaml --config config.yaml --log-format json
  egress-agent run --kubernetes     # in a pod of the DaemonSet, with NODE_NAME set
  egress-agent run --kubernetes --kubeconfig ~/.kube/config --node-name node-a --compat openshift,ovn
  egress-agent run --cleanup        # stop enforcing: remove every program, link and map
  egress-agent run --uninstall      # the same with the state folder, then wait: for the pods of a DaemonSet

On SIGTERM or SIGINT the agent exits and the kernel keeps enforcing. SIGHUP reads everything again.
Exit codes: 0 ended by a signal, or removed what there was; 2 wrong arguments or files, 3 the machine lacks something, which is said.";

const MOUNT_EXAMPLES: &str = "\
Examples:
  egress-agent mount-bpffs          # in an init container that may mount on the node: deploy/components/mount-bpffs

Exit codes: 0 a BPF file system is there, 3 none can be mounted.";

const DUMP_EXAMPLES: &str = "\
Examples:
  egress-agent dump                 # who is covered, by which table
  egress-agent dump rules           # every rule with its counters
  egress-agent dump names           # DNS names, their addresses and for how long
  egress-agent dump tables -o json  # prefixes, classes and decisions, for programs
  egress-agent dump rules --pod shop/web --policy shop/default
  egress-agent dump config --raw    # the bytes of the maps

Filters leave what is of other pods and policies; config and stats are the node's, and so are drops by reason.

Works whether the agent runs or not: everything is read from the pinned maps.
On a terminal long answers go through $EGRESS_PAGER, $PAGER or less; `cat` is none.
Exit codes: 0 shown, 1 nothing is pinned there, 3 the maps cannot be read, or another version of the agent made them.";

/// Egress firewall for Kubernetes pods, enforced in the kernel.
#[derive(Debug, Parser)]
#[command(name = "egress-agent", version, about, after_help = CLI_EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Enforce policies on the pods of this machine, from the Kubernetes API or from files, and follow their changes.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Mount a BPF file system at /sys/fs/bpf if none is there. For an init container, on nodes that boot without one.
    #[command(after_help = MOUNT_EXAMPLES)]
    MountBpffs,
    /// Say how the agent and its part in the kernel are doing.
    #[command(after_help = live::STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Show refusals, and what policies under Audit would refuse, as they happen.
    #[command(after_help = live::MONITOR_EXAMPLES)]
    Monitor(MonitorArgs),
    /// Show who is refused what, by rate, on one screen.
    #[command(after_help = live::TOP_EXAMPLES)]
    Top(TopArgs),
    /// Write a policy that would have allowed what policies under Audit would have refused.
    #[command(after_help = live::SUGGEST_EXAMPLES)]
    Suggest(SuggestArgs),
    /// Show what the kernel enforces.
    #[command(after_help = DUMP_EXAMPLES)]
    Dump(DumpArgs),
    /// Say what the kernel does with a connection of a pod now, and by which rule.
    #[command(after_help = ask::WHY_EXAMPLES)]
    Why(WhyArgs),
    /// Validate policy files: every problem with its line and field, and what is probably not meant.
    #[command(after_help = ask::CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Say what policy files would do with connections, without a kernel.
    #[command(after_help = ask::TEST_EXAMPLES)]
    Test(TestArgs),
    /// Show which destinations change verdict between two sets of policies, exactly.
    #[command(after_help = ask::DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Read the rules of other firewalls and write them as policies, with a report of every difference.
    #[command(after_help = import::IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Print the completion script of a shell.
    #[command(after_help = ask::COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Write the manual pages to a folder.
    #[command(after_help = ask::MAN_EXAMPLES)]
    Man(ManArgs),
}

#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Folder of policy files (*.yaml, *.yml, *.json), watched for changes.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["cleanup", "uninstall", "kubernetes"])]
    pub(crate) policies: Option<PathBuf>,
    /// File that lists the pods of this machine, watched for changes.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["cleanup", "uninstall", "kubernetes"])]
    pub(crate) endpoints: Option<PathBuf>,
    /// File with the `EgressConfig`, if it is not in the policies folder; watched for changes.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder on a BPF file system where programs and maps are pinned.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub(crate) bpffs: PathBuf,
    /// Root of the cgroup v2 hierarchy [default: its mount point, from /proc/self/mountinfo].
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup_root: Option<PathBuf>,
    /// Folder for status.json, the flow log and the last good version of every object.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// Unix socket on which the other commands ask this agent; only its owner may [default: agent.sock in --state-dir].
    #[arg(long, value_name = "FILE")]
    pub(crate) socket: Option<PathBuf>,
    /// Serve /metrics, /healthz and /readyz on this address, such as 127.0.0.1:9477 or [::]:9477.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,
    /// Name of this node, as the cluster knows it [default: its host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// Where refusals are written, one JSON object per line; - is standard output [default: events.jsonl in --state-dir].
    #[arg(long, value_name = "FILE", help_heading = "Flow log")]
    pub(crate) flow_log: Option<PathBuf>,
    /// Write the first packet of every allowed connection too; --events-per-second limits them likewise.
    #[arg(long, help_heading = "Flow log")]
    pub(crate) flow_log_allowed: bool,
    /// Bytes after which the flow log is put aside as FILE.1, and that one as FILE.2.
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 20, help_heading = "Flow log", value_parser = bytes())]
    pub(crate) flow_log_size: u64,
    /// Files put aside that are kept.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Flow log", value_parser = RangedU64ValueParser::<u32>::new().range(..=1000))]
    pub(crate) flow_log_files: u32,
    /// How to log [default: human on a terminal, json otherwise].
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// Denial events per second, pod and rule; more are counted and reported as repeats.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = size())]
    pub(crate) events_per_second: u32,
    /// Pods that fit into the maps. Sizes count when the maps are made, which is at the first run after a cleanup.
    #[arg(long, value_name = "N", default_value_t = capacity::ENDPOINTS, help_heading = "Sizes", value_parser = size())]
    pub(crate) max_endpoints: u32,
    /// Distinct rule lists that fit, together with the ones being replaced.
    #[arg(long, value_name = "N", default_value_t = capacity::TABLES, help_heading = "Sizes", value_parser = size())]
    pub(crate) max_tables: u32,
    /// Rules that are counted one by one, rounded up to a power of two: 16 bytes for each CPU. Further tables count only allowed and denied.
    #[arg(long, value_name = "N", default_value_t = capacity::RULE_COUNTERS, help_heading = "Sizes", value_parser = size())]
    pub(crate) max_rule_counters: u32,
    /// Connections that are remembered; the least recently used go first.
    #[arg(long, value_name = "N", default_value_t = capacity::FLOWS, help_heading = "Sizes", value_parser = size())]
    pub(crate) max_flows: u32,
    /// Remove every program, link and map of an earlier run, and exit.
    #[arg(long, conflicts_with_all = ["policies", "endpoints", "config"])]
    pub(crate) cleanup: bool,
    /// The same, with the folder --state-dir; then answer /healthz and /readyz and wait for a signal. For the pods of a `DaemonSet`.
    #[arg(long, conflicts_with_all = ["policies", "endpoints", "config", "cleanup", "kubernetes"])]
    pub(crate) uninstall: bool,
}

/// What `--kubernetes` needs to know.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Take policies and pods from the Kubernetes API instead of files.
    #[arg(long, conflicts_with_all = ["policies", "endpoints", "config"], help_heading = "Kubernetes")]
    pub(crate) kubernetes: bool,
    /// How to reach the API server [default: as the pod that the agent runs in].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", help_heading = "Kubernetes")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Enforce the rules of these foreign kinds too, while the cluster has them; names as in `egress-agent import --from`.
    #[arg(long, value_name = "KIND", value_delimiter = ',', requires = "kubernetes", help_heading = "Kubernetes", value_parser = PossibleValuesParser::new(crate::kube::compat_names()))]
    pub(crate) compat: Vec<String>,
    /// Kubelet's cgroup below the root of the hierarchy, such as kubepods or node-a/kubepods [default: found].
    #[arg(long, value_name = "PATH", requires = "kubernetes", help_heading = "Kubernetes")]
    pub(crate) kubepods: Option<PathBuf>,
    /// Which endpoints of services to watch.
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Slices::All, requires = "kubernetes", help_heading = "Kubernetes")]
    pub(crate) endpoint_slices: Slices,
    /// Take the taint egress.rs/agent-not-ready off this node when its kernel enforces, so that nodes that join get pods only then.
    #[arg(long, requires = "kubernetes", help_heading = "Kubernetes")]
    pub(crate) remove_taint: bool,
}

impl RunArgs {
    /// The socket to listen on.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state_dir.join(SOCKET))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// What to show.
    #[arg(value_enum, default_value_t = Subject::Endpoints)]
    pub(crate) subject: Subject,
    /// Folder on a BPF file system where programs and maps are pinned.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub(crate) bpffs: PathBuf,
    /// Folder of the agent's names.json, which says which concrete names the addresses belong to.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// Only this pod, and what judges it.
    #[arg(long, value_name = "NS/POD", conflicts_with = "namespace")]
    pub(crate) pod: Option<PodName>,
    /// Only pods of this namespace, and what judges them.
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    /// Only this policy's: NAMESPACE/NAME, or the name of a cluster policy.
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Option<String>,
    /// The bytes of the maps behind it, key by key in hexadecimal; of arrays, entries that are zero are left out.
    #[arg(long, conflicts_with_all = ["pod", "namespace", "policy"])]
    pub(crate) raw: bool,
    /// Format of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Pods, what they are known by, and their tables.
    Endpoints,
    /// Each table's prefixes with the decisions they lead to.
    Tables,
    /// Each table's rules in order of evaluation, with counters.
    Rules,
    /// Packets per rule that counted any, and per drop reason.
    Counters,
    /// Remembered connections.
    Flows,
    /// DNS names of the rules, their addresses and how long these count.
    Names,
    /// Settings of the programs.
    Config,
    /// Node-wide figures of the programs.
    Stats,
    /// All of the above.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned columns.
    Table,
    /// JSON with a `version` field.
    Json,
    /// The same as YAML.
    Yaml,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_needs_policies_and_endpoints_unless_it_cleans_up() {
        assert!(Cli::try_parse_from(["egress-agent", "run"]).is_err());
        assert!(Cli::try_parse_from(["egress-agent", "run", "--policies", "p"]).is_err());
        assert!(Cli::try_parse_from(["egress-agent", "run", "--policies", "p", "--endpoints", "e"]).is_ok());
        assert!(Cli::try_parse_from(["egress-agent", "run", "--cleanup"]).is_ok());
        assert!(Cli::try_parse_from(["egress-agent", "run", "--uninstall"]).is_ok());
        assert!(Cli::try_parse_from(["egress-agent", "run", "--kubernetes", "--compat", "openshift,ovn"]).is_ok());
        assert!(Cli::try_parse_from(["egress-agent", "run", "--kubernetes", "--policies", "p"]).is_err());
        assert!(Cli::try_parse_from(["egress-agent", "run", "--kubernetes", "--compat", "nonsense"]).is_err());
    }
}
