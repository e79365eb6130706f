//! `egress-agent top`: who is refused what, by rate, on one screen that renews itself; refusals first.
//!
//! [`rates`] adds up events and totals; [`controls`] is what keys change; [`screen`] draws; this module reads keys, signals and the
//! running agent. However it ends, the terminal is as it was.

mod controls;
mod rates;
mod screen;

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{Client, Filter, Line, RulesAnswer};
use crate::cli::{Failure, TopArgs, Verdict};
use crate::monitor;

use controls::{Controls, Wish};
use rates::{Rates, View};

/// How often the screen is renewed.
const FRAME: Duration = Duration::from_millis(250);
/// How often the agent is asked for the totals of rules.
const ASK: Duration = Duration::from_secs(1);

/// What the threads that listen to the agent say.
enum Heard {
    Line(Box<Line>),
    Rules(RulesAnswer),
    /// The agent does not answer, and why.
    Silent(String),
    /// A signal asks to end.
    Stop,
}

/// Shows the screen until a key ends it.
pub(crate) fn run(arguments: &TopArgs) -> Result<Verdict, Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage("top draws on a terminal; use `egress-agent monitor -o json` in a pipe"));
    }
    let socket = arguments.connection.path();
    // Before the screen changes, so that the reason why nobody answers stays in sight.
    let rules: RulesAnswer = ask(&socket).map_err(Failure::runtime)?;
    let (sender, heard) = mpsc::channel();
    let filter = Filter { namespace: arguments.namespace.clone(), ..Filter::default() };
    let target = monitor::target(&filter)?;
    stop_on_signals(sender.clone()).map_err(Failure::runtime)?;
    listen(&socket, target, sender.clone());
    ask_again_and_again(socket, sender);
    let mut rates = Rates::new(rules.node.clone(), arguments.namespace.clone());
    rates.rules(&rules, Instant::now());
    let mut terminal = ratatui::try_init().map_err(|error| {
        Failure::runtime(format!("this terminal cannot be drawn on ({error}); use `egress-agent monitor`"))
    })?;
    let ended = follow(&mut terminal, &mut rates, &heard);
    ratatui::restore();
    ended.map_err(Failure::runtime)?;
    Ok(Verdict::Yes)
}

fn ask(socket: &std::path::Path) -> Result<RulesAnswer, crate::api::ClientError> {
    Client::new(socket)?.get("/v1/rules")
}

/// A terminal that is closed and a `kill` end the program as a key does. Ctrl-C is a key here.
fn stop_on_signals(sender: Sender<Heard>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(inside);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let _ = sender.send(Heard::Stop);
    });
    Ok(())
}

/// Listens to events; to those of the next agent when one ends.
fn listen(socket: &std::path::Path, target: String, sender: Sender<Heard>) {
    let socket = socket.to_path_buf();
    thread::spawn(move || {
        loop {
            let take = |bytes: &[u8]| {
                // The feed begins with an empty line.
                let Ok(line) = serde_json::from_slice(bytes) else { return ControlFlow::Continue(()) };
                let sent = sender.send(Heard::Line(Box::new(line)));
                if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let ended = Client::new(&socket).and_then(|client| client.lines(&target, std::future::pending(), take));
            let why = ended.err().map_or_else(|| "the agent ended".to_owned(), |error| error.to_string());
            if sender.send(Heard::Silent(why)).is_err() {
                return;
            }
            thread::sleep(ASK);
        }
    });
}

fn ask_again_and_again(socket: PathBuf, sender: Sender<Heard>) {
    thread::spawn(move || {
        loop {
            thread::sleep(ASK);
            let heard = ask(&socket).map_or_else(|error| Heard::Silent(error.to_string()), Heard::Rules);
            if sender.send(heard).is_err() {
                return;
            }
        }
    });
}

fn follow(terminal: &mut DefaultTerminal, rates: &mut Rates, heard: &Receiver<Heard>) -> io::Result<()> {
    let mut controls = Controls::default();
    let mut view = View::default();
    loop {
        let now = Instant::now();
        for heard in heard.try_iter() {
            match heard {
                Heard::Line(line) => rates.line(&line, now),
                Heard::Rules(rules) => rates.rules(&rules, now),
                Heard::Silent(why) => rates.silent(why),
                Heard::Stop => return Ok(()),
            }
        }
        if !controls.is_paused() {
            view = rates.view(now);
        }
        // Drawn also while it is paused: the terminal may have another size.
        let shown = controls.arrange(view.clone());
        terminal.draw(|frame| screen::draw(frame, &shown, &controls.line()))?;
        if event::poll(FRAME)?
            && let Event::Key(key) = event::read()?
        {
            match controls.key(&key) {
                Wish::Quit => return Ok(()),
                Wish::Forget => rates.forget(),
                Wish::Nothing => {}
            }
        }
    }
}
