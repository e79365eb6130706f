//! dnsmasq as Debian has it, answering from a file of ours that can be changed while it runs. Killed when dropped.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{RESOLVERS, Resolver};
use crate::eventually;

/// A running server.
pub struct Dnsmasq {
    process: Child,
    hosts: PathBuf,
}

impl Dnsmasq {
    /// Whether there is one.
    pub fn is_installed() -> bool {
        let quiet = |name: &str| Command::new(name).arg("--version").stdout(Stdio::null()).status();
        quiet("dnsmasq").is_ok_and(|status| status.success())
    }

    /// Serves `hosts` (lines of hosts(5)) with a TTL in seconds, and NXDOMAIN for every other name
    /// below `com`, `test` and `example`. `options` are more of its
    /// command line.
    pub fn start(resolver: &Resolver, hosts: &str, ttl: u32, options: &[&str]) -> Self {
        let path = resolver.files().join("hosts");
        fs::write(&path, hosts).expect("a file of the world");
        let mut command = resolver.network().command("dnsmasq");
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--group=root"])
            .args([
                "--no-hosts",
                "--no-resolv",
                "--local=/com/test/example/",
                "--cache-size=0",
                "--bind-interfaces",
                "--log-facility=-",
            ])
            .args(RESOLVERS.map(|address| format!("--listen-address={address}")))
            .arg(format!("--addn-hosts={}", path.display()))
            .arg(format!("--local-ttl={ttl}"))
            .args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("`dnsmasq` of dnsmasq-base is needed");
        let mut server = Self { process, hosts: path };
        let ready = eventually(|| resolver.is_served() || !server.is_running());
        assert!(ready && server.is_running(), "dnsmasq does not start");
        server
    }

    fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Serves other lines from now on. Does not wait until it does.
    pub fn serve(&self, hosts: &str) {
        fs::write(&self.hosts, hosts).expect("a file of the world");
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a process id"));
        kill(pid, Signal::SIGHUP).expect("dnsmasq runs");
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
