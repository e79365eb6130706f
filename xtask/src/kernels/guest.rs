//! Boots a kernel in qemu with an initramfs and reads the marks on its console. A guest that does not come to its end
//! (panic, hang) is a failure, whatever it reported before. One that dies before any of our programs has begun is booted once more: on a
//! busy machine the emulator now and then trips over a kernel that patches its own code (`int3` in `text_poke_bp`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::command::{Task, Transcript};
use crate::kernels::image::Image;
use crate::kernels::results::KernelRun;
use crate::progress;
use crate::tree::Tree;

const MEMORY: &str = "2048M";
/// `preempt=full`: a program may be interrupted anywhere, so that what goes wrong between two of its reads goes wrong here.
const COMMAND_LINE: &str =
    "console=ttyS0 loglevel=1 panic=-1 rdinit=/init mitigations=off random.trust_cpu=on preempt=full";

/// Runs the guest to its end or its deadline.
pub(crate) fn run(
    tree: &Tree,
    image: &Image,
    initramfs: &Path,
    deadline: Duration,
    console: bool,
) -> anyhow::Result<KernelRun> {
    let first = boot(tree, image, initramfs, deadline, console)?;
    let transcript = if first.all.contains("@@begin ") {
        first
    } else {
        progress::note(&format!("guest {} died while it booted, booting it again", image.series));
        boot(tree, image, initramfs, deadline, console)?
    };
    let mut run = KernelRun::new(&image.series, &image.release, &image.version);
    run.seconds = transcript.took.as_secs();
    read_console(&transcript.all, &mut run);
    if !transcript.all.lines().any(|line| line == "@@finished") {
        let why = format!("the guest did not come to its end ({}): {}", transcript.ending(), transcript.log.display());
        run.problem(&why, &transcript.tail(30));
    }
    run.report();
    Ok(run)
}

fn boot(tree: &Tree, image: &Image, initramfs: &Path, deadline: Duration, console: bool) -> anyhow::Result<Transcript> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nic", "none"]);
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(initramfs).args(["-append", COMMAND_LINE]);
    let task = Task::new(&format!("guest {}", image.series), command).deadline(deadline).echo(console);
    task.watch(tree)
}

fn read_console(console: &str, run: &mut KernelRun) {
    let mut job: Option<(String, String)> = None;
    for line in console.lines() {
        if let Some(name) = line.strip_prefix("@@begin ") {
            job = Some((name.to_owned(), String::new()));
        } else if let Some(status) = line.strip_prefix("@@end ") {
            if let Some((name, output)) = job.take() {
                run.add_job(&name, &output, status == "0");
            }
        } else if let Some(complaint) = line.strip_prefix("@@complaint ") {
            run.problem("the kernel complains", complaint);
        } else if let Some((_, output)) = &mut job {
            output.push_str(line);
            output.push('\n');
        }
    }
    if let Some((name, output)) = job {
        run.add_job(&name, &output, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_gets_its_own_lines_and_status() {
        let mut run = KernelRun::new("6.1", "6.1.0", "1");
        let console = "boot\n@@begin a (library)\nrunning 1 test\ntest x ... ok\ntest result: ok.\n@@end 0\n\
            @@begin b\nrunning 1 test\ntest y ... FAILED\ntest result: FAILED.\n@@end 101\n@@finished\n";
        read_console(console, &mut run);
        assert_eq!(run.tally().counts(), (1, 1, 0));
    }

    #[test]
    fn a_job_that_never_ends_is_a_failure() {
        let mut run = KernelRun::new("6.1", "6.1.0", "1");
        read_console("@@begin a\nrunning 1 test\ntest x ... ok\n", &mut run);
        assert_eq!(run.tally().counts().1, 1);
    }

    #[test]
    fn a_warning_in_the_kernels_log_is_a_failure() {
        let mut run = KernelRun::new("6.1", "6.1.0", "1");
        read_console("@@complaint WARNING: CPU: 0\n@@finished\n", &mut run);
        assert_eq!(run.tally().counts().1, 1);
    }
}
