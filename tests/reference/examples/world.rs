//! Prints the files of a world: `cargo run -p egress-reference --example world -- SEED`.

use egress_reference::World;

fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for file in World::generate(seed).files(seed) {
        println!("##### {}\n{}", file.name, file.text);
    }
}
