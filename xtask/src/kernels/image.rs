//! Debian's kernels, downloaded and unpacked under `target/kernels/images/`, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::command::{Task, ask};
use crate::progress::{self, Mark};
use crate::setup::refresh_package_lists;
use crate::tree::Tree;

/// The kernel series that are run, oldest first.
pub(crate) const SERIES: &[&str] = &["6.1", "6.12"];

/// Packages that depend on a newest kernel image. Which series the first one has depends on the release of Debian.
const METAPACKAGES: &[&str] = &["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// A kernel on disk.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// "6.1".
    pub(crate) series: String,
    /// "6.1.0-56-cloud-amd64".
    pub(crate) release: String,
    /// Debian's version of the package.
    pub(crate) version: String,
    /// The directory it was unpacked to.
    pub(crate) root: PathBuf,
}

impl Image {
    /// The bootable kernel.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }
}

/// An image, or why there is none.
pub(crate) enum Found {
    /// Here it is.
    Image(Image),
    /// This machine cannot have it.
    Unavailable(String),
}

/// Finds, and if need be downloads, the newest image of a series.
pub(crate) fn find(tree: &Tree, series: &str) -> anyhow::Result<Found> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Found::Unavailable("Debian's images are run on x86_64 only".to_owned()));
    }
    let mut package = newest(series);
    if package.is_none() {
        let _ = refresh_package_lists(tree);
        package = newest(series);
    }
    let Some((name, version)) = package else {
        return Ok(Found::Unavailable(format!("apt knows no linux-image-{series}…-cloud-amd64")));
    };
    let root = tree.target("kernels/images").join(format!("{name}_{version}"));
    if !root.join(".complete").is_file() && download(tree, &name, &version, &root).is_err() {
        // Lists that are some days old name a version that the mirror no longer has.
        let _ = refresh_package_lists(tree);
        let (name, version) = newest(series).context("the package vanished from apt's lists")?;
        let root = tree.target("kernels/images").join(format!("{name}_{version}"));
        download(tree, &name, &version, &root)?;
        return image(series, &name, &version, root).map(Found::Image);
    }
    image(series, &name, &version, root).map(Found::Image)
}

fn image(series: &str, name: &str, version: &str, root: PathBuf) -> anyhow::Result<Image> {
    let release = name.trim_start_matches("linux-image-").to_owned();
    let image = Image { series: series.to_owned(), release, version: version.to_owned(), root };
    anyhow::ensure!(image.kernel().is_file(), "{name} has no {}", image.kernel().display());
    progress::step(Mark::Present, "image", &format!("{} ({version})", image.release), None);
    Ok(image)
}

fn newest(series: &str) -> Option<(String, String)> {
    METAPACKAGES
        .iter()
        .filter_map(|package| ask("apt-cache", &["show", "--no-all-versions", package]))
        .find_map(|record| image_package(&record, series))
}

/// The image that a metapackage's record depends on, if it is of this series: `linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)`.
fn image_package(record: &str, series: &str) -> Option<(String, String)> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let prefix = format!("linux-image-{series}.");
    depends.split(", ").find_map(|dependency| {
        let (name, version) = dependency.split_once(" (= ")?;
        name.starts_with(&prefix).then(|| (name.to_owned(), version.trim_end_matches(')').to_owned()))
    })
}

fn download(tree: &Tree, name: &str, version: &str, root: &Path) -> anyhow::Result<()> {
    let packages = tree.target("kernels/packages");
    for directory in [&packages, &root.to_path_buf()] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let mut command = Command::new("apt-get");
    // The sandbox user may not write below a home directory.
    command
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", &format!("{name}={version}")])
        .current_dir(&packages);
    Task::new(&format!("download {name}"), command).run(tree)?;
    let prefix = format!("{name}_");
    let package = std::fs::read_dir(&packages)?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .context("apt-get download left no file")?;
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(package.path()).arg(root);
    Task::new(&format!("unpack {name}"), command).run(tree)?;
    std::fs::remove_file(package.path())?;
    std::fs::write(root.join(".complete"), version).context("cannot mark the image as complete")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_a_metapackage_is_taken_only_for_its_own_series() {
        let record = "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        let found = image_package(record, "6.1").unwrap();
        assert_eq!(found, ("linux-image-6.1.0-56-cloud-amd64".to_owned(), "6.1.192-2".to_owned()));
        assert_eq!(image_package(record, "6.12"), None);
        let record = "Depends: linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1)\n";
        assert_eq!(image_package(record, "6.1"), None);
        assert!(image_package(record, "6.12").is_some());
    }
}
