//! Name servers are installed for tests, which start them in namespaces of their own; Debian would start them on the machine too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Packages that bring a service.
const SERVICES: [&str; 3] = ["bind9", "unbound", "dnsdist"];
/// What Debian asks before it starts a service (invoke-rc.d(8)).
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// As long as it lives, apt starts no service. Does nothing if the machine has a policy of its own.
pub(crate) struct Quiet(Option<&'static Path>);

impl Quiet {
    /// For an installation of these packages.
    pub(crate) fn new(packages: &[String]) -> anyhow::Result<Self> {
        let path = Path::new(POLICY);
        if path.exists() || !packages.iter().any(|package| SERVICES.contains(&package.as_str())) {
            return Ok(Self(None));
        }
        // 101: forbidden by policy.
        fs::write(path, "#!/bin/sh\nexit 101\n").with_context(|| format!("writing {POLICY}"))?;
        let quiet = Self(Some(path));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("{POLICY} made executable"))?;
        Ok(quiet)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
