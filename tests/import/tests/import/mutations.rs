//! Broken texts: the golden cases with bytes, lines and values changed. Whatever comes, an import ends, and what it writes our own
//! validator reads.

use std::time::{Duration, Instant};

use egress_policy::import::{KINDS, Options, Source, Target, export, import};
use egress_reference::Random;

use crate::golden::{cases, options};
use crate::imported::read;

const ROUNDS: usize = 150;
/// Far more than any of these texts takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// What is put in at random: syntax, and values that mean something somewhere.
const SPLICES: [&str; 28] = [
    "\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "*",
    "!",
    "#",
    "---\n",
    "&a ",
    "*a",
    "null",
    "-1",
    "0",
    "65536",
    "4294967296",
    "0.0.0.0/0",
    "::/0",
    "::ffff:1.2.3.0/120",
    "**.",
    "*.foo.com",
    "\u{0}",
    "\u{feff}ü",
];

#[test]
fn broken_texts_end_in_a_report_and_never_in_a_panic() {
    let mut random = Random::new(0x000f_eed5);
    let mut written = 0;
    let cases = cases();
    for (path, text) in &cases {
        for round in 0..ROUNDS {
            let mut broken = text.clone();
            for _ in 0..random.between(1, 4) {
                broken = broken_once(&broken, &mut random);
            }
            let from = random.chance(20).then(|| *random.pick(KINDS));
            let options = Options { from: from.or(options(text).from), ..Options::default() };
            let start = Instant::now();
            let imported = import(&[Source { name: "broken", text: &broken }], &options);
            assert!(start.elapsed() < DEADLINE, "{} round {round} takes too long:\n{broken}", path.display());
            let (_, target) = *random.pick(&Target::NAMES);
            let there = export(&imported, target);
            assert!(there.objects.iter().all(|object| object.api_version != "egress.rs/v1alpha1"));
            for object in &imported.objects {
                let object = serde_json::to_value(object).expect("objects serialize");
                read(&object).unwrap_or_else(|message| panic!("{message}\nfrom\n{broken}"));
                written += 1;
            }
        }
    }
    assert!(written > cases.len() * ROUNDS / 10, "almost nothing could be read: {written}");
}

fn broken_once(text: &str, random: &mut Random) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return (*random.pick(&SPLICES)).to_owned();
    }
    let at = random.below(lines.len());
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    match random.below(7) {
        0 => drop(lines.remove(at)),
        1 => {
            let copy = lines[at].clone();
            lines.insert(at, copy);
        }
        2 => {
            let other = random.below(lines.len());
            lines.swap(at, other);
        }
        3 => {
            let indented = format!("  {}", lines[at]);
            lines[at] = indented;
        }
        4 => {
            let splice = *random.pick(&SPLICES);
            let value = lines[at].find(": ").map_or(0, |colon| colon + 2);
            lines[at].replace_range(value.., splice);
        }
        5 => lines.truncate(at),
        _ => {
            let line = &lines[at];
            let places: Vec<usize> = line.char_indices().map(|(index, _)| index).chain([line.len()]).collect();
            let place = *random.pick(&places);
            lines[at].insert_str(place, random.pick::<&str>(&SPLICES));
        }
    }
    lines.join("\n") + "\n"
}
