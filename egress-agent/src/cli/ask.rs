//! The arguments of the commands that answer questions: `check`, and what is asked of policies and of the kernel.

use std::path::PathBuf;

use clap::Args;

use super::Output;
use super::args::{DEFAULT_BPFFS, DEFAULT_STATE_DIR};
use crate::destination::Asked;
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
    /// File that says which addresses names have, as for `test`: names that share one and are not treated alike are told.
    #[arg(long, value_name = "ANSWERS")]
    pub(crate) dns: Option<PathBuf>,
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
  dig +noall +answer www.foo.com A www.foo.com AAAA | egress-agent test policies/ --dns /dev/stdin --from shop/web --to www.foo.com:443
  egress-agent test policies/ --cases cases.yaml --kernel   # the same through the programs of the kernel, as root

A destination is ADDRESS[:PORT][/PROTOCOL]. Without a protocol TCP is meant, without a port every port. For ICMP the port is the type.
With --dns the address may be a name, which means each of its addresses. Nothing is resolved: ANSWERS says which addresses are known,
either as a map, {www.foo.com: [1.2.3.4, '2001:db8::1']}, or as records, \"www.foo.com. 300 IN A 1.2.3.4\" (A, AAAA and CNAME count). An
address is judged with all the names that ANSWERS gives it, also where it is asked for as an address.
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
    pub(crate) to: Vec<Asked>,
    /// File that says which addresses names have: a map {name: [address, …]}, or records as `dig` prints them.
    #[arg(long, value_name = "ANSWERS")]
    pub(crate) dns: Option<PathBuf>,
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
Lines without a name hold for addresses that no rule's name has. Where something else changes for the addresses of a name, that follows
under the name; *.foo.com and **.*.foo.com there mean the names with one label in front, and with more, that have no lines of their own.
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
  egress-agent why shop/web www.foo.com:443        # each address of the name that is known on this node

Read from the kernel's own tables, also while the agent is down. Replies to connections that began outside pass whatever it says.
Exit codes: 0 it passes, 1 it is refused, it depends on the port, or the kernel does not know the pod; 2 wrong arguments, 3 the maps
cannot be read.";

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The pod that connects.
    #[arg(value_name = "NS/POD")]
    pub(crate) pod: PodName,
    /// Where it connects to: ADDRESS[:PORT][/PROTOCOL], or a name in the address's place. TCP if nothing is said, every port if none is.
    #[arg(value_name = "DEST")]
    pub(crate) to: Asked,
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

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  egress-agent completions bash > /etc/bash_completion.d/egress-agent
  egress-agent completions zsh > ~/.zfunc/_egress-agent

Exit codes: 0 written, 2 no such shell.";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  egress-agent man /usr/local/share/man/man1     # then: man egress-agent-why

Exit codes: 0 written, 3 the folder cannot be written.";

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
