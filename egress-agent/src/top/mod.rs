//! `egress-agent top`: who is refused what, by rate, on one screen that renews itself; refusals first.
//!
//! [`rates`] adds up events and totals; [`screen`] draws; this module reads keys and the running agent.

mod rates;
mod screen;

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::api::{Client, Filter, Line, RulesAnswer};
use crate::cli::{Failure, TopArgs, Verdict};
use crate::monitor;

use rates::Rates;

/// How often the screen is renewed.
const FRAME: Duration = Duration::from_millis(250);
/// How often the agent is asked for the totals of rules.
const ASK: Duration = Duration::from_secs(1);

/// What the threads that listen to the agent say.
enum Heard {
    Line(Box<Line>),
    Rules(RulesAnswer),
    /// The agent does not answer any more, and why.
    Ended(String),
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
    listen(&socket, target, sender.clone());
    ask_again_and_again(socket, sender);
    let mut rates = Rates::new(rules.node.clone(), arguments.namespace.clone());
    rates.rules(&rules, Instant::now());
    let mut terminal = ratatui::init();
    let ended = follow(&mut terminal, &mut rates, &heard);
    ratatui::restore();
    ended.map_err(Failure::runtime)?;
    Ok(Verdict::Yes)
}

fn ask(socket: &std::path::Path) -> Result<RulesAnswer, crate::api::ClientError> {
    Client::new(socket)?.get("/v1/rules")
}

fn listen(socket: &std::path::Path, target: String, sender: Sender<Heard>) {
    let socket = socket.to_path_buf();
    thread::spawn(move || {
        let take = |bytes: &[u8]| {
            // The feed begins with an empty line.
            let Ok(line) = serde_json::from_slice(bytes) else { return ControlFlow::Continue(()) };
            let sent = sender.send(Heard::Line(Box::new(line)));
            if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let ended = Client::new(&socket).and_then(|client| client.lines(&target, take));
        let why = ended.err().map_or_else(|| "the agent ended".to_owned(), |error| error.to_string());
        let _ = sender.send(Heard::Ended(why));
    });
}

fn ask_again_and_again(socket: PathBuf, sender: Sender<Heard>) {
    thread::spawn(move || {
        loop {
            thread::sleep(ASK);
            let heard = ask(&socket).map_or_else(|error| Heard::Ended(error.to_string()), Heard::Rules);
            if sender.send(heard).is_err() {
                return;
            }
        }
    });
}

fn follow(terminal: &mut DefaultTerminal, rates: &mut Rates, heard: &Receiver<Heard>) -> io::Result<()> {
    let mut paused = false;
    loop {
        let now = Instant::now();
        for heard in heard.try_iter() {
            match heard {
                Heard::Line(line) => rates.line(&line, now),
                Heard::Rules(rules) => rates.rules(&rules, now),
                Heard::Ended(why) => rates.ended(why),
            }
        }
        if !paused {
            terminal.draw(|frame| screen::draw(frame, &rates.view(now)))?;
        }
        if event::poll(FRAME)?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let interrupted = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if interrupted || key.code == KeyCode::Char('q') || key.code == KeyCode::Esc {
                return Ok(());
            }
            if key.code == KeyCode::Char('p') {
                paused = !paused;
            }
            if key.code == KeyCode::Char('r') {
                rates.forget();
            }
        }
    }
}
