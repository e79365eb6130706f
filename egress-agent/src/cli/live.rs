//! The arguments of the commands that ask the running agent: `status`, `monitor`, `top`, `suggest`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Output;
use super::args::{DEFAULT_BPFFS, DEFAULT_STATE_DIR, SOCKET};
use crate::pods::PodName;

/// Where the running agent is found.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Folder of the agent's state, as given to `run`.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// The agent's socket [default: agent.sock in --state-dir].
    #[arg(long, value_name = "FILE")]
    pub(crate) socket: Option<PathBuf>,
}

impl Connection {
    /// The socket.
    pub(crate) fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state_dir.join(SOCKET))
    }
}

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  egress-agent status
  egress-agent status -o json

The running agent answers; where none runs, the pinned maps and what it last wrote are read, and the answer says so.
Exit codes: 0 well, 1 there are problems, pods wait for their rules, or no agent runs; 3 neither agent nor maps can be asked.";

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Folder on a BPF file system where programs and maps are pinned, for when no agent runs.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub(crate) bpffs: PathBuf,
    /// Format of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

pub(super) const MONITOR_EXAMPLES: &str = "\
Examples:
  egress-agent monitor                              # everything that is refused, or would be under Audit
  egress-agent monitor --denied --pod shop/web
  egress-agent monitor --audit --policy shop/trial -o json | jq .

The running agent passes them on; docs/flow-log.md documents the fields. Of more than --events-per-second (of `run`) equal ones the
others are counted as repeats.
Exit codes: 0 --limit is reached, or nobody reads any more; 3 no agent runs, or it ended.";

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct MonitorArgs {
    /// Only what was refused.
    #[arg(long)]
    pub(crate) denied: bool,
    /// Only what policies under Audit would have refused, or would have allowed.
    #[arg(long)]
    pub(crate) audit: bool,
    /// Only first packets of allowed connections, if the agent runs with --flow-log-allowed; nothing else shows them.
    #[arg(long, conflicts_with_all = ["denied", "audit"])]
    pub(crate) allowed: bool,
    /// Only destinations of which a DNS name is known.
    #[arg(long)]
    pub(crate) dns: bool,
    /// Only pods of this namespace.
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    /// Only this pod.
    #[arg(long, value_name = "NS/POD", conflicts_with = "namespace")]
    pub(crate) pod: Option<PodName>,
    /// Only rules of this policy: NAMESPACE/NAME, or the name of a cluster policy.
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Option<String>,
    /// End after this many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Format of the events; json is one object per line.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  egress-agent top
  egress-agent top --namespace shop

Pods and destinations are counted from the events since the command was started; rules from their counters.
Keys: q quit, p pause, s sort by what is refused, by what Audit would refuse, in all or by name, / filter by text, r begin anew.
Exit codes: 0 ended by a key or a signal, 2 standard output is no terminal, 3 no agent runs.";

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Only pods of this namespace; rules are shown of all.
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

pub(super) const SUGGEST_EXAMPLES: &str = "\
Examples:
  egress-agent suggest --namespace shop --since 1h
  egress-agent suggest --namespace shop --deny-rest > shop.yaml      # stands for itself: what was not seen is denied
  egress-agent suggest --namespace shop --pod web-1 -o json

Made from what policies under Audit would have refused on this node: allowing exactly that, by name where one is known, else by the
smallest prefixes. The agent remembers 16,384 distinct (pod, destination, protocol, port, policy); the least recently seen go first.
Rules of the Admin tier come before those of a namespace; what they would refuse is named in a comment. Without --deny-rest the policy
is meant to stand beside the present ones, so it comes before those of the default priority.
Exit codes: 0 a policy, 1 nothing to allow was seen, 3 no agent runs, and none has stored anything.";

/// A time such as 90s, 15m, 1h, 7d.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; write a number and a unit, such as 90s, 15m, 1h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[derive(Debug, Args)]
pub(crate) struct SuggestArgs {
    /// The namespace that the policy is for.
    #[arg(short, long, value_name = "NS", value_parser = kubernetes_name)]
    pub(crate) namespace: String,
    /// Only what this pod was seen to do.
    #[arg(long, value_name = "POD")]
    pub(crate) pod: Option<String>,
    /// Only what was seen in this time [default: everything that is remembered].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Name of the policy.
    #[arg(long, value_name = "NAME", default_value = "suggested", value_parser = kubernetes_name)]
    pub(crate) name: String,
    /// Its priority; lower comes first, policies that name none have 100.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(..=1000))]
    pub(crate) priority: u16,
    /// End the policy with rules that deny everything else.
    #[arg(long)]
    pub(crate) deny_rest: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Format of the answer; table is a policy file with comments.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// A name that needs no quotes in YAML.
fn kubernetes_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if !text.is_empty() && text.len() <= 253 && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a Kubernetes name; use small letters, digits, '-' and '.', at most 253"))
}
