//! Generates fleets of any size from the templates in `fixtures/fleets`, and changes them by edits, each a commit.
//!
//! A fleet is a folder: `fleet` is the repository of its flake, and `inputs` has the flakes that it locks. The model knows
//! without Nix what the derivation of a host depends on ([`Model::essence`]), so that a test can predict which hosts an edit
//! changes.

mod edit;
mod host;
mod inventory;
mod model;
pub(crate) mod seeded;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use edit::{Edit, Input};
pub(crate) use host::{Break, Fact, HostKind, HostRole, Module};
pub(crate) use inventory::DeviceEdit;
pub(crate) use model::Model;
pub(crate) use seeded::Seeded;
use tree::{Templates, Tree};

use super::command::{NIX_CONFIG, hermetic_git, program, run};

/// The amount of work to evaluate a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Light,
    Normal,
    Heavy,
}

impl Weight {
    /// Each unit of scale is twelve packages and thirty services.
    fn scale(self) -> u32 {
        match self {
            Self::Light => 1,
            Self::Normal => 16,
            Self::Heavy => 48,
        }
    }
}

/// What the hosts of a fleet share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Files alone: each host evaluates everything for itself.
    Nothing,
    /// Some 70 % of the evaluation of a host, as hosts of one nixpkgs do. A process that evaluates many hosts does it once.
    Packages,
}

impl Sharing {
    /// The scale of what hosts of this weight share. Each unit of it is twelve packages.
    fn scale(self, weight: Weight) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Packages => 8 * weight.scale(),
        }
    }
}

/// The kinds of hosts in a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Only hosts that read nothing but modules.
    Plain,
    /// Each kind in turn.
    EveryKind,
    /// Every second kind in turn, beginning with the kind at this index.
    EverySecondKind(usize),
}

/// The options of a new fleet.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) hosts: u32,
    pub(crate) weight: Weight,
    pub(crate) sharing: Sharing,
    pub(crate) mix: Mix,
    /// How many devices its inventory has.
    pub(crate) devices: u32,
    /// The folder of the flake in its repository; empty for the root.
    pub(crate) below: String,
}

/// A fleet in a folder.
pub(crate) struct Fleet {
    root: PathBuf,
    options: Options,
    templates: Templates,
    model: Model,
    tree: Tree,
}

impl Fleet {
    /// Writes a fleet into the folder `root`, which is new or empty, locks its inputs and commits it.
    pub(crate) fn create(root: &Path, options: Options) -> Self {
        std::fs::create_dir_all(root).unwrap();
        // An absolute path is valid for git and Nix in every working directory.
        let root = root.canonicalize().unwrap();
        let model = Model::new(&options);
        let mut fleet = Self { root, options, templates: Templates::read(), model, tree: Tree::new() };
        fleet.write();
        for repository in fleet.repositories() {
            fleet.git(&repository, &["init", "-q", "-b", "main"]);
        }
        for input in Input::ALL {
            fleet.commit_input(input);
        }
        fleet.git(&fleet.repository(), &["add", "-A"]);
        fleet.lock();
        fleet.commit("A fleet");
        fleet
    }

    /// The fleet as data.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// The folder of its repository.
    pub(crate) fn repository(&self) -> PathBuf {
        self.root.join("fleet")
    }

    /// The folder of its flake.
    pub(crate) fn flake(&self) -> PathBuf {
        self.root.join(self.flake_folder())
    }

    /// The reference to its flake, at the newest commit of the branch.
    pub(crate) fn reference(&self) -> String {
        let dir = if self.options.below.is_empty() { String::new() } else { format!("&dir={}", self.options.below) };
        format!("git+file://{}?ref=main{dir}", self.repository().display())
    }

    /// Chooses a random edit that can be applied, and that changes a file: git makes no commit of nothing.
    pub(crate) fn choose(&self, chance: &mut Seeded) -> Edit {
        loop {
            let edit = edit::choose(&self.model, chance);
            let mut changed = self.model.clone();
            changed.apply(&edit);
            if self.tree_of(&changed) != self.tree {
                return edit;
            }
        }
    }

    /// Applies `edit` to the folder and commits it. Returns the revision.
    pub(crate) fn edit(&mut self, edit: &Edit) -> String {
        self.apply(edit);
        self.commit(&format!("{edit:?}"))
    }

    /// Applies `edit` to the folder, and leaves the repository's work tree dirty.
    pub(crate) fn apply(&mut self, edit: &Edit) {
        self.model.apply(edit);
        self.write();
        if let Edit::BumpInput(input) = edit {
            self.commit_input(*input);
            self.lock();
        }
    }

    /// Commits whatever is in the folder. Returns the revision.
    pub(crate) fn commit(&self, message: &str) -> String {
        let repository = self.repository();
        self.git(&repository, &["add", "-A"]);
        self.git(&repository, &["commit", "-q", "-m", message]);
        self.git(&repository, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// The essence of each host, or none where it is broken; see [`Model::essence`].
    pub(crate) fn essences(&self) -> BTreeMap<String, Option<String>> {
        self.model.hosts.keys().map(|name| (name.clone(), self.model.essence(name))).collect()
    }

    fn flake_folder(&self) -> String {
        let below = &self.options.below;
        if below.is_empty() { "fleet".to_owned() } else { format!("fleet/{below}") }
    }

    fn tree_of(&self, model: &Model) -> Tree {
        let inputs = self.root.join("inputs");
        model.tree(&self.templates, &self.flake_folder(), inputs.to_str().unwrap())
    }

    fn write(&mut self) {
        let new = self.tree_of(&self.model);
        tree::change(&self.root, &self.tree, &new);
        self.tree = new;
    }

    fn repositories(&self) -> Vec<PathBuf> {
        let inputs = Input::ALL.into_iter().filter(|input| *input != Input::Shelf);
        inputs.map(|input| self.root.join("inputs").join(input.name())).chain([self.repository()]).collect()
    }

    fn commit_input(&self, input: Input) {
        if input == Input::Shelf {
            return;
        }
        let repository = self.root.join("inputs").join(input.name());
        self.git(&repository, &["add", "-A"]);
        self.git(&repository, &["commit", "-q", "-m", &format!("Edition {}", self.model.edition_of(input))]);
    }

    /// Locks every input at its current content. Every version of Nix fills an empty lock.
    fn lock(&self) {
        let lock = "{ \"nodes\": { \"root\": {} }, \"root\": \"root\", \"version\": 7 }\n";
        std::fs::write(self.flake().join("flake.lock"), lock).unwrap();
        let mut nix = program("nix");
        nix.args(["flake", "lock", "--option", "tarball-ttl", "0"]).arg(self.flake());
        run(hermetic_git(&mut nix, &self.root).env("NIX_CONFIG", NIX_CONFIG));
    }

    fn git(&self, repository: &Path, arguments: &[&str]) -> String {
        let mut git = program("git");
        hermetic_git(&mut git, &self.root).arg("-C").arg(repository).args(arguments);
        // Commits are a minute apart, because some hosts depend on the time of the commit.
        let date = format!("@{} +0000", 1_767_225_600 + 60 * u64::from(self.model.step));
        run(git.env("GIT_COMMITTER_DATE", &date).env("GIT_AUTHOR_DATE", &date))
    }
}
