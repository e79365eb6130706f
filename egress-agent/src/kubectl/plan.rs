//! Where a command is to run: pure.

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command, Failure};
use crate::pods::PodName;

/// Where a command runs.
#[derive(Debug)]
pub(super) enum Plan {
    /// In this process.
    Here(Box<Cli>),
    /// In the agent's pod of a node.
    There(Place),
}

/// Which node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Node(String),
    NodeOf(PodName),
}

/// Reads `command` as the agent would, and says where it runs. `node`: what `--node` names.
pub(super) fn plan(command: &[String], node: Option<&str>) -> Result<Plan, Failure> {
    let words = std::iter::once("egress-agent").chain(command.iter().map(String::as_str));
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        // Answered here, as a program answers that is asked for help.
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => error.exit(),
        Err(error) => return Err(Failure::usage(error.to_string().trim_end().to_owned())),
    };
    let named = match &cli.command {
        Command::Why(why) => Some(why.pod.clone()),
        Command::Monitor(monitor) => monitor.pod.clone(),
        Command::Suggest(suggest) => {
            suggest.pod.as_ref().map(|name| PodName { namespace: suggest.namespace.clone(), name: name.clone() })
        }
        Command::Status(_) | Command::Top(_) | Command::Dump(_) => None,
        Command::Run(_) | Command::MountBpffs => {
            return Err(Failure::usage("this is what the agent's own pod does; it is not for kubectl"));
        }
        Command::Check(_)
        | Command::Test(_)
        | Command::Diff(_)
        | Command::Import(_)
        | Command::Completions(_)
        | Command::Man(_) => return Ok(Plan::Here(Box::new(cli))),
    };
    match (node, named) {
        (Some(node), _) => Ok(Plan::There(Place::Node(node.to_owned()))),
        (None, Some(pod)) => Ok(Plan::There(Place::NodeOf(pod))),
        (None, None) => {
            let word = command.first().map_or("this command", String::as_str);
            Err(Failure::usage(format!("{word} is asked of one node; name it: kubectl egress --node NODE {word} …")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;

    fn planned(line: &str, node: Option<&str>) -> Result<Plan, Failure> {
        plan(&line.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>(), node)
    }

    fn place(line: &str, node: Option<&str>) -> Place {
        let Plan::There(place) = planned(line, node).unwrap() else { panic!("{line} runs here") };
        place
    }

    #[test]
    fn a_command_that_names_a_pod_runs_on_its_node_unless_another_is_named() {
        let web = Place::NodeOf(PodName { namespace: "shop".into(), name: "web".into() });
        for line in ["why shop/web 1.2.3.4:443 -o json", "monitor --pod shop/web", "suggest -n shop --pod web"] {
            assert_eq!(place(line, None), web, "{line}");
            assert_eq!(place(line, Some("a")), Place::Node("a".into()), "{line}");
        }
        for line in ["status", "top", "dump rules", "monitor --denied", "suggest -n shop"] {
            assert_eq!(place(line, Some("a")), Place::Node("a".into()), "{line}");
            let failure = planned(line, None).unwrap_err();
            assert!(failure.exit == Exit::Usage && failure.to_string().contains("--node NODE"), "{failure}");
        }
    }

    #[test]
    fn what_needs_only_files_runs_here_and_the_agent_itself_nowhere() {
        for line in ["check policies/", "test p.yaml --from a/b --to 1.2.3.4", "diff a b", "completions bash"] {
            assert!(matches!(planned(line, None).unwrap(), Plan::Here(_)), "{line}");
        }
        assert_eq!(planned("run --policies p --endpoints e", Some("a")).unwrap_err().exit, Exit::Usage);
        assert_eq!(planned("why shop/web 1.2.3.0/24", None).unwrap_err().exit, Exit::Usage);
    }
}
