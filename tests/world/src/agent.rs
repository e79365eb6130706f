//! The real agent, running on the node of a world: its files, its life and death, and what it says.
//!
//! A change of a file is waited for by the generation in `status.json`, never by time.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::pod::Endpoint;
use crate::world::World;
use crate::{Pod, eventually};

/// Name of the policy file that [`Agent::apply`] writes.
const POLICIES: &str = "policies.yaml";

/// The agent of one world. Killed when dropped; the world then removes what it pinned.
pub struct Agent<'a> {
    world: &'a World,
    process: Option<Child>,
    arguments: Vec<String>,
    /// `+net_admin,…` as setpriv takes it; all if there is none.
    capabilities: Option<String>,
    /// In place of the files.
    kubeconfig: Option<PathBuf>,
}

impl<'a> Agent<'a> {
    /// Writes the endpoints file, with every pod of the world, and no policy. Nothing runs yet.
    pub fn new(world: &'a World) -> Self {
        let agent = Self { world, process: None, arguments: Vec::new(), capabilities: None, kubeconfig: None };
        for folder in ["policies", "state", "aside"] {
            fs::create_dir_all(world.files().join(folder)).expect("a folder of the world");
        }
        let endpoints: Vec<_> = world.pods().iter().map(Pod::endpoint).collect();
        agent.write_endpoints(&endpoints);
        agent
    }

    /// An agent that is running with these policies.
    pub fn with_policies(world: &'a World, policies: &str) -> Self {
        let mut agent = Self::new(world);
        agent.write(POLICIES, policies);
        agent.start();
        agent
    }

    /// Adds command-line arguments for the next start.
    pub fn argument(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
    }

    /// Takes policies and pods from this API server at the next start.
    pub fn in_cluster(&mut self, kubeconfig: PathBuf) {
        self.kubeconfig = Some(kubeconfig);
    }

    /// Leaves the agent only these capabilities at its next start.
    pub fn limit_capabilities(&mut self, names: &[&str]) {
        self.capabilities = Some(format!(",+{}", names.join(",+")));
    }

    /// The binary: `$EGRESS_AGENT`, or the one in the build folder of the running program.
    pub fn binary() -> PathBuf {
        let built = || {
            let own = std::env::current_exe().expect("the path of this program");
            let folders = own.ancestors().skip(1).take(2);
            folders.map(|folder| folder.join("egress-agent")).find(|path| path.is_file())
        };
        std::env::var_os("EGRESS_AGENT")
            .map(PathBuf::from)
            .or_else(built)
            .expect("no egress-agent: build it first (cargo build -p egress-agent), or set EGRESS_AGENT")
    }

    /// Starts the agent and waits until it has applied what there is.
    pub fn start(&mut self) {
        self.launch();
        eventually(|| self.is_ready() || !self.is_running());
        assert!(self.is_ready(), "the agent is not ready:\n{}", self.log());
    }

    /// Whether the status is this process's own, and not one that an earlier agent left.
    fn is_ready(&self) -> bool {
        let written_by = self.status().and_then(|status| status.get("pid")?.as_u64());
        self.process.as_ref().is_some_and(|process| written_by == Some(u64::from(process.id())))
    }

    /// Starts the agent without waiting for it.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "the agent runs already");
        let log = File::options().create(true).append(true).open(self.state("log")).expect("the log file");
        let node = self.world.node();
        let mut command = match &self.capabilities {
            None => node.command(Self::binary()),
            Some(capabilities) => {
                let mut command = node.command("setpriv");
                command.args(["--inh-caps=-all", &format!("--bounding-set=-all{capabilities}")]).arg(Self::binary());
                command
            }
        };
        command.args(["run", "--log-format", "json"]);
        match &self.kubeconfig {
            Some(path) => {
                command.args(["--kubernetes", "--node-name", "node-a", "--kubeconfig"]).arg(path);
            }
            None => {
                command.arg("--policies").arg(self.policies()).arg("--endpoints").arg(self.file("endpoints.yaml"));
            }
        }
        command
            .arg("--state-dir")
            .arg(self.file("state"))
            .arg("--cgroup-root")
            .arg(self.world.cgroup())
            .arg("--bpffs")
            .arg(self.world.bpffs())
            .args(&self.arguments)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log);
        self.process = Some(command.spawn().expect("starting the agent"));
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running agent").id()
    }

    /// Kills it, as the kernel would for want of memory.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let status = process.wait().expect("waiting for the agent");
            assert_eq!(status.signal(), Some(libc::SIGKILL), "the agent had ended before: {}", self.log());
        }
    }

    /// Asks it to end, and returns how it did.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("a running agent");
        self.signal(&process, Signal::SIGTERM);
        let ended = eventually(|| matches!(process.try_wait(), Ok(Some(_))));
        assert!(ended, "the agent does not end on SIGTERM:\n{}", self.log());
        process.wait().expect("its exit status")
    }

    fn signal(&self, process: &Child, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(process.id()).expect("a process id"));
        kill(pid, signal).unwrap_or_else(|error| panic!("signalling the agent: {error}\n{}", self.log()));
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("a running agent");
        let ended = eventually(|| matches!(process.try_wait(), Ok(Some(_))));
        if !ended {
            let _ = process.kill();
        }
        assert!(ended, "the agent does not end:\n{}", self.log());
        process.wait().expect("its exit status")
    }

    /// Runs `egress-agent run --cleanup`.
    pub fn cleanup(&self) -> Output {
        let mut command = self.world.node().command(Self::binary());
        command.args(["run", "--cleanup", "--bpffs"]).arg(self.world.bpffs());
        command.arg("--cgroup-root").arg(self.world.cgroup());
        command.arg("--state-dir").arg(self.file("state"));
        command.output().expect("running the agent")
    }

    /// Starts `egress-agent run --uninstall` with probes at this address. It runs until it is told to end.
    pub fn uninstall(&self, probes: SocketAddr) -> Child {
        let mut command = self.world.node().command(Self::binary());
        command.args(["run", "--uninstall", "--bpffs"]).arg(self.world.bpffs());
        command.arg("--cgroup-root").arg(self.world.cgroup()).arg("--state-dir").arg(self.file("state"));
        command.arg("--metrics-address").arg(probes.to_string()).spawn().expect("running the agent")
    }

    /// Makes `policies` the only policies, and waits until they are in force.
    pub fn apply(&self, policies: &str) {
        self.change(|| self.write(POLICIES, policies));
    }

    /// Does `change` to the files, and waits until the agent has applied it.
    pub fn change(&self, change: impl FnOnce()) {
        let before = self.generation().expect("an agent that is ready");
        change();
        let applied = eventually(|| self.generation().is_some_and(|now| now > before));
        assert!(applied, "the agent did not apply a change:\n{}", self.log());
    }

    /// Writes a policy file, all at once, and does not wait.
    pub fn write(&self, name: &str, text: &str) {
        replace(&self.file("aside"), &self.policies().join(name), text);
    }

    /// Writes policy files aside, then renames all of them into the folder. Returns when the first one was, and does not wait.
    pub fn write_together(&self, files: &[(&str, &str)]) -> Instant {
        let aside = self.file("aside");
        for (name, text) in files {
            fs::write(aside.join(name), text).expect("a file of the world");
        }
        let begun = Instant::now();
        for (name, _) in files {
            fs::rename(aside.join(name), self.policies().join(name)).expect("a policy file");
        }
        begun
    }

    /// Removes a policy file and does not wait.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.policies().join(name)).expect("a policy file");
    }

    /// Writes the endpoints file, all at once, and does not wait.
    pub fn write_endpoints(&self, endpoints: &[Endpoint]) {
        let text = serde_json::json!({ "endpoints": endpoints }).to_string();
        replace(&self.file("aside"), &self.file("endpoints.yaml"), &text);
    }

    /// `status.json`, if it is there.
    pub fn status(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.state("status.json")).ok()?).ok()
    }

    /// What the agent finds wrong with its files and its machine, as JSON; `[]` for nothing.
    pub fn problems(&self) -> String {
        self.status().expect("an agent that was ready once")["problems"].to_string()
    }

    fn generation(&self) -> Option<u64> {
        self.status()?.get("generation")?.as_u64()
    }

    /// The events written so far, the oldest first.
    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an event that fits.
    pub fn wait_for_event(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        eventually(|| {
            found = self.events().into_iter().find(&fits);
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no such event among {:#?}\n{}", self.events(), self.log()))
    }

    /// `egress-agent dump <subject> -o json`, which needs no running agent.
    pub fn dump(&self, subject: &str) -> Value {
        let output = self.dump_output(&[subject, "-o", "json"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dump {subject}: {} {errors}", output.status);
        serde_json::from_slice(&output.stdout).expect("JSON of dump")
    }

    /// `egress-agent dump` with these arguments.
    pub fn dump_output(&self, arguments: &[&str]) -> Output {
        let mut command = self.world.node().command(Self::binary());
        command.arg("dump").args(arguments).arg("--bpffs").arg(self.world.bpffs());
        command.output().expect("running the agent")
    }

    /// Another command of the binary, on the node of the world and with the agent's state folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.node().command(Self::binary());
        command.args(arguments).arg("--state-dir").arg(self.file("state"));
        command
    }

    /// Runs another command that reads the pins and the agent's state. Returns its exit code and its answer.
    pub fn ask(&self, arguments: &[&str]) -> (i32, Value) {
        let mut command = self.command(arguments);
        command.args(["-o", "json", "--bpffs"]).arg(self.world.bpffs());
        let output = command.output().expect("running the agent");
        let errors = String::from_utf8_lossy(&output.stderr);
        let answer = serde_json::from_slice(&output.stdout);
        let answer = answer.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {errors}\n{}", self.log()));
        (output.status.code().expect("an exit code"), answer)
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.state("log")).unwrap_or_default()
    }

    /// The policies folder.
    pub fn policies(&self) -> PathBuf {
        self.file("policies")
    }

    /// A file of the state folder.
    pub fn state(&self, name: &str) -> PathBuf {
        self.file("state").join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.files().join(name)
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
            eprintln!("the agent's last words:\n{}", last.join("\n"));
        }
    }
}

/// Writes beside, outside of the watched folders, and renames: readers see the old or the new text, watchers one event.
fn replace(aside: &Path, path: &Path, text: &str) {
    let name = path.file_name().expect("a file");
    let new = aside.join(name);
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).unwrap_or_else(|error| {
        panic!("writing {}: {error}", path.display());
    });
}
