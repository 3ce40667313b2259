//! Makes a fleet of any size to try things with, as the tests and benches do.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "it is the tests' own generator, which panics")]

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

#[path = "../../tests/support/command.rs"]
mod command;
#[path = "../../tests/support/fleet/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod fleet;

use fleet::{Fleet, Mix, Options, Seeded, Sharing, Weight};

/// Makes a fleet: a flake with hosts, and the flakes that it locks. Needs git and Nix.
#[derive(Parser)]
struct Arguments {
    /// How many hosts
    #[arg(long, default_value_t = 10)]
    hosts: u32,
    /// How much there is to evaluate in each
    #[arg(long, value_enum, default_value_t = HowHeavy::Normal)]
    weight: HowHeavy,
    /// Let the hosts share most of their evaluation, as hosts of one nixpkgs do
    #[arg(long)]
    shared: bool,
    /// How many devices to declare in an inventory
    #[arg(long, default_value_t = 0)]
    devices: u32,
    /// Which kinds of hosts
    #[arg(long, value_enum, default_value_t = Kinds::Plain)]
    kinds: Kinds,
    /// Where in its repository the flake is; at its root, if not given
    #[arg(long, default_value = "", hide_default_value = true)]
    below: String,
    /// How many edits to make by chance, each a commit
    #[arg(long, default_value_t = 0)]
    edits: u32,
    /// What the chance follows from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder to make it in, which is new or empty
    folder: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum HowHeavy {
    Light,
    Normal,
    Heavy,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kinds {
    /// Hosts that read modules alone
    Plain,
    /// Each kind in turn
    Every,
}

fn main() {
    let arguments = Arguments::parse();
    let weight = match arguments.weight {
        HowHeavy::Light => Weight::Light,
        HowHeavy::Normal => Weight::Normal,
        HowHeavy::Heavy => Weight::Heavy,
    };
    let mix = match arguments.kinds {
        Kinds::Plain => Mix::Plain,
        Kinds::Every => Mix::EveryKind,
    };
    let sharing = if arguments.shared { Sharing::Packages } else { Sharing::Nothing };
    let Arguments { hosts, devices, below, .. } = arguments;
    let options = Options { hosts, weight, sharing, mix, devices, below };
    let mut fleet = Fleet::create(&arguments.folder, options);
    let mut out = std::io::stdout().lock();
    let mut chance = Seeded::new(arguments.seed);
    for _ in 0..arguments.edits {
        let edit = fleet.choose(&mut chance);
        let revision = fleet.edit(&edit);
        writeln!(out, "{revision} {edit:?}").unwrap();
    }
    writeln!(out, "{}", fleet.reference()).unwrap();
}
