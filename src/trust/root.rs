//! A root that is believed, and the one that may follow it (The Update Framework, section 5.3).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::signed::content;
use super::{Authority, AuthorityError, Signed, SignedError};
use crate::model::{
    Epoch, FleetId, Invalid, KeyId, Name, Payload as _, Role, RoleKey, Root, RootVersion, Sha256Digest, Timestamp,
};

/// A root that is trusted, because an operator gave it, or because the root before it signed it.
#[derive(Debug, Clone)]
pub struct TrustedRoot {
    fleet: FleetId,
    root: Root,
    file: Vec<u8>,
    signers: Authority,
    publisher: Authority,
    approver: Option<Authority>,
}

/// The reason why a root is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// It is no root, or too few of the keys that have a say signed it.
    #[error("{by}: {source}")]
    Signed {
        /// By whom it should have been signed.
        by: RequiredSigners,
        /// What is wrong.
        source: SignedError,
    },
    /// A role could never sign anything.
    #[error("its role `{role}` cannot be: {source}")]
    Role {
        /// The role.
        role: &'static str,
        /// Why.
        source: AuthorityError,
    },
    /// Approvals are asked for, and there are not as many approvers.
    #[error("it asks for {asked} approvals of `{pattern}`, and has {approvers} approvers")]
    TooFewApprovers {
        /// The policy's pattern.
        pattern: String,
        /// What it asks for.
        asked: usize,
        /// How many there are.
        approvers: usize,
    },
    /// An approver's key has a name that no file can have, or that another's has too.
    #[error(
        "the approver `{name}` cannot be called so, since the approvals are in files of the approvers' names: {why}"
    )]
    ApproverName {
        /// The key's name.
        name: KeyId,
        /// What is wrong with it.
        why: String,
    },
    /// It is not the version that follows.
    #[error("it is version {found}, where version {expected} has to follow")]
    NotNext {
        /// The version that has to follow.
        expected: RootVersion,
        /// What it is.
        found: RootVersion,
    },
    /// There is none after it.
    #[error("version {0} is the largest that a root can have")]
    Last(RootVersion),
    /// Its epoch is neither that of the root before it nor the next.
    #[error("its epoch is {found} after {before}; it stays, or is raised by one")]
    Epoch {
        /// The epoch of the root before it.
        before: Epoch,
        /// Its own.
        found: Epoch,
    },
    /// It is of another fleet.
    #[error("it is of the fleet {found}, not of {expected}")]
    OtherFleet {
        /// The fleet asked for.
        expected: FleetId,
        /// The fleet that it is of.
        found: FleetId,
    },
    /// A first root that names a fleet, or a later one that names none.
    #[error("it is version {0}, and the first root alone, which makes the fleet, names none")]
    Fleet(RootVersion),
}

/// The keys that have to sign a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredSigners {
    /// Its own root keys.
    Itself,
    /// Those of the root before it.
    TheOneBefore,
    /// Those of the root of its version that is believed.
    TheBelieved,
}

impl std::fmt::Display for RequiredSigners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Itself => "by its own root keys",
            Self::TheOneBefore => "by the keys of the root before it",
            Self::TheBelieved => "by the keys of the root of that version that is believed",
        })
    }
}

impl TrustedRoot {
    /// Believes the root that somebody gave by hand, of any version, when enough of its own keys signed it.
    pub fn given(file: &[u8]) -> Result<Self, RootError> {
        let signed = parse(file)?;
        Self::build(file, &signed)
    }

    /// Believes a first root by its digest.
    pub fn first(file: &[u8], fleet: FleetId) -> Result<Self, RootError> {
        let signed = parse(file)?;
        let version = signed.unverified().version;
        if version != RootVersion::FIRST {
            return Err(RootError::NotNext { expected: RootVersion::FIRST, found: version });
        }
        let root = Self::build(file, &signed)?;
        root.of(fleet)
    }

    /// Believes the root after this one: signed by enough keys of this one and of itself, and the very next.
    pub fn next(&self, file: &[u8]) -> Result<Self, RootError> {
        let signed = parse(file)?;
        let next = signed.unverified();
        let expected = self.root.version.next().ok_or(RootError::Last(self.root.version))?;
        if next.version != expected {
            return Err(RootError::NotNext { expected, found: next.version });
        }
        let by_this = signed.check(&self.signers);
        by_this.map_err(|source| RootError::Signed { by: RequiredSigners::TheOneBefore, source })?;
        if next.epoch != self.root.epoch && Some(next.epoch) != self.root.epoch.next() {
            return Err(RootError::Epoch { before: self.root.epoch, found: next.epoch });
        }
        Self::build(file, &signed)?.of(self.fleet)
    }

    /// Another root of this one's version, signed by enough keys of this one and of itself.
    pub fn again(&self, file: &[u8]) -> Result<Self, RootError> {
        let signed = parse(file)?;
        let (expected, found) = (self.root.version, signed.unverified().version);
        if found != expected {
            return Err(RootError::NotNext { expected, found });
        }
        signed.check(&self.signers).map_err(|source| RootError::Signed { by: RequiredSigners::TheBelieved, source })?;
        Self::build(file, &signed)?.of(self.fleet)
    }

    fn build(file: &[u8], signed: &Signed<Root>) -> Result<Self, RootError> {
        let root = signed.unverified().clone();
        let role = |role: &'static str| move |source| RootError::Role { role, source };
        let signers = Authority::of(&root.roles.root).map_err(role("root"))?;
        let publisher = Authority::of(&root.roles.publisher).map_err(role("publisher"))?;
        let approver = &root.roles.approver;
        let nobody = approver.keys.is_empty() && root.approvals.is_empty();
        let approver = if nobody { None } else { Some(Authority::of(approver).map_err(role("approver"))?) };
        let approvers = approver.as_ref().map_or(0, |approver| approver.key_ids().count());
        if let Some(policy) = root.approvals.iter().find(|policy| policy.approvals.get() > approvers) {
            let (pattern, asked) = (policy.pattern.to_string(), policy.approvals.get());
            return Err(RootError::TooFewApprovers { pattern, asked, approvers });
        }
        check_names(&root.roles.approver)?;
        if root.fleet.is_none() != (root.version == RootVersion::FIRST) {
            return Err(RootError::Fleet(root.version));
        }
        let fleet = fleet_of(&root);
        signed.check(&signers).map_err(|source| RootError::Signed { by: RequiredSigners::Itself, source })?;
        Ok(Self { fleet, root, file: file.to_vec(), signers, publisher, approver })
    }

    fn of(self, fleet: FleetId) -> Result<Self, RootError> {
        if self.fleet == fleet { Ok(self) } else { Err(RootError::OtherFleet { expected: fleet, found: self.fleet }) }
    }

    /// The fleet that it is of.
    pub fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// What it says.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Its file.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// The digest of what it says, whoever signed it.
    pub fn content(&self) -> Sha256Digest {
        content(&self.root)
    }

    /// Who signs the index and the documents.
    pub fn publisher(&self) -> &Authority {
        &self.publisher
    }

    /// Who approves deployments; nobody where there are no approvers.
    pub fn approver(&self) -> Option<&Authority> {
        self.approver.as_ref()
    }

    /// Whether it may not be believed any more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.root.expires
    }
}

/// The names of approvers become those of files, which some file systems compare without regard to case.
fn check_names(approver: &Role) -> Result<(), RootError> {
    let mut taken = BTreeSet::new();
    for id in approver.keys.iter().map(RoleKey::id) {
        let bad = |why: String| RootError::ApproverName { name: id.clone(), why };
        let name: Name = id.as_str().parse().map_err(|error: Invalid| bad(error.why))?;
        if !taken.insert(name.folded()) {
            return Err(bad("another one is, without regard to case".to_owned()));
        }
    }
    Ok(())
}

/// The fleet that a root says it is of, or that it makes.
pub fn fleet_of(root: &Root) -> FleetId {
    root.fleet.unwrap_or_else(|| FleetId::of(content(root)))
}

fn parse(file: &[u8]) -> Result<Signed<Root>, RootError> {
    Signed::parse(file).map_err(|source| RootError::Signed { by: RequiredSigners::Itself, source })
}

/// The trust that a machine starts with, before anything was fetched.
#[derive(Debug, Clone)]
pub enum Anchor {
    /// A root.
    Root(Box<TrustedRoot>),
    /// The digest of the first root, which the branch then has to show.
    Digest(FleetId),
}

/// Where an [`Anchor`] is: a file with a root, or the digest of the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorPlace {
    /// A file.
    File(PathBuf),
    /// The digest itself.
    Digest(FleetId),
}

/// The reason why an anchor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The file cannot be read.
    #[error("cannot read the root {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds no root that can be believed.
    #[error("the root {} is not to be believed: {source}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RootError,
    },
}

impl std::str::FromStr for AnchorPlace {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // No file is called by 64 hexadecimal digits by accident.
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Digest))
    }
}

impl AnchorPlace {
    /// The same, where a relative path counts from `directory`.
    #[must_use]
    pub fn below(self, directory: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(directory.join(path)),
            digest @ Self::Digest(_) => digest,
        }
    }
}

impl Anchor {
    /// Reads it.
    pub fn read(place: &AnchorPlace) -> Result<Self, AnchorError> {
        match place {
            AnchorPlace::Digest(fleet) => Ok(Self::Digest(*fleet)),
            AnchorPlace::File(path) => {
                let io = |source| AnchorError::Io { path: path.clone(), source };
                let file = read_at_most(path, Root::LARGEST + 1).map_err(io)?;
                let root = TrustedRoot::given(&file);
                let root = root.map_err(|source| AnchorError::Root { path: path.clone(), source })?;
                Ok(Self::Root(Box::new(root)))
            }
        }
    }

    /// The fleet.
    pub fn fleet(&self) -> FleetId {
        match self {
            Self::Root(root) => root.fleet(),
            Self::Digest(fleet) => *fleet,
        }
    }
}

fn read_at_most(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
