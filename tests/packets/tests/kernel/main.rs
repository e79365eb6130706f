//! Packets through the real programs. Each module is one part of the truth table; `sides` has the addresses and the policy that
//! most of them share.

mod sides;

mod audit;
mod bounds;
mod capacity;
mod extensions;
mod fragments;
mod fuzz;
mod interfaces;
mod limiter;
mod names;
mod options;
mod oracle;
mod parser;
mod parsing;
mod reject;
mod replies;
mod rules;
mod shortcuts;
mod swaps;
