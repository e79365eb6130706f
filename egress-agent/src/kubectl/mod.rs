//! `kubectl egress …`: the same binary under the name `kubectl-egress`. What needs a node's kernel or agent runs there, in the agent's
//! pod, by `kubectl exec`; what needs only files runs here.
//!
//! [`plan`] decides, without asking anybody; this module asks the cluster where a pod is and becomes `kubectl exec`.

mod plan;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::{CommandFactory as _, Parser};

use crate::cli::{self, Failure};

use plan::{Place, Plan};

/// Name under which `kubectl` finds plugins.
const PLUGIN: &str = "kubectl-egress";

const EXAMPLES: &str = "\
Examples:
  kubectl egress why shop/web 1.2.3.4:443          # on the node of the pod
  kubectl egress monitor --pod shop/web --denied
  kubectl egress --node node-a status
  kubectl egress --node node-a top
  kubectl egress check policies/                   # needs no node: runs here

Everything after these options is a command of egress-agent; `kubectl egress why --help` explains one.";

/// Ask the egress firewall of a cluster: `egress-agent` on the node that matters.
#[derive(Debug, Parser)]
#[command(name = "kubectl egress", version, about, after_help = EXAMPLES)]
struct Arguments {
    /// The node to ask, where the command names no pod.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Namespace of the agent's pods.
    #[arg(long, value_name = "NS", default_value = "egress-system", env = "EGRESS_AGENT_NAMESPACE")]
    agent_namespace: String,
    /// Labels of the agent's pods.
    #[arg(
        long,
        value_name = "SELECTOR",
        default_value = "app.kubernetes.io/name=egress-agent",
        env = "EGRESS_AGENT_SELECTOR"
    )]
    agent_selector: String,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Whether this process was started as the plugin.
pub(crate) fn is_plugin(name: Option<&OsString>) -> bool {
    name.and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == PLUGIN)
}

/// The plugin's arguments.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// Does what the plugin's arguments say.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.run() {
        Ok(code) => code,
        Err(failure) => {
            failure.report();
            failure.exit.code()
        }
    }
}

impl Arguments {
    fn run(&self) -> Result<ExitCode, Failure> {
        let place = match plan::plan(&self.command, self.node.as_deref())? {
            Plan::Here(cli) => return Ok(cli::run(&cli)),
            Plan::There(place) => place,
        };
        let node = match place {
            Place::Node(node) => node,
            Place::NodeOf(pod) => self.node_of(&pod.namespace, &pod.name)?,
        };
        let agent = self.agent_on(&node)?;
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let mut command = self.kubectl();
        command.args(["exec", if terminal { "-it" } else { "-i" }, "--namespace", &self.agent_namespace, &agent]);
        command.args(["--container", "agent", "--", "egress-agent"]).args(&self.command);
        // Its exit code is the command's.
        Err(Failure::runtime(io::Error::other(format!("kubectl cannot be started: {}", command.exec()))))
    }

    fn node_of(&self, namespace: &str, pod: &str) -> Result<String, Failure> {
        let node = self.ask(&["get", "pod", "--namespace", namespace, pod, "-o", "jsonpath={.spec.nodeName}"])?;
        if node.is_empty() {
            return Err(Failure::negative(format!("the pod {namespace}/{pod} is on no node yet")));
        }
        Ok(node)
    }

    fn agent_on(&self, node: &str) -> Result<String, Failure> {
        let fields = format!("--field-selector=spec.nodeName={node},status.phase=Running");
        let selector = format!("--selector={}", self.agent_selector);
        let question = ["get", "pods", "--namespace", &self.agent_namespace, &selector, &fields];
        let pods = self.ask(&[&question[..], &["-o", "jsonpath={.items[*].metadata.name}"]].concat())?;
        let first = pods.split_whitespace().next().map(ToOwned::to_owned);
        first.ok_or_else(|| {
            let Self { agent_namespace, agent_selector, .. } = self;
            Failure::negative(format!(
                "no agent runs on node {node}: no running pod of namespace {agent_namespace} has the labels {agent_selector} there; \
                 see --agent-namespace and --agent-selector"
            ))
        })
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.kubectl().args(arguments).output();
        let output = output.map_err(|error| Failure::runtime(format!("kubectl cannot be started: {error}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::runtime(format!("`kubectl {}` failed: {said}", arguments.join(" "))))
    }

    fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        for (option, value) in [("--context", &self.context), ("--kubeconfig", &self.kubeconfig)] {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        command
    }
}
