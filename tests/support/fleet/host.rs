//! A host of a fleet, and the files that it consists of.

use std::collections::BTreeSet;

use super::model::Model;
use super::tree::{FileContent, Templates, Tree};

/// The special way in which a host reads files. Each kind has a template in `fixtures/fleets/kinds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostKind {
    /// None: it reads modules only.
    Plain,
    /// `readFile` of a file of its own.
    ReadsFile,
    /// `hashFile` of a file of its own.
    HashesFile,
    /// `pathExists` of a file that exists or not.
    AsksPath,
    /// `readDir`, and imports all of it.
    ReadsFolder,
    /// `readDir`, and uses the names and types only.
    ListsFolder,
    /// A folder copied whole.
    CopiesFolder,
    /// A folder copied through a filter.
    FiltersFolder,
    /// A file of an input.
    InputFile,
    /// The revision of an input.
    InputRevision,
    /// The path of an input that is no flake.
    PlainInput,
    /// A module of an input that is a folder.
    Shelf,
    /// `flake.lock`, read as a file.
    ReadsLock,
    /// A file through a symbolic link.
    ReadsLink,
    /// The path of its own folder as a text.
    FolderAsText,
    /// The digest of that text.
    HashesPath,
    /// Another host's address.
    SeesNeighbour,
    /// The names of all hosts.
    ListsHosts,
}

impl HostKind {
    /// All of them.
    pub(crate) const ALL: [Self; 18] = [
        Self::Plain,
        Self::ReadsFile,
        Self::HashesFile,
        Self::AsksPath,
        Self::ReadsFolder,
        Self::ListsFolder,
        Self::CopiesFolder,
        Self::FiltersFolder,
        Self::InputFile,
        Self::InputRevision,
        Self::PlainInput,
        Self::Shelf,
        Self::ReadsLock,
        Self::ReadsLink,
        Self::FolderAsText,
        Self::HashesPath,
        Self::SeesNeighbour,
        Self::ListsHosts,
    ];

    fn template(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::ReadsFile => "reads-file",
            Self::HashesFile => "hashes-file",
            Self::AsksPath => "asks-path",
            Self::ReadsFolder => "reads-folder",
            Self::ListsFolder => "lists-folder",
            Self::CopiesFolder => "copies-folder",
            Self::FiltersFolder => "filters-folder",
            Self::InputFile => "input-file",
            Self::InputRevision => "input-revision",
            Self::PlainInput => "plain-input",
            Self::Shelf => "shelf",
            Self::ReadsLock => "reads-lock",
            Self::ReadsLink => "reads-link",
            Self::FolderAsText => "folder-as-text",
            Self::HashesPath => "hashes-path",
            Self::SeesNeighbour => "sees-neighbour",
            Self::ListsHosts => "lists-hosts",
        }
    }

    /// The path below the host's folder of the data file that a host of this kind reads or copies.
    pub(crate) fn data(self) -> Option<&'static str> {
        match self {
            Self::ReadsFile | Self::HashesFile => Some("data"),
            Self::CopiesFolder | Self::FiltersFolder => Some("data/text"),
            _ => None,
        }
    }

    /// Whether the host reads a folder of entries.
    pub(crate) fn has_entries(self) -> bool {
        matches!(self, Self::ReadsFolder | Self::ListsFolder)
    }
}

/// A role, which is a file that hosts import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostRole {
    Web,
    Database,
    Router,
    Builder,
}

impl HostRole {
    pub(crate) const ALL: [Self; 4] = [Self::Web, Self::Database, Self::Router, Self::Builder];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Database => "database",
            Self::Router => "router",
            Self::Builder => "builder",
        }
    }

    /// The modules that its file imports.
    pub(crate) fn modules(self) -> &'static [Module] {
        match self {
            Self::Web => &[Module::Base, Module::Monitoring, Module::Hardening],
            Self::Database => &[Module::Base, Module::Monitoring, Module::Backup],
            Self::Router => &[Module::Base, Module::Hardening],
            Self::Builder => &[Module::Base, Module::Backup],
        }
    }
}

/// A module of the fleet's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Module {
    /// Every host imports it.
    Base,
    Monitoring,
    Backup,
    Hardening,
}

impl Module {
    pub(crate) const ALL: [Self; 4] = [Self::Base, Self::Monitoring, Self::Backup, Self::Hardening];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Monitoring => "monitoring",
            Self::Backup => "backup",
            Self::Hardening => "hardening",
        }
    }
}

/// A fact about the flake's source as a whole that a host depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    Revision,
    LastModified,
    NarHash,
    OutPath,
}

impl Fact {
    pub(crate) const ALL: [Self; 4] = [Self::Revision, Self::LastModified, Self::NarHash, Self::OutPath];

    fn code(self) -> &'static str {
        match self {
            Self::Revision => r#"host.stamp = self.rev or "dirty";"#,
            Self::LastModified => "host.stamp = toString self.lastModified;",
            Self::NarHash => "host.stamp = self.narHash;",
            Self::OutPath => "host.stamp = self.outPath;",
        }
    }
}

/// How a host is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Break {
    Throw,
    Abort,
    FailedAssertion,
    TypeError,
    WrongType,
    InfiniteRecursion,
    EndlessRecursion,
    MissingAttribute,
    MissingFile,
    UnknownOption,
    Syntax,
}

impl Break {
    pub(crate) const ALL: [Self; 11] = [
        Self::Throw,
        Self::Abort,
        Self::FailedAssertion,
        Self::TypeError,
        Self::WrongType,
        Self::InfiniteRecursion,
        Self::EndlessRecursion,
        Self::MissingAttribute,
        Self::MissingFile,
        Self::UnknownOption,
        Self::Syntax,
    ];

    fn code(self) -> &'static str {
        match self {
            Self::Throw => r#"host.note = throw "broken on purpose";"#,
            Self::Abort => r#"host.note = abort "broken on purpose";"#,
            Self::FailedAssertion => r#"host.note = assert 1 == 2; "";"#,
            Self::TypeError => r#"host.note = 1 + "one";"#,
            Self::WrongType => "host.note = [ ];",
            Self::InfiniteRecursion => r#"host.note = config.host.note + "!";"#,
            Self::EndlessRecursion => "host.note = let deeper = n: 1 + deeper (n + 1); in toString (deeper 0);",
            Self::MissingAttribute => "host.note = config.host.nobody;",
            Self::MissingFile => "host.note = import ./nobody.nix;",
            Self::UnknownOption => r#"host.nobody = "";"#,
            Self::Syntax => "host.note = (;",
        }
    }

    /// Whether nothing of such a host can be evaluated. Otherwise only the broken value fails.
    pub(crate) fn is_of_the_whole(self) -> bool {
        matches!(self, Self::UnknownOption | Self::Syntax)
    }
}

/// A host.
#[derive(Debug, Clone)]
pub(crate) struct FleetHost {
    /// Its number, which stays when it is renamed.
    pub(crate) number: u32,
    pub(crate) kind: HostKind,
    pub(crate) role: HostRole,
    /// Counts the changes of its own file.
    pub(crate) edition: u32,
    /// Counts the changes of its data file.
    pub(crate) data: u32,
    /// Counts the changes of the file that its filter leaves out.
    pub(crate) filtered_out: u32,
    /// The files in its folder of entries.
    pub(crate) entries: BTreeSet<u32>,
    /// Whether the file exists whose `pathExists` it evaluates.
    pub(crate) looked_for: Presence,
    /// The form of its data file, or of the first of its entries.
    pub(crate) form: Form,
    /// The host whose address it reads.
    pub(crate) neighbour: String,
    pub(crate) stamp: Option<Fact>,
    pub(crate) broken: Option<Break>,
}

/// Whether a file exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    Gone,
}

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Executable,
    /// A symbolic link to a file of the same content.
    Link,
}

impl FleetHost {
    pub(crate) fn new(number: u32, kind: HostKind, role: HostRole, neighbour: String) -> Self {
        Self {
            number,
            kind,
            role,
            edition: 1,
            data: 1,
            filtered_out: 1,
            entries: BTreeSet::from([1, 2]),
            looked_for: Presence::Gone,
            form: Form::Plain,
            neighbour,
            stamp: None,
            broken: None,
        }
    }

    /// The files of the host called `name`, below the folder of the flake.
    pub(super) fn write(&self, name: &str, templates: &Templates, flake: &str, tree: &mut Tree) {
        let more: Vec<&str> =
            [self.stamp.map(Fact::code), self.broken.map(Break::code)].into_iter().flatten().collect();
        let text = templates.rendered(
            &format!("kinds/{}.nix", self.kind.template()),
            &[
                ("name", name),
                ("number", &self.number.to_string()),
                ("edition", &self.edition.to_string()),
                ("role", self.role.name()),
                ("neighbour", &self.neighbour),
            ],
        );
        let text = text.replace("# @more@", &more.join("\n  "));
        if self.kind == HostKind::Plain {
            tree.insert(format!("{flake}/hosts/{name}.nix"), FileContent::File(text));
            return;
        }
        let mut put =
            |path: &str, content: FileContent| drop(tree.insert(format!("{flake}/hosts/{name}/{path}"), content));
        put("default.nix", FileContent::File(text));
        self.write_data(&mut put);
    }

    fn write_data(&self, put: &mut dyn FnMut(&str, FileContent)) {
        if let Some(path) = self.kind.data() {
            let text = format!("Edition {} of {}\n", self.data, self.number);
            match self.form {
                Form::Plain => put(path, FileContent::File(text)),
                Form::Executable => put(path, FileContent::Executable(text)),
                Form::Link => {
                    // Beside the folder that is copied, not in it.
                    put("original", FileContent::File(text));
                    put(
                        path,
                        FileContent::Link(if path.contains('/') { "../original" } else { "original" }.to_owned()),
                    );
                }
            }
        }
        match self.kind {
            HostKind::FiltersFolder => {
                put("data/scratch.log", FileContent::File(format!("Line {}\n", self.filtered_out)));
            }
            HostKind::AsksPath if self.looked_for == Presence::There => {
                put("maintenance", FileContent::File(format!("Edition {}\n", self.data)));
            }
            HostKind::ReadsLink => put("link", FileContent::Link("../../shared/notes.txt".to_owned())),
            HostKind::ReadsFolder | HostKind::ListsFolder => self.write_entries(put),
            _ => {}
        }
    }

    fn write_entries(&self, put: &mut dyn FnMut(&str, FileContent)) {
        let folder = if self.kind == HostKind::ReadsFolder { "parts" } else { "entries" };
        // Git has no empty folders, so this entry always exists.
        for (at, entry) in [0].iter().chain(&self.entries).enumerate() {
            let text = format!("{{ files.\"parts/{entry}\".text = \"Part {entry}\"; }}\n");
            let path = format!("{folder}/{entry}.nix");
            match self.form {
                Form::Executable if at == 0 => put(&path, FileContent::Executable(text)),
                Form::Link if at == 0 => {
                    put("original.nix", FileContent::File(text));
                    put(&path, FileContent::Link("../original.nix".to_owned()));
                }
                Form::Plain | Form::Executable | Form::Link => put(&path, FileContent::File(text)),
            }
        }
    }

    /// The part of the essence that is special to the kind.
    pub(super) fn essence(&self, model: &Model) -> String {
        let data = self.data;
        match self.kind {
            HostKind::Plain => String::new(),
            HostKind::ReadsFile | HostKind::HashesFile => format!("{data}"),
            HostKind::AsksPath => format!("{:?}", self.looked_for),
            HostKind::ReadsFolder => format!("{:?}", self.entries),
            HostKind::ListsFolder => format!("{:?} {}", self.entries, self.form == Form::Link),
            HostKind::CopiesFolder | HostKind::FiltersFolder if self.form == Form::Link => "link".to_owned(),
            HostKind::CopiesFolder | HostKind::FiltersFolder => format!("{data} {:?}", self.form),
            HostKind::InputFile | HostKind::InputRevision => format!("{}", model.edition_of(super::Input::Site)),
            HostKind::PlainInput => format!("{}", model.edition_of(super::Input::Tables)),
            HostKind::Shelf => format!("{}", model.edition_of(super::Input::Shelf)),
            HostKind::ReadsLock => format!("{:?}", model.inputs),
            HostKind::ReadsLink => format!("{}", model.notes),
            HostKind::FolderAsText | HostKind::HashesPath => format!("{}", model.step),
            HostKind::SeesNeighbour => format!("{:?}", model.hosts.get(&self.neighbour).map(|host| host.number)),
            HostKind::ListsHosts => format!("{:?}", model.hosts.keys()),
        }
    }
}
