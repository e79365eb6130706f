//! BIND and unbound as Debian has them, serving one zone. Killed when dropped.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{RESOLVERS, Resolver, STRANGERS};
use crate::eventually;

/// The zone that is served.
const ZONE: &str = "test";

/// Servers that answer for [`ZONE`] at the trusted addresses.
pub struct ZoneServer {
    processes: Vec<Child>,
}

impl ZoneServer {
    /// BIND, answering by itself. `None` if the machine has none. `records` are lines of a master file (RFC 1035 §5).
    pub fn bind(resolver: &Resolver, records: &str) -> Option<Self> {
        let mut server = Self { processes: vec![named(resolver, records, RESOLVERS)?] };
        server.wait(resolver);
        Some(server)
    }

    /// unbound, a cache that asks BIND. `None` if the machine lacks one of them.
    pub fn unbound(resolver: &Resolver, records: &str) -> Option<Self> {
        let behind = named(resolver, records, STRANGERS)?;
        let mut server = Self { processes: vec![behind] };
        server.processes.push(unbound(resolver)?);
        server.wait(resolver);
        Some(server)
    }

    fn wait(&mut self, resolver: &Resolver) {
        let mut is_running = || self.processes.iter_mut().all(|process| matches!(process.try_wait(), Ok(None)));
        let ready = eventually(|| !is_running() || resolver.is_served());
        assert!(ready && is_running(), "a server of {ZONE} does not start: {}", log(resolver));
    }
}

impl Drop for ZoneServer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn folder(resolver: &Resolver) -> PathBuf {
    let folder = resolver.files().join("zone");
    fs::create_dir_all(&folder).expect("a folder of the world");
    folder
}

fn log(resolver: &Resolver) -> String {
    fs::read_to_string(folder(resolver).join("log")).unwrap_or_default()
}

fn start(resolver: &Resolver, program: &str, arguments: &[&str]) -> Option<Child> {
    let there = Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        return None;
    }
    let log = fs::OpenOptions::new().create(true).append(true).open(folder(resolver).join("log")).expect("a log");
    let mut command = resolver.network().command(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Some(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")))
}

fn named(resolver: &Resolver, records: &str, at: [&str; 2]) -> Option<Child> {
    let folder = folder(resolver);
    let soa = format!("$ORIGIN {ZONE}.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 5\n@ NS ns\nns A {}\n", at[0]);
    fs::write(folder.join("zone"), soa + records).expect("a zone");
    let text = format!(
        "options {{ directory \"{0}\"; listen-on {{ {1}; }}; listen-on-v6 {{ {2}; }}; pid-file none; lock-file none;\n\
         session-keyfile none; recursion no; allow-query {{ any; }}; dnssec-validation no; rrset-order {{ order random; }};\n\
         minimal-responses no; }};\ncontrols {{ }};\nzone \"{ZONE}\" {{ type primary; file \"{0}/zone\"; }};\n",
        folder.display(),
        at[0],
        at[1]
    );
    let conf = folder.join("named.conf");
    fs::write(&conf, text).expect("a configuration");
    start(resolver, "named", &["-g", "-c", conf.to_str().expect("a path")])
}

fn unbound(resolver: &Resolver) -> Option<Child> {
    let folder = folder(resolver);
    let text = format!(
        "server:\n directory: \"{0}\"\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n do-daemonize: no\n use-syslog: no\n\
         \x20interface: {1}\n interface: {2}\n access-control: 0.0.0.0/0 allow\n access-control: ::/0 allow\n\
         \x20module-config: \"iterator\"\n local-zone: \"{ZONE}.\" nodefault\n rrset-roundrobin: yes\n\
         forward-zone:\n name: \"{ZONE}.\"\n forward-addr: {3}\nremote-control:\n control-enable: no\n",
        folder.display(),
        RESOLVERS[0],
        RESOLVERS[1],
        STRANGERS[0]
    );
    let conf = folder.join("unbound.conf");
    fs::write(&conf, text).expect("a configuration");
    start(resolver, "unbound", &["-d", "-c", conf.to_str().expect("a path")])
}
