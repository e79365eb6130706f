//! The arguments of the commands that answer questions: `check`, and what is asked of policies and of the kernel.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Output;
use super::args::{DEFAULT_BPFFS, DEFAULT_STATE_DIR, SOCKET};
use crate::destination::Destination;
use crate::pods::{Label, PodName};

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  egress-agent check policies/                  # every policy file of the folder
  egress-agent check --strict web.yaml          # warnings count too
  kubectl get enp -A -o yaml | egress-agent check -

Files in subfolders are not read, as the agent does not read them.
Exit codes: 0 no problem, 1 problems (with --strict also warnings), 2 a file cannot be read.";

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Policy files, or folders of them (*.yaml, *.yml, *.json); - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Let warnings make the exit code 1.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Format of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

pub(super) const TEST_EXAMPLES: &str = "\
Examples:
  egress-agent test policies/ --endpoints endpoints.yaml --from shop/web --to 1.2.3.4:443
  egress-agent test policies/ --from shop/web --labels app=web --to 1.2.3.4:443 --to '[2001:db8::1]:53/UDP'
  egress-agent test policies/ --from shop/web --to 8.8.8.8:443 --explain
  egress-agent test policies/ --cases cases.yaml      # for continuous integration
  egress-agent test policies/ --cases cases.yaml --kernel   # the same through the programs of the kernel, as root

A destination is ADDRESS[:PORT][/PROTOCOL]. Without a protocol TCP is meant, without a port every port. For ICMP the port is the type.
A file of cases is a list of {from, to, expect: Allow|Deny}, each with these if you like: rule (what decides: its name, its text, or
\"rule 2 of shop/web\"), and without --endpoints: labels, serviceAccount.
Nothing of this machine is looked at: DNS to the resolvers of its resolv.conf, which an agent always allows, is judged like the rest.
Exit codes: 0 everything is allowed (or as expected), 1 something is not, 2 wrong arguments or policies, 3 the judges disagree (a bug),
or --kernel cannot load the programs.";

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Policy files, or folders of them; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Endpoints file with the labels and service accounts of the pods.
    #[arg(long, value_name = "FILE")]
    pub(crate) endpoints: Option<PathBuf>,
    /// The pod that connects.
    #[arg(long, value_name = "NS/POD", required_unless_present = "cases")]
    pub(crate) from: Option<PodName>,
    /// Where it connects to; may be given several times.
    #[arg(long, value_name = "DEST", required_unless_present = "cases")]
    pub(crate) to: Vec<Destination>,
    /// Labels of the pod, if there is no endpoints file.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', conflicts_with = "endpoints")]
    pub(crate) labels: Vec<Label>,
    /// Service account of the pod, if there is no endpoints file.
    #[arg(long, value_name = "NAME", conflicts_with = "endpoints")]
    pub(crate) service_account: Option<String>,
    /// File with a list of probes and what is expected of each.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "labels", "service_account"])]
    pub(crate) cases: Option<PathBuf>,
    /// Let the real programs judge too, a packet per probe and interval of ports, and fail where they differ. Needs root.
    #[arg(long)]
    pub(crate) kernel: bool,
    /// Show each rule that is considered and what it has to do with the verdict.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Format of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

pub(super) const DIFF_EXAMPLES: &str = "\
Examples:
  egress-agent diff old/ new/ --endpoints endpoints.yaml
  git show HEAD:web.yaml | egress-agent diff - web.yaml

Each line holds for exactly the addresses of its prefix that are in none of the excepted ones, and for the ports that it names.
What only moves or renames rules is no difference. Without --endpoints one pod is compared for each selector of the policies.
Exit codes: 0 no verdict changes, 1 some do, 2 wrong arguments or policies.";

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The policies as they were: a file, a folder, or - for standard input.
    pub(crate) old: PathBuf,
    /// The policies as they would be.
    pub(crate) new: PathBuf,
    /// Endpoints file with the pods to compare.
    #[arg(long, value_name = "FILE")]
    pub(crate) endpoints: Option<PathBuf>,
    /// Format of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

pub(super) const WHY_EXAMPLES: &str = "\
Examples:
  egress-agent why shop/web 1.2.3.4:443
  egress-agent why shop/web '[2001:db8::1]:53/UDP'
  egress-agent why shop/web 8.8.8.8                # every TCP port
  egress-agent why shop/web 8.8.8.8/ICMP -o json

Read from the kernel's own tables, also while the agent is down. Replies to connections that began outside pass whatever it says.
Exit codes: 0 it passes, 1 it is refused, it depends on the port, or the kernel does not know the pod; 2 wrong arguments, 3 the maps
cannot be read.";

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The pod that connects.
    #[arg(value_name = "NS/POD")]
    pub(crate) pod: PodName,
    /// Where it connects to: ADDRESS[:PORT][/PROTOCOL]. TCP if nothing is said, every port if none is.
    #[arg(value_name = "DEST")]
    pub(crate) to: Destination,
    /// Folder on a BPF file system where programs and maps are pinned.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub(crate) bpffs: PathBuf,
    /// Folder of the agent's status.json.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// Format of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

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
Exit codes: 0 --limit is reached, 3 no agent runs, or it ended.";

#[derive(Debug, Args)]
pub(crate) struct MonitorArgs {
    /// Only what was refused.
    #[arg(long)]
    pub(crate) denied: bool,
    /// Only what policies under Audit would have refused, or would have allowed.
    #[arg(long)]
    pub(crate) audit: bool,
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
Exit codes: 0 ended by a key, 2 standard output is no terminal, 3 no agent runs.";

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

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  egress-agent completions bash > /etc/bash_completion.d/egress-agent
  egress-agent completions zsh > ~/.zfunc/_egress-agent";

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder to write the pages to; made if it is not there.
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}
