//! Installed packages in a version that no source of apt has any more (a machine that once had backports): apt would rather
//! remove them than install what does not fit them. They are asked for in the version that the sources have, so that
//! nothing has to be removed; a package that is in the way for another reason is left to apt's own refusal.

use std::process::Command;

use crate::command::ask;
use crate::progress;

/// An installed package that has to give way.
#[derive(Debug, PartialEq, Eq)]
struct InTheWay {
    name: String,
    installed: String,
}

/// What apt has to be asked for besides: `name=version`. Says so for each. `simulation` is `apt-get install --simulate`
/// of what is wanted.
pub(super) fn to_replace(mut simulation: Command) -> Vec<String> {
    let output = simulation.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let mut requests = Vec::new();
    for package in removals(&output.unwrap_or_default()) {
        let known = ask("apt-cache", &["madison", &package.name]).unwrap_or_default();
        if let Some(version) = replacement(&package, &known) {
            progress::note(&format!(
                "{} {} is in the way and in no source of apt any more: asking for {version} instead",
                package.name, package.installed
            ));
            requests.push(format!("{}={version}", package.name));
        }
    }
    requests
}

/// "Remv qemu-utils [1:10.0.2]", with ":i386" after the name of a package for another architecture.
fn removals(simulation: &str) -> Vec<InTheWay> {
    let removal = |line: &str| {
        let (name, rest) = line.strip_prefix("Remv ")?.split_once(" [")?;
        let (installed, _) = rest.split_once(']')?;
        Some(InTheWay { name: name.to_owned(), installed: installed.to_owned() })
    };
    simulation.lines().filter_map(removal).collect()
}

/// The newest version in apt's sources, unless the installed one is there too.
fn replacement(package: &InTheWay, madison: &str) -> Option<String> {
    let versions: Vec<&str> = madison
        .lines()
        .filter(|line| line.trim_end().ends_with("Packages"))
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .collect();
    let newest = versions.first()?;
    (!versions.contains(&package.installed.as_str())).then(|| (*newest).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULATION: &str = "Reading package lists...\nThe following packages will be REMOVED:\n  qemu-utils\n\
        Remv qemu-utils [1:10.0.2+ds-2~bpo12+1]\nInst cpio (2.13 Debian:12 [amd64])\nConf cpio (2.13 Debian:12 [amd64])\n";
    const MADISON: &str = "qemu-utils | 1:7.2-7+b3 | http://deb.debian.org/debian bookworm/main amd64 Packages\n\
        qemu-utils | 1:7.2-7 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages\n\
        qemu-utils | 1:9 | http://deb.debian.org/debian bookworm/main Sources\n";

    fn utils(installed: &str) -> InTheWay {
        InTheWay { name: "qemu-utils".to_owned(), installed: installed.to_owned() }
    }

    #[test]
    fn what_apt_would_remove_is_read_with_its_version() {
        assert_eq!(removals(SIMULATION), [utils("1:10.0.2+ds-2~bpo12+1")]);
        assert_eq!(removals("Inst cpio (2.13 Debian:12 [amd64])\n"), []);
    }

    #[test]
    fn a_version_that_no_source_has_gives_way_to_the_newest_that_one_has() {
        assert_eq!(replacement(&utils("1:10.0.2+ds-2~bpo12+1"), MADISON), Some("1:7.2-7+b3".to_owned()));
    }

    #[test]
    fn a_version_that_a_source_has_and_a_package_that_none_has_stay() {
        assert_eq!(replacement(&utils("1:7.2-7"), MADISON), None);
        assert_eq!(replacement(&utils("1:10.0.2"), ""), None);
    }
}
