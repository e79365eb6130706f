//! Every test of `kernel` with array tries in the place of the kernel's LPM tries: both backends have the same truth table.

#[path = "../kernel/audit.rs"]
mod audit;
#[path = "../kernel/bounds.rs"]
mod bounds;
#[path = "../kernel/capacity.rs"]
mod capacity;
mod chunks;
#[path = "../kernel/extensions.rs"]
mod extensions;
#[path = "../kernel/fragments.rs"]
mod fragments;
#[path = "../kernel/fuzz.rs"]
mod fuzz;
#[path = "../kernel/limiter.rs"]
mod limiter;
#[path = "../kernel/names/mod.rs"]
mod names;
#[path = "../kernel/options.rs"]
mod options;
#[path = "../kernel/oracle.rs"]
mod oracle;
#[path = "../kernel/parser.rs"]
mod parser;
#[path = "../kernel/parsing.rs"]
mod parsing;
#[path = "../kernel/reject.rs"]
mod reject;
#[path = "../kernel/replies.rs"]
mod replies;
#[path = "../kernel/rules.rs"]
mod rules;
#[path = "../kernel/shortcuts.rs"]
mod shortcuts;
#[path = "../kernel/sides.rs"]
mod sides;
#[path = "../kernel/swaps.rs"]
mod swaps;
mod versions;
