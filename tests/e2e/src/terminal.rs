//! A terminal with a shell, kept by tmux: keys go in, the screen is read as a person would see it.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use egress_world::{Agent, World, eventually};

/// What the shell asks with.
const PROMPT: &str = "ready>";
/// After this time a key that did nothing is pressed again.
const AGAIN: Duration = Duration::from_secs(2);

/// A terminal. Its server ends with this process, however that ends.
pub struct Terminal {
    socket: PathBuf,
    server: Child,
}

impl Terminal {
    /// Opens a terminal of this size with a shell in it, where `egress-agent` is the binary. `None`, said so, without tmux.
    pub fn open(world: &World, columns: u16, rows: u16) -> Option<Self> {
        if Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: there is no tmux (cargo xtask setup installs it)");
            return None;
        }
        let socket = world.files().join("tmux");
        let mut server = world.node().command("tmux");
        server.arg("-S").arg(&socket).args(["-f", "/dev/null", "-D"]).env("TERM", "screen-256color");
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("tmux");
        let terminal = Self { socket, server };
        let size = ["-x", &columns.to_string(), "-y", &rows.to_string()].map(str::to_owned);
        let binary = Agent::binary();
        let folder = binary.parent().expect("a folder").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        // Said here, because tmux has a mind of its own about the environment.
        let shell = format!(
            "env -u PAGER -u EGRESS_PAGER -u LESS -u NO_COLOR 'PS1={PROMPT} ' 'PATH={folder}:{path}' ENV=/dev/null sh"
        );
        let started = eventually(|| {
            let new =
                [&["new-session", "-d", "-s", "test"][..], &size.each_ref().map(String::as_str), &[&shell]].concat();
            terminal.try_tmux(&new).status.success()
        });
        assert!(started, "tmux opens no terminal");
        terminal.wait_for(PROMPT);
        Some(terminal)
    }

    fn try_tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).output().expect("tmux")
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = self.try_tmux(arguments);
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types a line and enters it.
    pub fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-t", "test", "-l", line]);
        self.press("Enter");
    }

    /// Presses one key: a letter, or a name of tmux such as `Escape` and `C-c`.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "test", key]);
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "test"])
    }

    /// The same with the sequences of colours.
    pub fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e", "-t", "test"])
    }

    /// Waits until the screen is as `fits` says, and returns it.
    pub fn wait_until(&self, what: &str, mut fits: impl FnMut(&str) -> bool) -> String {
        let mut screen = String::new();
        let seen = eventually(|| {
            screen = self.screen();
            fits(&screen)
        });
        assert!(seen, "{what} is not on the screen:\n{screen}");
        screen
    }

    /// Presses a key now and then until the screen is as `fits` says: what is typed right after an interrupt may be thrown away.
    pub fn press_until(&self, key: &str, what: &str, mut fits: impl FnMut(&str) -> bool) {
        let mut pressed = Instant::now();
        self.press(key);
        self.wait_until(what, |screen| {
            let seen = fits(screen);
            if !seen && pressed.elapsed() > AGAIN {
                pressed = Instant::now();
                self.press(key);
            }
            seen
        });
    }

    /// Whether only the shell runs.
    pub fn is_idle(&self) -> bool {
        self.tmux(&["display-message", "-p", "-t", "test", "#{pane_current_command}"]).trim() == "sh"
    }

    /// Waits for a text.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-t", "test", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Asks the shell how the last command ended, which is only possible if it has ended and left the terminal as it was: no other
    /// screen, input that is shown.
    pub fn insist_ended(&self, code: i32) {
        // What is typed before would be the command's.
        self.wait_until("the shell", |_| self.is_idle());
        self.enter("echo \"ended with $?, echo is $(stty -a | grep -ow -- '-*echo')\"");
        self.wait_for(&format!("ended with {code}, echo is echo"));
        let modes =
            self.tmux(&["display-message", "-p", "-t", "test", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"]);
        assert_eq!(
            modes.trim(),
            "0 1 0",
            "another screen, a hidden cursor or a mouse is left behind:\n{}",
            self.screen()
        );
        self.enter("clear");
    }

    /// The process that runs in the shell.
    pub fn running(&self) -> i32 {
        let shell = self.tmux(&["display-message", "-p", "-t", "test", "#{pane_pid}"]).trim().to_owned();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).expect("the shell");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a running command")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.try_tmux(&["kill-server"]);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
